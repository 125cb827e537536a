"""Scaled dot-product attention among tokens of equal segment id, by the kernel that suits the device."""

import contextlib
import contextvars
import functools
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from cjepa_jax import sharding
from cjepa_jax.models import fused_cpu
from cjepa_jax.models.matmul import product
from cjepa_jax.models.visibility import BLOCK, ids, visibility
from cjepa_jax.types import Array

CHUNK = 256  # queries at a time, of `chunked`
LONG = 1024  # queries, from which `chunked` is used

_only: contextvars.ContextVar[str] = contextvars.ContextVar("only", default="")


def attention(
    q: Float[Array, "B H T d"],
    k: Float[Array, "B H U d"],
    v: Float[Array, "B H U d"],
    q_segment: Int[Array, "B T"] | Int[Array, " B"] | None = None,
    k_segment: Int[Array, "B U"] | Int[Array, " B"] | None = None,
    time: Int[Array, " T"] | None = None,
) -> Float[Array, "B H T d"]:
    """softmax(q k^T / sqrt(d)) v, softmax in float32.

    Args:
      q, k, v: [B, H, T, d], [B, H, U, d], [B, H, U, d]. Heads come first, which on XLA:CPU is twice as fast as heads
        last.
      q_segment, k_segment: int32 [B, T], [B, U]. A query sees the keys of its own id. Id 0 sees nothing and is seen by
        nothing. None: everything sees everything. Or int32 [B] for both: that many tokens at the start see one another.
      time: int32 [T], and then U = T. A query sees no key of a later time. The kernels for TPU and CPU have no such
        mask, so plain products take their place.
    Returns: [B, H, T, d]. A query that sees no key gets zeros (a plain softmax would give the mean of all values).
    Raises: ValueError for segments of one side only.
    """
    if (q_segment is None) != (k_segment is None):
        raise ValueError("q_segment and k_segment: both must be given, or neither")
    sizes = q.shape[2], k.shape[2], q.shape[3]
    kernel = _only.get() or choose(jax.default_backend(), compute_capability(), q.dtype, *sizes)
    if time is not None and kernel in ("flash", "fused"):
        kernel = _plain(sizes[0])
    limits = {} if time is None else {"time": time}
    if kernel != "cudnn" or time is not None:
        q_segment, k_segment = ids(q_segment, sizes[0]), ids(k_segment, sizes[1])
    return KERNELS[kernel](q, k, v, q_segment, k_segment, **limits)


@contextlib.contextmanager
def only(kernel: str) -> Iterator[None]:
    """Code traced inside uses this kernel, a name of KERNELS, on any device."""
    token = _only.set(kernel)
    try:
        yield
    finally:
        _only.reset(token)


def choose(backend: str, capability: str, dtype: DTypeLike, queries: int, keys: int, width: int) -> str:
    """The name of the kernel for this device and sizes T, U and d, one of KERNELS.

    Args:
      backend: "cpu", "gpu" or "tpu". capability: of an NVIDIA GPU, as "9.0"; "fused" on a CPU for which the kernel is
        built; any other text for other devices.
    cuDNN has no float32. It needs an Ampere GPU or later, d a multiple of 8 up to 128, and even lengths under a mask
    with a gradient. The TPU kernel would pad sequences shorter than a block to one block.
    """
    nvidia = re.fullmatch(r"(\d+)\.\d+", capability)
    if backend == "gpu" and nvidia and int(nvidia[1]) >= 8:
        narrow = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
        if narrow and width % 8 == 0 and width <= 128 and queries % 2 == keys % 2 == 0:
            return "cudnn"
    if backend == "cpu" and capability == "fused" and jnp.dtype(dtype).name in fused_cpu.TYPES:
        if all(isinstance(size, int) and size for size in (queries, keys, width)):  # jax.export may leave sizes open
            return "fused"
    if backend == "tpu" and min(queries, keys) >= BLOCK and (width <= BLOCK or width % BLOCK == 0):
        return "flash"
    return _plain(queries)


def _plain(queries: int) -> str:
    # A length that jax.export leaves open cannot be compared.
    return "chunked" if isinstance(queries, int) and queries >= LONG else "einsum"


def compute_capability() -> str:
    """What `choose` is told of the first device."""
    if fused_cpu.ready():
        return "fused"
    return str(getattr(jax.local_devices()[0], "compute_capability", ""))


def einsum(q, k, v, q_segment=None, k_segment=None, time=None) -> Array:
    """`attention` in plain products: the reference of all other kernels, and the fastest for few tokens on a CPU."""
    limited = q_segment is not None or time is not None
    return _weighted(q, k, v, visibility(q_segment, k_segment, time)[:, None] if limited else None)


