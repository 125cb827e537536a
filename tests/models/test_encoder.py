"""The encoder against a float64 NumPy Transformer, and: padding, packing and layout never change a scene's tokens."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from cjepa_jax.configuration.sizes import SIZES, parse
from cjepa_jax.data.batching import lay_out
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import attention
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.tokenizers import normalise
from cjepa_jax.models.transformer import Stack
from cjepa_jax.positions import sincos
from cjepa_jax.types import Batch, Rows, batch_of

B, DEPTH = 4, 2
NAMES, ROW = [field.name for field in dataclasses.fields(Batch) if field.name != "second_rows"], ("index", "segment")
VIDEOS = {"image": (B, 1, 32, 32, 3), "video": (B, 4, 16, 32, 3)}


def make(**options):
    return Encoder(**{"variant": "Mu/8", "depth": DEPTH} | options)


class Lines(nn.Module):
    """A tokenizer of one-channel pictures: a token for each row, whose code is a ramp as steep as its number."""

    width: int
    dtype: str
    scale: float = 1.0

    @nn.compact
    def __call__(self, signal):
        codes = jnp.arange(float(signal.shape[1]))[None, :, None] * jnp.linspace(-1, 1, self.width)
        return self.scale * nn.Dense(self.width, name="projection")(signal[..., 0]), codes

    def grid(self, signal):
        return 1, signal.shape[1], 1


def test_another_tokenizer_gives_the_tokens_their_codes_and_the_grid():
    module = make(tokenizer=dict(type=f"{__name__}:Lines", scale=2.0))
    signal = np.random.default_rng(0).standard_normal((B, 6, 5, 1)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(0), signal)["params"]
    assert module.grid(signal) == (1, 6, 1) and set(params) == {"tokenizer", "stack"}
    found = jax.jit(module.apply)({"params": params}, signal)
    projection = params["tokenizer"]["projection"]
    codes = np.arange(6.0)[:, None] * np.linspace(-1, 1, module.width)
    tokens = 2 * (signal[..., 0] @ projection["kernel"] + projection["bias"]) + codes
    for b in range(B):
        np.testing.assert_allclose(found[b], reference(params, np.asarray(tokens[b], np.float64)), atol=2e-4)
    with pytest.raises(ConfigError, match=r"^objective.encoder.tokenizer.scales: .*Lines has no such parameter"):
        make(tokenizer=dict(type=f"{__name__}:Lines", scales=2.0)).grid(signal)


def test_a_causal_encoder_sees_no_later_frame():
    video, params, _ = setup("video")
    apply = jax.jit(lambda video: make(causal="frame", tubelet=2).apply({"params": params}, video))
    changed = video.copy()
    changed[:, 2:] = 255 - changed[:, 2:]
    same = np.asarray(apply(video) == apply(changed)).all((0, 2))
    np.testing.assert_array_equal(same, [True] * 8 + [False] * 8)
    rows = Rows(*lay_out(np.ones((B, 16), bool), 1, (B, 16)))
    with pytest.raises(ConfigError, match=r"^objective.encoder.causal = 'frame': must be none with rows"):
        jax.eval_shape(lambda v: make(causal="frame").apply({"params": params}, v, rows), video)


@functools.cache
def setup(kind):
    """(pixels, parameters with nothing left at its initial zero or one, kept tokens)."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, VIDEOS[kind], np.uint8)
    params = jax.jit(make().init)(jax.random.key(0), video)["params"]
    leaves, tree = jax.tree.flatten(params)
    params = tree.unflatten([leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
    keep = rng.random((B, 16)) < 0.6
    keep[0] = True
    return video, params, keep


@functools.cache
def apply(**options):
    module = make(**options)
    return jax.jit(lambda params, video, rows=None, keep=None: module.apply({"params": params}, video, rows, keep))


def reference(params, x, heads=SIZES["Mu"][2], epsilon=1e-6, turn=lambda x: x):
    """A pre-norm Vision Transformer on tokens x [T, D], written out in float64; `turn` [T, d] for queries and keys."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["stack"])
    width = x.shape[1]

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    for layer in range(DEPTH):
        p = jax.tree.map(lambda leaf: leaf[layer], params["blocks"])  # noqa: B023
        q, k, v = np.split(dense(norm(x, p["norm1"]), p["attention"]["qkv"]), 3, axis=-1)
        out, size = np.zeros_like(x), width // heads
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            weights = np.exp(turn(q[:, part]) @ turn(k[:, part]).T / np.sqrt(size))
            out[:, part] = weights / weights.sum(-1, keepdims=True) @ v[:, part]
        x = x + dense(out, p["attention"]["out"])
        hidden = dense(norm(x, p["norm2"]), p["mlp"]["up"])
        x = x + dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, p["mlp"]["down"])  # exact GELU
    return norm(x, params["norm"])


def tokens(params, video):
    """Patch projection plus position, before any token is dropped: [B, N, D] float64."""
    frames = 1 if video.shape[1] == 1 else 2
    x = np.asarray(normalise(video), np.float64)
    (b, t, h, w, c), p = x.shape, 8
    x = x.reshape(b, t // frames, frames, h // p, p, w // p, p, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    projection = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["tokenizer"]["projection"])
    grid = x.shape[1:4]
    return x.reshape(b, np.prod(grid), -1) @ projection["kernel"] + projection["bias"] + sincos(grid, 96)


@pytest.mark.parametrize("kind", VIDEOS)
def test_whole_scenes_match_float64(kind):
    video, params, _ = setup(kind)
    out = apply()(params, video)
    x = tokens(params, video)
    for b in range(B):
        np.testing.assert_allclose(out[b], reference(params, x[b]), atol=2e-4)


@pytest.mark.parametrize("kind", VIDEOS)
def test_context_rows_equal_encoding_the_kept_tokens_alone(kind):
    video, params, keep = setup(kind)
    out = apply()(params, video, Rows(*lay_out(keep, 2, (B // 2, 16))))
    x = tokens(params, video)
    for b in range(B):
        np.testing.assert_allclose(out[b][keep[b]], reference(params, x[b][keep[b]]), atol=2e-4)
    assert (np.asarray(out)[~keep] == 0).all()


def test_padding_and_shards_change_nothing():
    video, params, keep = setup("image")
    index, segment = lay_out(keep, 1, keep.shape)
    short = apply()(params, video, Rows(index, segment))
    for extra, shards in ((8, 1), (0, 2), (3, 4)):
        index, segment = lay_out(keep, shards, (B // shards, 16))
        wider = [(0, 0), (0, 0), (0, extra)]
        index = np.pad(index, wider, constant_values=B // shards * 16)
        longer = apply()(params, video, Rows(index, np.pad(segment, wider)))
        np.testing.assert_allclose(longer, short, atol=1e-6)


def test_several_scenes_in_a_row_equal_separate_rows():
    """Segment ids 1, 2, 3 in one row: the host's choice, not the model's business."""
    video, params, keep = setup("image")
    separate = apply()(params, video, Rows(*lay_out(keep, 1, keep.shape)))
    index, segment = np.full((1, 1, 70), B * 16, np.int32), np.zeros((1, 1, 70), np.int32)
    at = 0
    for b in (2, 0, 3, 1):
        own = b * 16 + np.flatnonzero(keep[b])
        index[0, 0, at : at + len(own)], segment[0, 0, at : at + len(own)] = own, b + 1
        at += len(own)
    packed = apply()(params, video, Rows(index, segment))
    np.testing.assert_allclose(packed, separate, atol=2e-6)


def test_a_row_without_tokens_is_harmless():
    video, params, keep = setup("image")
    keep = keep.copy()
    keep[1] = False

    def loss(params):
        return (apply()(params, video, Rows(*lay_out(keep, 1, keep.shape))) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_zeroed_input_keeps_the_whole_sequence_with_zeros_at_hidden_places():
    video, params, keep = setup("image")
    out = apply()(params, video, None, keep)
    x = np.where(keep[..., None], tokens(params, video), 0)
    for b in range(B):
        np.testing.assert_allclose(out[b], reference(params, x[b]), atol=2e-4)


def test_hidden_pixels_are_not_seen():
    """What a removed patch shows cannot leak into the context."""
    video, params, keep = setup("image")
    pixels = np.repeat(np.repeat(keep.reshape(B, 1, 4, 4, 1), 8, 2), 8, 3)
    rows = Rows(*lay_out(keep, 1, keep.shape))
    other = np.where(pixels, video, 255 - video)
    np.testing.assert_array_equal(apply()(params, video, rows), apply()(params, other, rows))
    np.testing.assert_array_equal(apply()(params, video, None, keep), apply()(params, other, None, keep))


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_memory_not_values(remat):
    video, params, keep = setup("image")
    rows = Rows(*lay_out(keep, 1, keep.shape))

    def gradient(**options):
        return jax.jit(jax.value_and_grad(lambda p: (apply(**options)(p, video, rows) ** 2).mean()))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), gradient(remat=remat), gradient())


def test_what_remat_computes_again():
    """By counts in a block's gradient, which is only traced: with "dots" the GELU, but not the layers' products."""
    x = jnp.ones((1, 4, 8))

    def count(remat):
        stack = Stack(depth=1, heads=2, remat=remat)
        params = jax.eval_shape(stack.init, jax.random.key(0), x)
        text = str(jax.make_jaxpr(jax.grad(lambda params: stack.apply(params, x).sum()))(params))
        return text.count("= erf"), text.count("= dot_general[")

    (once, fewest), (again, some), (_, most) = map(count, ("none", "dots", "full"))
    assert 0 < once < again and 0 < fewest <= some < most


def test_bfloat16_is_close_and_tanh_gelu_is_another_function():
    video, params, _ = setup("image")
    exact, low = apply()(params, video), apply(dtype="bfloat16")(params, video)
    assert low.dtype == jnp.float32  # the residual stream and the norm at its end, for any dtype of the products
    error = np.linalg.norm(np.asarray(low, np.float32) - exact) / np.linalg.norm(exact)
    assert error < 0.03
    difference = np.abs(apply(gelu="tanh")(params, video) - exact).max()
    assert 1e-6 < difference < 0.05


def count(params):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def shapes(encoder, frames=1, size=224):
    pixels = jax.ShapeDtypeStruct((1, frames, size, size, 3), jnp.uint8)
    return jax.eval_shape(encoder.init, jax.random.key(0), pixels)["params"]


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", [1, 4])
def test_every_variant_builds(size, patch, frames):
    encoder = Encoder(f"{size}/{patch}")
    width, depth, heads, hidden, _ = parse(encoder.variant)
    assert width % heads == 0 and encoder.width == width and encoder.patch == patch
    params = shapes(encoder, frames, size=112)
    out = jax.eval_shape(encoder.apply, {"params": params}, jax.ShapeDtypeStruct((2, frames, 112, 112, 3), jnp.uint8))
    assert out.shape == (2, max(1, frames // 2) * (112 // patch) ** 2, width)
    assert params["stack"]["blocks"]["mlp"]["up"]["kernel"].shape == (depth, width, hidden)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_sizes_are_the_published_ones():
    assert {size: SIZES[size][:3] for size in ("Ti", "S", "B", "L", "H")} == {
        "Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "H": (1280, 32, 16)
    }  # fmt: skip
    assert all(hidden == 4 * width for size, (width, _, _, hidden) in SIZES.items() if size != "g")
    assert SIZES["g"] == (1408, 40, 16, 6144)  # as in V-JEPA 2's code: 48/11 times the width


def test_a_size_of_ones_own():
    assert parse("1408x40x22x6144/16") == (1408, 40, 22, 6144, 16)
    for wrong in ("64x2x3x128/8", "64x0x2x128/8", "64x2x2/8", "64x2x2x128x1/8", "64x2x2x128/0"):
        with pytest.raises(ConfigError, match=r"^objective\.encoder\.variant = '" + wrong):
            parse(wrong)


def test_parameters_of_vit_l_16():
    """303 M, not the 307 M of the method's description: no class token, learned positions or classifier.

    A block has q, k, v, out (4 D^2 + 4 D), the MLP (8 D^2 + 5 D) and two norms (4 D).
    """
    d = 1024
    block = 12 * d**2 + 13 * d
    expected = 24 * block + (16 * 16 * 3 * d + d) + 2 * d
    assert count(shapes(Encoder("L/16"))) == expected == 303_098_880
    # A clip's tubelet is two frames deep, so only the patch projection grows.
    assert count(shapes(Encoder("L/16"), frames=16)) == expected + 16 * 16 * 3 * d


@pytest.mark.parametrize("variant", ["X/16", "L16", "L/", "L/0", "L/x", ""])
def test_unknown_variants_are_refused_naming_the_sizes(variant):
    with pytest.raises(ConfigError, match="Ti, S, B, L, H"):
        parse(variant)


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_one_scene_each_reach_a_gpu_as_lengths(monkeypatch, packed):
    """cuDNN itself needs a GPU. Here XLA computes what it is asked for."""
    video, params, keep = setup("image")
    laid_out = lay_out(keep, 1, (2, 32) if packed else keep.shape)
    wanted = apply()(params, video, Rows(*laid_out))
    batch = batch_of(dict.fromkeys(NAMES) | {"context": keep, "rows": dict(zip(ROW, laid_out, strict=True))})
    asked = []

    def kernel(*arguments):
        asked.append(arguments[3].ndim)
        return attention.cudnn(*arguments, implementation="xla")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setitem(attention.KERNELS, "cudnn", kernel)
    with attention.only("cudnn"):
        found = jax.jit(make().apply)({"params": params}, video, batch.rows)
    assert set(asked) == {2 if packed else 1} and batch.rows.alone != packed
    np.testing.assert_allclose(found, wanted, atol=2e-5)
