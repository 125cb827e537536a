"""Segment attention against loops in float64, rows that see nothing, and the kernels against one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cjepa_jax import sharding
from cjepa_jax.models.attention import attention, choose, chunked, cudnn, einsum, flash

B, H, T, U, D = 2, 3, 5, 6, 4
COMMUNICATION = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    shapes = (B, H, T, D), (B, H, U, D), (B, H, U, D)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def naive(q, k, v, q_segment=None, k_segment=None):
    out = np.zeros((B, H, T, D))
    for b, h, t in np.ndindex(B, H, T):
        if q_segment is None:
            seen = list(range(U))
        else:
            seen = [u for u in range(U) if q_segment[b, t] == k_segment[b, u] and q_segment[b, t] != 0]
        if seen:
            weights = np.exp([q[b, h, t].astype(np.float64) @ k[b, h, u] / np.sqrt(D) for u in seen])
            out[b, h, t] = (weights / weights.sum()) @ v[b, h, seen].astype(np.float64)
    return out


Q_SEGMENT = np.array([[1, 1, 2, 0, 3], [2, 2, 2, 7, 0]], np.int32)
K_SEGMENT = np.array([[1, 2, 2, 0, 1, 0], [2, 0, 1, 2, 2, 2]], np.int32)


def test_everything_sees_everything_without_segments():
    np.testing.assert_allclose(attention(*inputs()), naive(*inputs()), atol=1e-6)


def test_tokens_see_their_own_segment_only():
    out = attention(*inputs(), Q_SEGMENT, K_SEGMENT)
    np.testing.assert_allclose(out, naive(*inputs(), Q_SEGMENT, K_SEGMENT), atol=1e-6)
    assert (out[0, :, 3:] == 0).all() and (out[1, :, 3:] == 0).all()  # id 0, and ids that no key has: zeros


def test_unseen_keys_change_nothing_whatever_they_hold():
    q, k, v = inputs()
    out = attention(q, k, v, Q_SEGMENT, K_SEGMENT)
    k[0, :, [3, 5]], v[0, :, [3, 5]] = 1e9, -1e9
    np.testing.assert_array_equal(attention(q, k, v, Q_SEGMENT, K_SEGMENT), out)


def test_gradients_are_finite_and_zero_where_nothing_is_seen():
    def gradients_of(total):
        return jax.device_get(jax.jit(jax.grad(total, (0, 1, 2)))(*inputs()))

    gradients = gradients_of(lambda *qkv: (attention(*qkv, Q_SEGMENT, K_SEGMENT) ** 2).sum())
    assert all(np.isfinite(g).all() for g in gradients)
    assert (gradients[0][0, :, 3:] == 0).all() and (gradients[1][0, :, 3] == 0).all()
    gradients = gradients_of(lambda *qkv: attention(*qkv, 0 * Q_SEGMENT, 0 * K_SEGMENT).sum())
    assert all((g == 0).all() for g in gradients)


def test_large_logits_do_not_overflow():
    q, k, v = inputs()
    assert np.isfinite(attention(1e4 * q, 1e4 * k, v, Q_SEGMENT, K_SEGMENT)).all()


def test_bfloat16_stays_close_with_its_softmax_in_float32():
    low = [jnp.asarray(x, jnp.bfloat16) for x in inputs()]
    out = attention(*low, Q_SEGMENT, K_SEGMENT)
    assert out.dtype == jnp.bfloat16
    expected = naive(*(np.asarray(x, np.float32) for x in low), Q_SEGMENT, K_SEGMENT)
    assert np.asarray(out, np.float32) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("device, dtype, sizes, kernel", [
    (("cpu", ""), "float32", (196, 196, 64), "einsum"),
    (("cpu", ""), "bfloat16", (196, 196, 64), "einsum"),
    (("cpu", ""), "bfloat16", (1568, 1568, 64), "chunked"),
    (("cpu", ""), "float32", (1024, 64, 64), "chunked"),
    (("cpu", ""), "float32", (196, 1568, 64), "einsum"),
    (("cpu", "fused"), "float32", (196, 196, 64), "fused"),
    (("cpu", "fused"), "bfloat16", (1568, 7, 12), "fused"),
    (("cpu", "fused"), "float16", (196, 196, 64), "einsum"),
    (("cpu", "fused"), "float32", (196, 0, 64), "einsum"),
    (("gpu", "9.0"), "float32", (1568, 1568, 64), "chunked"),
    (("gpu", "9.0"), "bfloat16", (196, 196, 64), "cudnn"),
    (("gpu", "8.0"), "float16", (120, 196, 80), "cudnn"),
    (("gpu", "12.0"), "bfloat16", (196, 196, 64), "cudnn"),
    (("gpu", "9.0"), "float32", (196, 196, 64), "einsum"),
    (("gpu", "7.5"), "bfloat16", (196, 196, 64), "einsum"),
    (("gpu", "gfx942"), "bfloat16", (196, 196, 64), "einsum"),
    (("gpu", ""), "bfloat16", (196, 196, 64), "einsum"),
    (("gpu", "9.0"), "bfloat16", (49, 49, 64), "einsum"),
    (("gpu", "9.0"), "bfloat16", (196, 196, 12), "einsum"),
    (("gpu", "9.0"), "bfloat16", (196, 196, 136), "einsum"),
    (("tpu", ""), "bfloat16", (196, 136, 64), "flash"),
    (("tpu", ""), "float32", (196, 196, 64), "flash"),
    (("tpu", ""), "bfloat16", (196, 64, 64), "einsum"),
    (("tpu", ""), "bfloat16", (196, 196, 192), "einsum"),
    (("tpu", ""), "bfloat16", (196, 196, 256), "flash"),
])  # fmt: skip
def test_the_kernel_suits_the_device(device, dtype, sizes, kernel):
    assert choose(*device, dtype, *sizes) == kernel


def packed():
    """q, k, v with lengths that no block divides, and segments that leave some rows without a key."""
    rng = np.random.default_rng(1)
    shapes = (4, 2, 130, 16), (4, 2, 136, 16), (4, 2, 136, 16)
    segments = rng.integers(0, 4, (4, 130)), rng.integers(0, 3, (4, 136))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes], [s.astype(np.int32) for s in segments]


def with_gradients(kernel, segments, q, k, v):
    out, backward = jax.vjp(lambda *qkv: kernel(*qkv, *segments), q, k, v)
    return out, *backward(jnp.cos(out))


def assert_like_einsum(kernel, atol, dtype="float32", segmented=True, place=lambda x: x):
    qkv, segments = packed()
    segments, qkv = segments if segmented else (), [x.astype(dtype) for x in qkv]
    wanted = jax.jit(functools.partial(with_gradients, einsum, segments))(*qkv)
    have = jax.jit(functools.partial(with_gradients, kernel, segments))(*map(place, qkv))
    for ours, theirs in zip(have, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), atol=atol)
    if segmented:
        unseen = np.asarray(segments[0] % 3 == 0)  # 0, and 3, which no key has
        assert unseen.any() and (np.asarray(have[0]).transpose(0, 2, 1, 3)[unseen] == 0).all()
        assert (np.asarray(have[1]).transpose(0, 2, 1, 3)[unseen] == 0).all()


@pytest.mark.parametrize("dtype, segmented, size, atol", [
    ("float32", True, 60, 2e-6),  # 130 queries: chunks of 44, 44 and 42
    ("float32", False, 65, 2e-6),
    ("bfloat16", True, 60, 0.05),
])  # fmt: skip
def test_chunks_of_queries_are_the_same_function(dtype, segmented, size, atol):
    assert_like_einsum(functools.partial(chunked, size=size), atol, dtype, segmented)


@pytest.mark.parametrize("segmented", [True, False])
def test_chunks_of_queries_see_no_later_time(segmented):
    (q, k, v), (segment, _) = packed()
    keys, time = k[:, :, :130], np.arange(130) // 7
    segments = (segment, segment) if segmented else (None, None)
    kernels = functools.partial(chunked, size=60), einsum
    have, wanted = (
        jax.jit(functools.partial(with_gradients, kernel, (*segments, time)))(q, keys, v[:, :, :130])
        for kernel in kernels
    )
    for ours, theirs in zip(have, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=4e-6)


def test_segments_of_one_side_are_refused():
    q, k, v = inputs()
    with pytest.raises(ValueError, match="both must be given, or neither"):
        attention(q, k, v, Q_SEGMENT)
    with pytest.raises(ValueError, match="both must be given, or neither"):
        attention(q, k, v, None, K_SEGMENT)


def test_memory_of_chunks_grows_with_the_tokens_not_with_their_square():
    def scratch(kernel, tokens):
        shape = jax.ShapeDtypeStruct((1, 1, tokens, 16), jnp.float32)
        gradient = jax.grad(lambda *qkv: kernel(*qkv).sum(), (0, 1, 2))
        return jax.jit(gradient).lower(shape, shape, shape).compile().memory_analysis().temp_size_in_bytes

    assert scratch(chunked, 4096) < 2.1 * scratch(chunked, 2048)
    assert scratch(einsum, 2048) > 3 * scratch(chunked, 2048)


@pytest.mark.parametrize("segmented", [True, False])
def test_what_cudnn_is_asked_for_is_the_same_function(segmented):
    """Its arguments, layout and treatment of empty rows, computed by XLA: cuDNN itself needs a GPU."""
    assert_like_einsum(functools.partial(cudnn, implementation="xla"), 2e-6, segmented=segmented)


LENGTHS = np.array([130, 1, 0, 77], np.int32)  # of the four scenes of `packed`


def of_lengths(kernel):
    """Output and gradients of attention among the first tokens of each scene."""
    q, k, v = packed()[0]
    segment = (np.arange(130) < LENGTHS[:, None]).astype(np.int32)
    given = {"lengths": (LENGTHS, LENGTHS), "ids": (segment, segment)}
    parts = {name: jax.jit(functools.partial(with_gradients, kernel, own)) for name, own in given.items()}
    return {name: jax.device_get(part(q, k[:, :, :130], v[:, :, :130])) for name, part in parts.items()}, segment


def test_what_cudnn_is_asked_for_with_lengths_is_the_same_function():
    (wanted, segment), (found, _) = of_lengths(attention), of_lengths(functools.partial(cudnn, implementation="xla"))
    for ids, lengths in zip(wanted["ids"], wanted["lengths"], strict=True):
        np.testing.assert_array_equal(lengths, ids)  # other kernels are given ids
    for ours, theirs in zip(found["lengths"], wanted["ids"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
        assert (ours.transpose(0, 2, 1, 3)[segment == 0] == 0).all()


def test_what_cudnn_leaves_at_padding_reaches_nobody(monkeypatch):
    """NVIDIA promises no zeros there. Stood in for by XLA's attention, with NaN in the padding of everything."""
    plain = jax.nn.dot_product_attention

    def leaves_nan(q, k, v, query_seq_lengths, key_value_seq_lengths, implementation):
        lengths = {"query_seq_lengths": query_seq_lengths, "key_value_seq_lengths": key_value_seq_lengths}

        def spoilt(x, own):
            return jnp.where((jnp.arange(x.shape[1]) >= lengths[own][:, None])[..., None, None], jnp.nan, x)

        @jax.custom_vjp
        def run(*qkv):
            return spoilt(plain(*qkv, **lengths), "query_seq_lengths")

        def backward(qkv, gradient):
            _, pull_back = jax.vjp(lambda *qkv: plain(*qkv, **lengths), *qkv)
            return tuple(map(spoilt, pull_back(gradient), ("query_seq_lengths", *2 * ["key_value_seq_lengths"])))

        run.defvjp(lambda *qkv: (run(*qkv), qkv), backward)
        return run(q, k, v)

    q, k, v = packed()[0]
    operands = (LENGTHS, LENGTHS), q, k[:, :, :130], v[:, :, :130]
    monkeypatch.setattr(jax.nn, "dot_product_attention", leaves_nan)
    for ours, theirs in zip(with_gradients(cudnn, *operands), with_gradients(attention, *operands), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(2, 2, 2), (8, 1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["ids", "lengths"])
def test_what_cudnn_is_asked_for_divides_itself_without_communication(axes, kind):
    """By scenes and heads, with the mask or the lengths by scenes."""
    mesh = jax.make_mesh(axes, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
    place = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec(sharding.SCENES, "tensor")))
    kernel = sharding.on_mesh(mesh, functools.partial(cudnn, implementation="xla"))
    qkv, segments = packed()
    if axes == (8, 1, 1):
        qkv, segments = ([np.tile(x, (2,) + (1,) * (x.ndim - 1)) for x in each] for each in (qkv, segments))
    elif kind == "ids":
        assert_like_einsum(kernel, 2e-6, place=place)
    segments = [(x > 0).sum(1, dtype=np.int32) for x in segments] if kind == "lengths" else segments
    compiled = jax.jit(functools.partial(with_gradients, kernel, segments)).lower(*map(place, qkv)).compile().as_text()
    assert not any(name in compiled for name in COMMUNICATION)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tpu_kernel_lowers_for_a_tpu(dtype):
    qkv, segments = packed()
    traced = jax.jit(functools.partial(with_gradients, flash, segments))
    lowered = export.export(traced, platforms=["tpu"])(*(x.astype(dtype) for x in qkv))
    assert lowered.mlir_module().count("tpu_custom_call") == 4  # forwards, twice, and two backwards


@pytest.fixture
def interpreted():
    """TPU kernels computed by XLA, in any thread that traces them."""
    pltpu.set_tpu_interpret_mode(True)
    yield
    pltpu.set_tpu_interpret_mode(None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, segmented, atol", [
    ("float32", True, 2e-6),
    ("float32", False, 2e-6),
    ("bfloat16", True, 0.05),
])  # fmt: skip
def test_the_tpu_kernel_is_the_same_function(interpreted, dtype, segmented, atol):
    assert_like_einsum(flash, atol, dtype, segmented)


@pytest.mark.slow
def test_the_tpu_kernel_divides_itself_without_communication(interpreted):
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    place = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("data", "tensor")))
    assert_like_einsum(flash, 2e-6, place=place)
    qkv, segments = packed()
    compiled = jax.jit(functools.partial(with_gradients, flash, segments)).lower(*map(place, qkv)).compile().as_text()
    assert not any(name in compiled for name in COMMUNICATION)
