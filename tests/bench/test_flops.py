"""Counted floating-point operations against formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import experiment, optim, train_step
from cjepa_jax.bench.flops import matmul_flops, step_flops, useful_step_flops
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.types import Batch, Rows
from configs import clips
from tests import running


def encoder_flops(scenes, tokens, patch_values, width, depth):
    """2 x multiply-adds of a ViT whose mlp is 4 x as wide: tokenizer, then per block qkv, scores, mix, out, mlp."""
    per_block = tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    per_block += 2 * tokens * width * 4 * width
    return 2 * scenes * (tokens * patch_values * width + depth * per_block)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_an_encoder_forward_and_backward(depth, remat):
    encoder = Encoder(variant="Mu/8", depth=depth, remat=remat)
    video = jnp.zeros((2, 2, 32, 32, 3))
    params = jax.eval_shape(encoder.init, jax.random.key(0), video)
    forward = encoder_flops(2, 16, 2 * 8 * 8 * 3, encoder.width, depth)
    assert matmul_flops(encoder.apply, params, video) == forward

    def total(params, video):
        return encoder.apply(params, video).sum()

    # Each product costs two more in the gradient: one for each of its factors.
    gradient = matmul_flops(jax.grad(total, argnums=(0, 1)), params, video)
    assert gradient >= 3 * forward if remat == "full" else gradient == 3 * forward


def test_loops_are_multiplied_out_and_calls_are_entered():
    x = jnp.zeros((4, 4))
    product = 2 * 4**3

    @jax.jit
    def inner(x):
        return x @ x

    def loop(x):
        return jax.lax.scan(lambda carry, _: (inner(carry), None), x, None, length=7)[0]

    assert matmul_flops(inner, x) == product
    assert matmul_flops(loop, x) == 7 * product
    assert matmul_flops(jax.checkpoint(functools.partial(jax.vmap(inner))), jnp.zeros((5, 4, 4))) == 5 * product
    assert matmul_flops(lambda x: x + x, x) == 0


def test_batched_and_transposed_products():
    a, b = jax.ShapeDtypeStruct((3, 5, 7), "float32"), jax.ShapeDtypeStruct((3, 11, 7), "float32")
    assert matmul_flops(lambda a, b: jnp.einsum("bik,bjk->bij", a, b), a, b) == 2 * 3 * 5 * 11 * 7


def test_convolutions():
    """ResNet's first layer, 7 x 7 from 3 to 64 channels with stride 2. And one in two groups."""

    def convolve(x, kernel, groups=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=layout, feature_group_count=groups
        )

    first = matmul_flops(convolve, jnp.zeros((1, 224, 224, 3)), jnp.zeros((7, 7, 3, 64)))
    assert first == 2 * 112 * 112 * 64 * 7 * 7 * 3
    grouped = functools.partial(convolve, groups=2)
    assert matmul_flops(grouped, jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 2, 6))) == 2 * 4 * 4 * 6 * 3 * 3 * 2


def test_useful_flops_are_those_of_rows_without_padding():
    """Where rows need no padding all FLOPs are useful. Padding adds to the others only."""
    config = clips.get_config()
    config.update_from_flattened_dict(running.SMALL)
    objective = experiment.make_objective(config, steps=10)
    scenes, tokens, objects = 3, 16, config.data.max_objects
    context = np.arange(tokens) < np.full((scenes, 1), 9)

    def batch(length):
        def array(*shape, dtype="bool"):
            return jax.ShapeDtypeStruct((scenes, *shape), dtype)

        rows = jax.ShapeDtypeStruct((1, scenes, length), "int32")
        video = array(2, 32, 32, 3, dtype="uint8")
        scene, valid = array(dtype="int32"), array()
        masks = array(objects, tokens), array(objects), array(objects)
        return Batch(scene, scene, video, *masks, array(tokens), Rows(rows, rows), valid, video, valid)

    init = functools.partial(train_step.init_state, objective, optim.make(config.optim), 0)
    state = jax.eval_shape(init, batch(9))
    exact = step_flops(objective, state, batch(9))
    assert useful_step_flops(objective, state, batch(9), context) == exact
    assert useful_step_flops(objective, state, batch(16), context) == exact < step_flops(objective, state, batch(16))
