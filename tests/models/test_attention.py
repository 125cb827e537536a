"""Segment attention against loops in float64, and rows that see nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.models.attention import attention

B, H, T, U, D = 2, 3, 5, 6, 4


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
    gradients = jax.grad(lambda *qkv: (attention(*qkv, Q_SEGMENT, K_SEGMENT) ** 2).sum(), (0, 1, 2))(*inputs())
    assert all(np.isfinite(g).all() for g in gradients)
    assert (gradients[0][0, :, 3:] == 0).all() and (gradients[1][0, :, 3] == 0).all()
    gradients = jax.grad(lambda *qkv: attention(*qkv, 0 * Q_SEGMENT, 0 * K_SEGMENT).sum(), (0, 1, 2))(*inputs())
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
