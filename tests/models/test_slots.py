"""Slot attention and its decoder by independent code, and what makes their masks a segmentation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.models import slots
from cjepa_jax.positions import sincos

B, K, N, D, S, GRID = 2, 3, 12, 10, 8, (2, 2, 3)


def parameters(init):
    """Values for the parameters that `init` of a key makes, none of them special."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    return jax.tree.map(lambda leaf: rng.normal(0.2, 0.4, leaf.shape).astype(np.float32), shapes)


@functools.cache
def attention():
    """(jitted attention, parameters, tokens, initial slots)."""
    rng = np.random.default_rng(0)
    module = slots.SlotAttention(iterations=2, hidden=6)
    tokens, start = (rng.normal(size=shape).astype(np.float32) for shape in ((B, N, D), (B, K, S)))
    params = parameters(lambda key: module.init(key, tokens, start))
    return jax.jit(lambda params, *args: module.apply({"params": params}, *args)), params, tokens, start


@functools.cache
def whole():
    """(jitted slots and decoder, parameters, tokens): (params, key) -> (rebuilt, masks)."""
    module, tokens = slots.Slots(count=K, width=S, iterations=2, hidden=6, layers=2), attention()[2]
    params = parameters(lambda key: module.init(key, tokens, GRID, key))
    return jax.jit(lambda params, key: module.apply({"params": params}, tokens, GRID, key)), params, tokens


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def gru(p, h, x):
    """Cho et al. with the reset gate behind the product, as in PyTorch and flax."""
    r, z = (1 / (1 + np.exp(-dense(p[f"i{gate}"], x) - dense(p[f"h{gate}"], h))) for gate in "rz")
    n = np.tanh(dense(p["in"], x) + r * dense(p["hn"], h))
    return (1 - z) * n + z * h


def algorithm_1(p, tokens, state, iterations):
    """The paper's pseudo-code, a scene at a time."""
    tokens = norm(p["norm_tokens"], tokens)
    for _ in range(iterations):
        previous = state
        query = dense(p["q"], norm(p["norm_slots"], state))
        weight = softmax(dense(p["k"], tokens) @ query.T / np.sqrt(S), axis=1)  # [N, K]
        share = (weight + 1e-8) / (weight + 1e-8).sum(0)
        state = gru(p["gru"], previous, share.T @ dense(p["v"], tokens))
        state = state + dense(p["Dense_1"], np.maximum(dense(p["Dense_0"], norm(p["norm_mlp"], state)), 0))
    return state, weight.T


def test_slot_attention_is_algorithm_1():
    attend, params, tokens, start = attention()
    found, weight = attend(params, tokens, start)
    for b in range(B):
        expected, shares = algorithm_1(params, tokens[b], start[b], 2)
        np.testing.assert_allclose(found[b], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(weight[b], shares, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - start[-1]).max() > 0.1 and np.ptp(shares) > 0.1


def test_slots_are_exchangeable_and_tokens_a_set():
    attend, params, tokens, start = attention()
    found, weight = attend(params, tokens, start)
    slot, token = np.array([2, 0, 1]), np.random.default_rng(2).permutation(N)
    other, moved = attend(params, tokens[:, token], start[:, slot])
    np.testing.assert_allclose(other, np.asarray(found)[:, slot], atol=1e-5)
    np.testing.assert_allclose(moved, np.asarray(weight)[:, slot][:, :, token], atol=1e-5)


def test_the_decoder_mixes_what_each_slot_says_of_each_place():
    apply, params, tokens = whole()
    key = jax.random.key(3)
    rebuilt, masks = apply(params, key)
    noise = np.asarray(jax.random.normal(key, (B, K, S)))
    place = dense(params["position"], sincos(GRID, S))
    for b in range(B):
        state, _ = algorithm_1(params["attention"], tokens[b], params["mean"] + np.exp(params["log_std"]) * noise[b], 2)
        x = state[:, None] + place
        for layer in range(2):
            x = np.maximum(dense(params[f"Dense_{layer}"], x), 0)
        x = dense(params["Dense_2"], x)
        weight = softmax(x[..., -1], axis=0)
        np.testing.assert_allclose(masks[b], weight, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(rebuilt[b], (weight[..., None] * x[..., :-1]).sum(0), rtol=1e-3, atol=1e-4)


def test_masks_share_every_token_out_and_patches_give_it_away():
    apply, params, _ = whole()
    masks = apply(params, jax.random.key(0))[1]
    np.testing.assert_allclose(masks.sum(1), 1, rtol=1e-6)
    assert (masks > 0).all() and np.ptp(masks, axis=2).min() > 0
    patches = np.asarray(slots.hard(masks))
    assert patches.dtype == bool and (patches.sum(1) == 1).all()
    np.testing.assert_array_equal(patches.argmax(1), np.asarray(masks).argmax(1))
    equal = slots.hard(jnp.full((1, K, 1), 1 / K))
    assert np.asarray(equal)[0, :, 0].tolist() == [True, False, False]


def test_only_the_key_says_which_slots_there_are():
    apply, params, _ = whole()
    one, same, other = (np.asarray(apply(params, jax.random.key(k))[1]) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
