// Attention for XLA on CPUs, forward and backward, as calls of XLA's foreign function interface.
//
// One task is one head of one scene, and XLA's threads share the tasks. All sums are float32. Weights are never stored:
// the backward pass computes them again from the logarithm of each query's sum, a few queries at a time. A task's sums
// have one order, so the number of threads changes no bit. models/fused_cpu.py says what is computed.

#include <atomic>
#include <climits>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, COLUMNS = 4;  // of 32 registers, 24 hold sums
#else
constexpr int LANES = 8, COLUMNS = 2;  // of 16 registers, 12 hold sums
#endif
constexpr int ROWS = 6;
constexpr int QUERIES = 48;  // at a time in the backward pass: each time, gradients of keys are read and written once
constexpr float NOTHING = 1e30f;  // in place of the logarithm of a sum: the query sees no key

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

inline Vector load(const float* from) { Vector x; memcpy(&x, from, sizeof x); return x; }
inline Integers load(const int32_t* from) { Integers x; memcpy(&x, from, sizeof x); return x; }
inline void store(float* to, Vector x) { memcpy(to, &x, sizeof x); }
inline Vector all(float x) { return x - Vector{}; }
inline Vector where(Integers mask, Vector x) { return (Vector)(mask & (Integers)x); }
inline bool any(Integers mask) {
  int32_t found = 0;
  for (int i = 0; i < LANES; i++) found |= mask[i];
  return found != 0;
}
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

inline float sum(Vector x) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += x[i];
  return total;
}

inline float largest(Vector x) {
  float most = x[0];
  for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
  return most;
}

// exp(x) for x <= 0, to 2 units in the last place: 2^n e^r with |r| <= log(2) / 2, whose polynomial is Cephes'.
inline Vector exponential(Vector x) {
  x = larger(x, all(-87.f));  // 2^n must be a normal number
  const Vector shifter = all(12582912.f);  // 1.5 * 2^23: the sum's last bits are the integer
  Vector shifted = x * 1.44269504089f + shifter, n = shifted - shifter;
  Vector r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.f);
  Integers power = ((Integers)shifted << 23) + (127 << 23);
  return p * (Vector)power;
}

// A matrix whose element (i, k) is at data[i * row + k * column].
struct View {
  const float* data;
  int64_t row, column;
};