def chunked(q, k, v, q_segment=None, k_segment=None, time=None, size: int = CHUNK) -> Array:
    """`attention` for about `size` queries at a time, whose weights are computed again in the backward pass.

    Its memory therefore grows with the number of tokens, not with its square. Each chunk sees all keys, so the softmax
    is as in `einsum`. The gradients of k and v are summed over chunks in float32.
    """
    limited = q_segment is not None or time is not None
    chunks = -(-q.shape[2] // size)
    keys, values = k.astype(jnp.float32), v.astype(jnp.float32)  # so that gradients are summed in it

    @functools.partial(jax.checkpoint, prevent_cse=False)  # a scan needs no barrier
    def some(keys, values, queries, segment, times):
        visible = visibility(segment, k_segment, times, time)[:, None] if limited else None
        return _weighted(queries, keys.astype(k.dtype), values.astype(v.dtype), visible)

    parts = _split(q, 2, chunks), _split(q_segment, 1, chunks), _split(time, 0, chunks)
    _, out = jax.lax.scan(lambda carry, part: (carry, some(keys, values, *part)), None, parts)
    out = jnp.moveaxis(out, 0, 2)  # [B, H, chunks, T / chunks, d]
    return out.reshape(*out.shape[:2], -1, out.shape[-1])[:, :, : q.shape[2]]


def _split(x: Array | None, axis: int, chunks: int) -> Array | None:
    """The axis in equal chunks, which become the first axis. The last one is filled up with zeros."""
    if x is None:
        return None
    each = -(-x.shape[axis] // chunks)
    filled = jnp.pad(x, [(0, each * chunks - x.shape[axis]) if i == axis else (0, 0) for i in range(x.ndim)])
    return jnp.moveaxis(filled.reshape(*x.shape[:axis], chunks, each, *x.shape[axis + 1 :]), axis, 0)


def _weighted(q, k, v, visible=None) -> Array:
    """The values' weighted sums. `visible`: bool [B or 1, 1, T, U] or None for all."""
    logits = product("bhtd,bhud->bhtu", q, k, q.dtype) * q.shape[-1] ** -0.5
    if visible is None:
        weights = jax.nn.softmax(logits)
    else:
        weights = jax.nn.softmax(jnp.where(visible, logits, jnp.finfo(jnp.float32).min))
        weights = jnp.where(visible.any(-1, keepdims=True), weights, 0.0)
    return product("bhtu,bhud->bhtd", weights, v, v.dtype).astype(v.dtype)


def cudnn(q, k, v, q_segment=None, k_segment=None, time=None, implementation: str = "cudnn") -> Array:
    """`attention` by cuDNN's flash attention. JAX divides it among devices like q, and the mask must be divided alike.

    Its sums are float32. Its weights are rounded to the operands' type before the product with the values, as above.
    With lengths for segments it skips the padding. It then needs no mask, of which JAX would compute a gradient.
    """
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))  # cuDNN's layout, [B, T, H, d]
    if q_segment is not None and q_segment.ndim == 1:
        return _of_lengths(q, k, v, (q_segment, k_segment), implementation).transpose(0, 2, 1, 3)
    limited = q_segment is not None or time is not None
    mask = visibility(q_segment, k_segment, time)[:, None] if limited else None
    scenes = None if q_segment is None else sharding.SCENES  # times are of all scenes
    mask = None if mask is None else sharding.hold(mask, scenes, None, None, None)
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation).transpose(0, 2, 1, 3)
    # A row without keys would come out as the mean of the values. Through the choice, no gradient reaches it either.
    return out if mask is None else jnp.where(mask.any(-1)[..., None], out, 0)


def _of_lengths(q, k, v, lengths, implementation):
    """`cudnn` of q, k and v [B, T, H, d] for lengths [B].

    A row of length 0 is computed with length 1, and its result is not used. Padding is set to zero first. So what
    the kernel leaves in the gradients of padding is discarded, where cuDNN does not promise zeros.
    """
    q_length, k_length = (sharding.hold(x, sharding.SCENES) for x in lengths)
    real, known = ((jnp.arange(x.shape[1]) < n[:, None]) for x, n in ((q, q_length), (k, k_length)))
    q, k, v = (jnp.where(valid[..., None, None], x, 0) for x, valid in ((q, real), (k, known), (v, known)))
    given = {"query_seq_lengths": jnp.maximum(q_length, 1), "key_value_seq_lengths": jnp.maximum(k_length, 1)}
    out = jax.nn.dot_product_attention(q, k, v, **given, implementation=implementation)
    return jnp.where((real & (k_length > 0)[:, None])[..., None, None], out, 0)


def flash(q, k, v, q_segment=None, k_segment=None) -> Array:
    """`attention` by the Pallas kernel for TPU, lengths padded to whole blocks."""
    from cjepa_jax.models import flash_tpu  # Pallas takes a while to import, and only TPUs need it

    return flash_tpu.flash(q, k, v, q_segment, k_segment)


KERNELS = {"einsum": einsum, "chunked": chunked, "fused": fused_cpu.fused, "cudnn": cudnn, "flash": flash}
