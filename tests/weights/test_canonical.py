"""The names that PyTorch code uses, against the trees that our networks really have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.weights.canonical import from_canonical, to_canonical

SIZE = "24x3x2x40/4"


def filled(tree, seed=0):
    """Random arrays of these shapes: initial values (zero biases, equal scales) would hide what is mixed up."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), tree)


@functools.cache
def encoder(frames=1, **options):
    video = jnp.zeros((1, frames, 8, 8, 3))
    return filled(jax.eval_shape(Encoder(SIZE, **options).init, jax.random.key(0), video)["params"])


@functools.cache
def predictor(attention="joint", **options):
    network = Predictor(depth=2, width=16, heads=2, attention=attention, out=24, **options)
    rest = jnp.ones((1, 4), bool), jnp.ones((1, 2, 4), bool), jnp.ones((1, 2), bool)
    start = functools.partial(network.init, grid=(1, 2, 2))
    return filled(jax.eval_shape(start, jax.random.key(0), jnp.zeros((1, 4, 24)), *rest)["params"])


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("positions", ["sincos", "table"])
def test_an_encoder_goes_there_and_back(frames, positions):
    grid = () if positions == "sincos" else (frames // 2 or 1, 2, 2)
    params = encoder(frames, positions=positions, position_grid=grid)
    tensors = to_canonical(params, 4, 2)
    assert ("pos_embed" in tensors) == (positions == "table")
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in tensors.values())
    equal(from_canonical(tensors), params)


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_a_predictor_goes_there_and_back(attention):
    params = predictor(attention)
    tensors = to_canonical(params, 4, 2)
    assert ("blocks.1.cross.kv.weight" in tensors) == (attention == "cross")
    equal(from_canonical(tensors), params)


def test_a_predictors_table_goes_there_and_back():
    params = predictor(positions="table", position_grid=(1, 2, 2))
    tensors = to_canonical(params, 4, 2)
    assert tensors["pos_embed"].shape == (1, 4, 16)
    equal(from_canonical(tensors), params)


def test_names_and_shapes_are_those_of_the_family():
    shapes = {name: array.shape for name, array in to_canonical(encoder(), 4, 2).items()}
    block = {
        "norm1": (24,),
        "attn.qkv": (72, 24),
        "attn.proj": (24, 24),
        "norm2": (24,),
        "mlp.fc1": (40, 24),
        "mlp.fc2": (24, 40),
    }
    wanted = {"patch_embed.proj": (24, 3, 4, 4), "norm": (24,)}
    wanted |= {f"blocks.{i}.{name}": shape for i in range(3) for name, shape in block.items()}
    weights = {f"{name}.weight": shape for name, shape in wanted.items()}
    assert shapes == weights | {f"{name}.bias": shape[:1] for name, shape in wanted.items()}
    assert to_canonical(encoder(4), 4, 2)["patch_embed.proj.weight"].shape == (24, 3, 2, 4, 4)


@pytest.mark.parametrize("frames", [1, 2])
def test_the_patch_embedding_is_the_same_linear_map(frames):
    """Kernel times a flattened box = the convolution's sum over channel, frame, row and column."""
    kernel = encoder(frames)["tokenizer"]["projection"]["kernel"]
    weight = to_canonical(encoder(frames), 4, 2)["patch_embed.proj.weight"]
    box = np.random.default_rng(1).normal(size=(frames, 4, 4, 3))
    summed = np.einsum("tyxc,dctyx->d", box, weight.reshape(24, 3, frames, 4, 4))
    np.testing.assert_allclose(box.reshape(-1) @ kernel, summed, rtol=1e-5, atol=1e-5)


def test_queries_keys_and_values_keep_their_order():
    """Row r of the packed weight is column r of our kernel: (q, k, v), head, channel on both sides."""
    params, i = encoder(), 1
    np.testing.assert_array_equal(
        to_canonical(params, 4, 2)[f"blocks.{i}.attn.qkv.weight"],
        params["stack"]["blocks"]["attention"]["qkv"]["kernel"][i].T,
    )


def test_what_is_no_part_of_the_networks_is_refused():
    tensors = to_canonical(encoder(), 4, 2)
    with pytest.raises(CheckpointError, match="'cls_token': neither"):
        from_canonical(tensors | {"cls_token": np.zeros((1, 1, 24))})
    with pytest.raises(CheckpointError, match="'blocks.1.gamma.weight': neither"):
        from_canonical(tensors | {"blocks.1.gamma.weight": np.zeros(24)})
    with pytest.raises(CheckpointError, match="'stack.gate': neither"):
        to_canonical({"stack": {"gate": np.zeros(3)}}, 4, 2)
    with pytest.raises(CheckpointError, match="48 rows, which are not boxes of 8 x 8 pixels"):
        to_canonical(encoder(), 8, 2)
    with pytest.raises(CheckpointError, match=r"shape \[24, 1, 4, 4\]: must be \[D, 3, p, p\]"):
        from_canonical({"patch_embed.proj.weight": np.zeros((24, 1, 4, 4))})


def test_blocks_that_are_not_alike_are_refused():
    tensors = to_canonical(encoder(), 4, 2)
    with pytest.raises(CheckpointError, match="'blocks.1.attn.qkv.bias' is missing: there are 3 blocks"):
        from_canonical({name: array for name, array in tensors.items() if name != "blocks.1.attn.qkv.bias"})
    with pytest.raises(CheckpointError, match="'blocks.2.norm1.bias': its shape is not that of 'blocks.0.norm1.bias'"):
        from_canonical(tensors | {"blocks.2.norm1.bias": np.zeros(3)})