// c [M, LANES * N] = (c if ADD) + scale * a [M, depth] b [depth, LANES * N]
template <int M, int N, bool ADD>
inline void block(View a, const float* b, int64_t b_row, float* c, int64_t c_row, int depth, float scale) {
  Vector sums[M][N] = {};
  for (int k = 0; k < depth; k++) {
    Vector right[N];
    for (int j = 0; j < N; j++) right[j] = load(b + k * b_row + LANES * j);
    for (int i = 0; i < M; i++) {
      Vector left = all(a.data[i * a.row + k * a.column]);
      for (int j = 0; j < N; j++) sums[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      float* to = c + i * c_row + LANES * j;
      store(to, ADD ? load(to) + sums[i][j] * scale : sums[i][j] * scale);
    }
}

template <int M, bool ADD>
void rows(View a, const float* b, int64_t b_row, float* c, int64_t c_row, int width, int depth, float scale) {
  int n = 0;
  for (; n + COLUMNS * LANES <= width; n += COLUMNS * LANES)
    block<M, COLUMNS, ADD>(a, b + n, b_row, c + n, c_row, depth, scale);
  for (; n < width; n += LANES) block<M, 1, ADD>(a, b + n, b_row, c + n, c_row, depth, scale);
}

// c [height, width] = (c if ADD) + scale * a [height, depth] b [depth, width]; width is a multiple of LANES
template <bool ADD>
void multiply(View a, const float* b, int64_t b_row, float* c, int64_t c_row, int height, int width, int depth,
              float scale) {
  int m = 0;
  auto at = [&](int row) { return View{a.data + row * a.row, a.row, a.column}; };
  for (; m + ROWS <= height; m += ROWS) rows<ROWS, ADD>(at(m), b, b_row, c + m * c_row, c_row, width, depth, scale);
  for (; m + 2 <= height; m += 2) rows<2, ADD>(at(m), b, b_row, c + m * c_row, c_row, width, depth, scale);
  for (; m < height; m++) rows<1, ADD>(at(m), b, b_row, c + m * c_row, c_row, width, depth, scale);
}

inline int whole(int n) { return (n + LANES - 1) / LANES * LANES; }

struct Bfloat16 {
  uint16_t bits;
};
inline float wide(float x) { return x; }
inline float wide(Bfloat16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
inline void narrow(float x, float& to) { to = x; }
inline void narrow(float x, Bfloat16& to) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000)
    bits |= 0x400000;  // NaN stays NaN
  else
    bits += 0x7fff + ((bits >> 16) & 1);  // to the nearest, ties to even
  to.bits = bits >> 16;
}

// [count, width] of any type -> float32 [count, whole(width)], filled up with zeros
template <class T>
void copy_in(const T* from, float* to, int count, int width) {
  for (int t = 0; t < count; t++)
    for (int c = 0, row = whole(width); c < row; c++)
      to[int64_t(t) * row + c] = c < width ? wide(from[int64_t(t) * width + c]) : 0.f;
}

template <class T>
void copy_out(const float* from, T* to, int count, int width) {
  for (int t = 0; t < count; t++)
    for (int c = 0; c < width; c++) narrow(from[int64_t(t) * whole(width) + c], to[int64_t(t) * width + c]);
}

// [count, width] -> float32 [width, whole(count)], filled up with zeros
template <class T>
void copy_transposed(const T* from, float* to, int count, int width) {
  const int row = whole(count);
  for (int c = 0; c < width; c++)
    for (int t = 0; t < row; t++) to[int64_t(c) * row + t] = t < count ? wide(from[int64_t(t) * width + c]) : 0.f;
}

// Memory of this thread for `count` numbers, which the next call overwrites.
float* scratch(int64_t count) {
  thread_local std::vector<float> buffer;
  if (int64_t(buffer.size()) < count) buffer.resize(count);
  return buffer.data();
}

struct Sizes {
  int queries, keys, width;
};

// The ids of keys, filled up with one that no query has.
const int32_t* padded(const int32_t* segment, int keys, std::vector<int32_t>& buffer) {
  buffer.assign(whole(keys), INT_MIN);
  for (int u = 0; u < keys; u++) buffer[u] = segment ? segment[u] : 1;
  return buffer.data();
}

// One query's logits [keys] -> its weights. Returns the logarithm of their sum. NaN for logits that are NaN or infinity,
// so that a diverged model shows.
float softmax(float* row, const int32_t* ids, int32_t own, int keys) {
  Vector most = all(-NOTHING);
  Integers wrong = {};
  for (int u = 0; u < keys; u += LANES) {
    Integers seen = load(ids + u) == own;
    Vector logit = load(row + u);
    most = larger(most, seen ? logit : all(-NOTHING));
    wrong |= seen & ~(logit < all(INFINITY));
  }
  const float top = largest(most);
  if (own != 0 && any(wrong)) {
    for (int u = 0; u < keys; u++) row[u] = NAN;
    return NAN;
  }
  if (own == 0 || top == -NOTHING) {
    memset(row, 0, sizeof(float) * keys);
    return NOTHING;
  }
  Vector sums = {};
  for (int u = 0; u < keys; u += LANES) {
    Vector weight = where(load(ids + u) == own, exponential(load(row + u) - top));
    store(row + u, weight);
    sums += weight;
  }
  const float total = sum(sums), scale = 1.f / total;
  for (int u = 0; u < keys; u += LANES) store(row + u, load(row + u) * scale);
  return top + std::log(total);
}

template <class T>
void forward(const T* q, const T* k, const T* v, const int32_t* q_ids, const int32_t* k_ids, T* out, float* logs,
             Sizes sizes) {
  const int width = whole(sizes.width), keys = whole(sizes.keys), count = sizes.queries;
  thread_local std::vector<int32_t> ids_buffer;
  float* queries = scratch(int64_t(2 * count + sizes.keys) * width + int64_t(sizes.width + ROWS) * keys);
  float* values = queries + int64_t(count) * width;
  float *result = values + int64_t(sizes.keys) * width, *keys_t = result + int64_t(count) * width;
  float* weights = keys_t + int64_t(sizes.width) * keys;
  copy_in(q, queries, count, sizes.width);
  copy_in(v, values, sizes.keys, sizes.width);
  copy_transposed(k, keys_t, sizes.keys, sizes.width);
  const int32_t* ids = padded(k_ids, sizes.keys, ids_buffer);
  const float scale = 1.f / std::sqrt(float(sizes.width));
  for (int t = 0; t < count; t += ROWS) {
    const int some = count - t < ROWS ? count - t : ROWS;
    float *query = queries + int64_t(t) * width, *to = result + int64_t(t) * width;
    multiply<false>({query, width, 1}, keys_t, keys, weights, keys, some, keys, sizes.width, scale);
    for (int i = 0; i < some; i++) logs[t + i] = softmax(weights + i * keys, ids, q_ids ? q_ids[t + i] : 1, keys);
    multiply<false>({weights, keys, 1}, values, width, to, width, some, width, sizes.keys, 1.f);
  }
  copy_out(result, out, count, sizes.width);
}

// One query's logits and the gradient of its weights [keys] -> its weights and the gradient of its logits.
void softmax_backward(float* row, float* gradient, const int32_t* ids, int32_t own, float log, float mean, float scale,
                      int keys) {
  if (std::isnan(log)) {
    for (int u = 0; u < keys; u++) row[u] = gradient[u] = NAN;
    return;
  }
  if (log == NOTHING) {
    memset(row, 0, sizeof(float) * keys);
    memset(gradient, 0, sizeof(float) * keys);
    return;
  }
  for (int u = 0; u < keys; u += LANES) {
    Integers seen = load(ids + u) == own;
    Vector weight = where(seen, exponential(where(seen, load(row + u) - log)));
    store(row + u, weight);
    store(gradient + u, weight * where(seen, load(gradient + u) - mean) * scale);
  }
}

template <class T>
void backward(const T* q, const T* k, const T* v, const T* out, const T* gradient, const int32_t* q_ids,
              const int32_t* k_ids, const float* logs, T* to_q, T* to_k, T* to_v, Sizes sizes) {
  const int width = whole(sizes.width), keys = whole(sizes.keys), count = sizes.queries, U = sizes.keys;
  const int64_t of_queries = int64_t(count) * width, of_keys = int64_t(U) * width;
  const int64_t transposed = int64_t(sizes.width) * keys, weights_size = int64_t(QUERIES) * keys;
  thread_local std::vector<int32_t> ids_buffer;
  float* queries = scratch(4 * of_queries + 3 * of_keys + 2 * transposed + 2 * weights_size);
  float *results = queries + of_queries, *gradients = results + of_queries;
  float *q_sum = gradients + of_queries, *rows_of_keys = q_sum + of_queries, *k_sum = rows_of_keys + of_keys;
  float *v_sum = k_sum + of_keys, *keys_t = v_sum + of_keys, *values_t = keys_t + transposed;
  float *weights = values_t + transposed, *changes = weights + weights_size;
  copy_in(q, queries, count, sizes.width);
  copy_in(out, results, count, sizes.width);
  copy_in(gradient, gradients, count, sizes.width);
  copy_in(k, rows_of_keys, U, sizes.width);
  copy_transposed(k, keys_t, U, sizes.width);
  copy_transposed(v, values_t, U, sizes.width);
  memset(k_sum, 0, sizeof(float) * 2 * of_keys);
  const int32_t* ids = padded(k_ids, U, ids_buffer);
  const float scale = 1.f / std::sqrt(float(sizes.width));
  for (int t = 0; t < count; t += QUERIES) {
    const int some = count - t < QUERIES ? count - t : QUERIES;
    const float *query = queries + int64_t(t) * width, *given = gradients + int64_t(t) * width;
    multiply<false>({query, width, 1}, keys_t, keys, weights, keys, some, keys, sizes.width, scale);
    multiply<false>({given, width, 1}, values_t, keys, changes, keys, some, keys, sizes.width, 1.f);
    for (int i = 0; i < some; i++) {
      Vector products = {};
      for (int c = 0; c < width; c += LANES)
        products += load(results + int64_t(t + i) * width + c) * load(given + int64_t(i) * width + c);
      softmax_backward(weights + int64_t(i) * keys, changes + int64_t(i) * keys, ids, q_ids ? q_ids[t + i] : 1,
                       logs[t + i], sum(products), scale, keys);
    }
    multiply<false>({changes, keys, 1}, rows_of_keys, width, q_sum + int64_t(t) * width, width, some, width, U, 1.f);
    multiply<true>({changes, 1, keys}, query, width, k_sum, width, U, width, some, 1.f);
    multiply<true>({weights, 1, keys}, given, width, v_sum, width, U, width, some, 1.f);
  }
  copy_out(q_sum, to_q, count, sizes.width);
  copy_out(k_sum, to_k, U, sizes.width);
  copy_out(v_sum, to_v, U, sizes.width);
}

// Calls work(i) for every i < count, by XLA's threads and this one.
template <class Work>
void share(ffi::ThreadPool& pool, int64_t count, Work work) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable changed;
  };
  auto progress = std::make_shared<Progress>();
  auto take = [progress, count, work] {
    for (int64_t i; (i = progress->next.fetch_add(1)) < count;) {
      work(i);
      if (progress->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(progress->mutex);
        progress->changed.notify_all();
      }
    }
  };
  for (int64_t other = 1; other < count && other < pool.num_threads(); other++) pool.Schedule([take] { take(); });
  take();  // it does not depend on a free thread
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->changed.wait(lock, [&] { return progress->done.load() == count; });
}

