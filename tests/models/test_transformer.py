"""The stack of blocks: under a scan or one by one, it is the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.models import attention
from cjepa_jax.models.transformer import Stack

X = jax.random.normal(jax.random.key(0), (2, 6, 8))
FRAMES = jnp.array([0, 0, 1, 1, 2, 2])


@functools.cache
def plain():
    """A stack of two blocks without options, its parameters and its output."""
    stack = Stack(depth=2, heads=2)
    params = jax.jit(stack.init)(jax.random.key(1), X)["params"]
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), params)
    return params, np.asarray(jax.jit(stack.apply)({"params": params}, X))


@pytest.mark.parametrize("condition, parts", [("film", 4), ("adaln", 6)])
@pytest.mark.parametrize("tokens", [1, 6])
def test_a_fresh_condition_changes_no_bit_and_a_learned_one_follows_its_formula(condition, parts, tokens):
    params, wanted = plain()
    stack, told = Stack(depth=2, heads=2, condition=condition), jax.random.normal(jax.random.key(3), (2, tokens, 5))
    fresh = jax.jit(stack.init)(jax.random.key(1), X, condition=told)["params"]
    own = {name: fresh["blocks"][name] for name in ("modulation_kernel", "modulation_bias")}
    assert own["modulation_kernel"].shape == (2, 5, parts * 8) and not any(leaf.any() for leaf in own.values())
    jax.tree.map(lambda one, other: np.testing.assert_equal(one.shape, other.shape), params["norm"], fresh["norm"])
    apply = jax.jit(stack.apply)
    both = params | {"blocks": params["blocks"] | own}
    np.testing.assert_array_equal(apply({"params": both}, X, condition=told), wanted)
    # A bias alone is a condition that says the same to all: norm(x) (1 + scale) + shift is the norm's own scale, bias.
    bias = np.zeros((2, parts, 8), np.float32)
    bias[:, 0], bias[:, 1] = 0.5, 0.25  # shift and scale before the attention
    both["blocks"] = both["blocks"] | {"modulation_bias": bias.reshape(2, -1)}
    norm = params["blocks"]["norm1"]
    same = {"scale": norm["scale"] * 1.25, "bias": norm["bias"] * 1.25 + 0.5}
    plainly = params | {"blocks": params["blocks"] | {"norm1": same}}
    out = apply({"params": both}, X, condition=told)
    np.testing.assert_allclose(out, jax.jit(Stack(depth=2, heads=2).apply)({"params": plainly}, X), atol=1e-5)
    if condition == "adaln":  # gates of -1: nothing is added to x
        bias[:, 0], bias[:, 1], bias[:, 2], bias[:, 5] = 0, 0, -1, -1
        both["blocks"] = both["blocks"] | {"modulation_bias": bias.reshape(2, -1)}
        normed = (X - X.mean(-1, keepdims=True)) / jnp.sqrt(X.var(-1, keepdims=True) + 1e-6)
        ours = normed * params["norm"]["scale"] + params["norm"]["bias"]
        np.testing.assert_allclose(apply({"params": both}, X, condition=told), ours, atol=1e-5)


def test_what_a_condition_says_to_a_token_reaches_that_token():
    params, _ = plain()
    stack, told = Stack(depth=1, heads=2, condition="film", causal="token"), jnp.ones((2, 6, 5))
    fresh = jax.jit(stack.init)(jax.random.key(1), X, condition=told)["params"]
    fresh["blocks"]["modulation_kernel"] += 0.1
    apply = jax.jit(lambda c: stack.apply({"params": fresh}, X, condition=c))
    change = np.asarray(jnp.abs(apply(told) - apply(told.at[:, 3].set(2.0))).max((0, 2)))
    assert not change[:3].any() and change[3] > 1e-4


@pytest.mark.parametrize("causal, unseen", [("none", []), ("token", [0, 1, 2]), ("frame", [0, 1])])
def test_what_comes_later_changes_no_bit_of_what_was_before(causal, unseen):
    params, wanted = plain()
    stack, time = Stack(depth=2, heads=2, causal=causal), {"time": FRAMES} if causal == "frame" else {}
    apply = jax.jit(lambda x: stack.apply({"params": params}, x, **time))
    same = np.asarray(apply(X) == apply(X.at[:, 3].multiply(-2.0))).all((0, 2))
    np.testing.assert_array_equal(np.flatnonzero(same), unseen)
    if causal == "none":
        np.testing.assert_array_equal(apply(X), wanted)


def test_with_segments_a_token_sees_its_own_segment_up_to_its_time():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 1, 6, 4), np.float32)
    segment = jnp.array([[1, 2, 1, 2, 1, 0]])
    out = attention.attention(q, k, v, segment, segment, jnp.arange(6))
    for i, seen in enumerate([[0], [1], [0, 2], [1, 3], [0, 2, 4]]):
        weight = np.exp(k[0, 0, seen] @ q[0, 0, i] / 2)
        np.testing.assert_allclose(out[0, 0, i], weight @ v[0, 0, seen] / weight.sum(), atol=1e-5)
    assert not out[0, 0, 5].any()
    with attention.only("flash"):  # it has no such mask
        np.testing.assert_array_equal(attention.attention(q, k, v, segment, segment, jnp.arange(6)), out)


def test_levels_are_the_outputs_of_blocks_side_by_side_each_with_its_norm():
    params, wanted = plain()
    stack = Stack(depth=2, heads=2, levels=(0, 1))
    norms = {"norm0": params["norm"], "norm1": params["norm"]}
    out = jax.jit(stack.apply)({"params": {"blocks": params["blocks"]} | norms}, X)
    assert out.shape == (2, 6, 16)
    np.testing.assert_allclose(out[..., 8:], wanted, atol=1e-6)
    first = jax.tree.map(lambda x: x[:1], params["blocks"])
    one = jax.jit(Stack(depth=1, heads=2).apply)({"params": {"blocks": first, "norm": params["norm"]}}, X)
    np.testing.assert_allclose(out[..., :8], one, atol=1e-6)


@pytest.mark.parametrize(
    "options, given, text",
    [
        ({"condition": "gate"}, {}, "condition = 'gate': must be one of none, adaln, film"),
        ({"causal": "time"}, {}, "causal = 'time': must be one of none, frame, token"),
        ({"levels": (2,)}, {}, r"levels = \(2,\): must be numbers of blocks, 0 to 1"),
        ({"condition": "film"}, {}, "condition = 'film': a condition must be given"),
        ({}, {"condition": X}, "condition = 'none': a condition must be given with adaln and film only"),
        ({"causal": "frame"}, {}, "causal = 'frame': the tokens' times must be given"),
        ({"causal": "token"}, {"time": FRAMES}, "causal = 'token': the tokens' times"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, given, text):
    with pytest.raises(ConfigError, match=f"^{text}"):
        jax.eval_shape(lambda x: Stack(depth=2, heads=2, **options).init(jax.random.key(0), x, **given), X)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_blocks_compiled_one_by_one_give_what_the_scan_gives(monkeypatch, dtype, tolerance):
    stack = Stack(depth=3, heads=2, dtype=jnp.dtype(dtype))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    params = jax.jit(stack.init)(jax.random.key(1), x)

    def gradient():
        """(its program, its values). A new function each time, which JAX has not traced before."""
        traced = jax.jit(jax.grad(lambda params: jnp.square(stack.apply(params, x) - 1).mean())).trace(params)
        return str(traced.jaxpr), traced.lower().compile()(params)

    scanned, wanted = gradient()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    unrolled, ours = gradient()
    assert "unroll=3" in unrolled and "unroll=3" not in scanned
    most = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    for one, scan in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, scan, atol=tolerance * most)