struct Shape {
  int64_t tasks;  // scenes times heads
  int heads;
  Sizes sizes;
};

// q [..., H, T, d] and k [..., H, U, d] with the same leading axes, as Python gives them.
Shape shape_of(const ffi::AnyBuffer& q, const ffi::AnyBuffer& k) {
  auto a = q.dimensions(), b = k.dimensions();
  const size_t n = a.size();
  int64_t tasks = 1;
  for (size_t i = 0; i + 2 < n; i++) tasks *= a[i];
  return {tasks, int(a[n - 3]), {int(a[n - 2]), int(b[n - 2]), int(a[n - 1])}};
}

// The ids of task i, or none. An array without elements says that everything sees everything.
const int32_t* ids_of(const int32_t* ids, int64_t elements, int64_t i, int heads, int length) {
  return elements ? ids + i / heads * length : nullptr;
}

template <class T>
ffi::Error run_forward(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v, ffi::AnyBuffer q_ids,
                       ffi::AnyBuffer k_ids, ffi::Result<ffi::AnyBuffer> out, ffi::Result<ffi::AnyBuffer> logs) {
  const Shape s = shape_of(q, k);
  const int64_t of_q = int64_t(s.sizes.queries) * s.sizes.width, of_k = int64_t(s.sizes.keys) * s.sizes.width;
  auto a = (const T*)q.untyped_data(), b = (const T*)k.untyped_data(), c = (const T*)v.untyped_data();
  auto i_q = (const int32_t*)q_ids.untyped_data(), i_k = (const int32_t*)k_ids.untyped_data();
  const int64_t masked = q_ids.element_count();
  auto o = (T*)out->untyped_data();
  auto l = (float*)logs->untyped_data();
  share(pool, s.tasks, [=](int64_t i) {
    forward<T>(a + i * of_q, b + i * of_k, c + i * of_k, ids_of(i_q, masked, i, s.heads, s.sizes.queries),
               ids_of(i_k, masked, i, s.heads, s.sizes.keys), o + i * of_q, l + i * s.sizes.queries, s.sizes);
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error run_backward(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v, ffi::AnyBuffer out,
                        ffi::AnyBuffer gradient, ffi::AnyBuffer q_ids, ffi::AnyBuffer k_ids, ffi::AnyBuffer logs,
                        ffi::Result<ffi::AnyBuffer> to_q, ffi::Result<ffi::AnyBuffer> to_k,
                        ffi::Result<ffi::AnyBuffer> to_v) {
  const Shape s = shape_of(q, k);
  const int64_t of_q = int64_t(s.sizes.queries) * s.sizes.width, of_k = int64_t(s.sizes.keys) * s.sizes.width;
  auto a = (const T*)q.untyped_data(), b = (const T*)k.untyped_data(), c = (const T*)v.untyped_data();
  auto o = (const T*)out.untyped_data(), g = (const T*)gradient.untyped_data();
  auto i_q = (const int32_t*)q_ids.untyped_data(), i_k = (const int32_t*)k_ids.untyped_data();
  const int64_t masked = q_ids.element_count();
  auto l = (const float*)logs.untyped_data();
  auto x = (T*)to_q->untyped_data(), y = (T*)to_k->untyped_data(), z = (T*)to_v->untyped_data();
  share(pool, s.tasks, [=](int64_t i) {
    backward<T>(a + i * of_q, b + i * of_k, c + i * of_k, o + i * of_q, g + i * of_q,
                ids_of(i_q, masked, i, s.heads, s.sizes.queries), ids_of(i_k, masked, i, s.heads, s.sizes.keys),
                l + i * s.sizes.queries, x + i * of_q, y + i * of_k, z + i * of_k, s.sizes);
  });
  return ffi::Error::Success();
}

ffi::Error forward_of(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v, ffi::AnyBuffer q_ids,
                      ffi::AnyBuffer k_ids, ffi::Result<ffi::AnyBuffer> out, ffi::Result<ffi::AnyBuffer> logs) {
  if (q.element_type() != ffi::F32 && q.element_type() != ffi::BF16)
    return ffi::Error::InvalidArgument("q must be float32 or bfloat16");
  auto run = q.element_type() == ffi::F32 ? run_forward<float> : run_forward<Bfloat16>;
  return run(pool, q, k, v, q_ids, k_ids, out, logs);
}

ffi::Error backward_of(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v, ffi::AnyBuffer out,
                       ffi::AnyBuffer gradient, ffi::AnyBuffer q_ids, ffi::AnyBuffer k_ids, ffi::AnyBuffer logs,
                       ffi::Result<ffi::AnyBuffer> to_q, ffi::Result<ffi::AnyBuffer> to_k,
                       ffi::Result<ffi::AnyBuffer> to_v) {
  if (q.element_type() != ffi::F32 && q.element_type() != ffi::BF16)
    return ffi::Error::InvalidArgument("q must be float32 or bfloat16");
  auto run = q.element_type() == ffi::F32 ? run_backward<float> : run_backward<Bfloat16>;
  return run(pool, q, k, v, out, gradient, q_ids, k_ids, logs, to_q, to_k, to_v);
}

}  // namespace

#define BIND ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
#define ARGUMENT .Arg<ffi::AnyBuffer>()
#define RESULT .Ret<ffi::AnyBuffer>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(cjepa_attention_forward, forward_of,
                              BIND ARGUMENT ARGUMENT ARGUMENT ARGUMENT ARGUMENT RESULT RESULT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cjepa_attention_backward, backward_of,
                              BIND ARGUMENT ARGUMENT ARGUMENT ARGUMENT ARGUMENT ARGUMENT ARGUMENT ARGUMENT
                                  RESULT RESULT RESULT);
