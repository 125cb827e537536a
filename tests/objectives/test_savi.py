"""SAVi as an objective: its terms, its monitors, slices of a batch, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import microbatch
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.savi import SaviLoss, divergence
from cjepa_jax.types import Batch

SIZES = dict(slots=3, width=8, channels=(4,), embed=8, hidden=8, units=8, decoder=(4,), strides=(2,))
OBJECTIVE = SaviLoss(SIZES, steps=10, patch=4)


@functools.cache
def batch():
    video = np.random.default_rng(0).integers(0, 256, (4, 2, 16, 16, 3), np.uint8)
    own = np.zeros((4, 2, 32), bool)
    own[:, 0, :5] = own[:, 1, 20:] = True
    return Batch(
        scene=jnp.arange(4), epoch=jnp.zeros(4, int), video=jnp.asarray(video), object_patches=jnp.asarray(own),
        object_valid=jnp.ones((4, 2), bool), removed=jnp.zeros((4, 2), bool), context=jnp.ones((4, 32), bool),
        rows=None, valid=jnp.arange(4) < 3,
    )  # fmt: skip


@functools.cache
def params():
    return OBJECTIVE.init(jax.random.key(0), batch())[0]


def test_the_loss_is_the_painted_error_and_the_weighted_divergence_of_valid_scenes_and_slices_add_up():
    key = jax.random.key(1)
    silent = dataclasses.replace(OBJECTIVE, savi=SIZES | {"noise": False})  # each slice draws its own noise
    whole, half = (
        jax.jit(functools.partial(microbatch.loss_and_grad(silent, k, None), key=key, step=0)) for k in (1, 2)
    )
    (loss, (metrics, _)), gradient = whole(params(), {}, {}, batch())
    np.testing.assert_allclose(loss, metrics["loss/painted"] + 1e-4 * metrics["loss/kl"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/painted"], metrics["per_scene"][:3].mean(), rtol=1e-6)
    assert 0 < metrics["slots/mbo"] < 1 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    other = dataclasses.replace(batch(), video=batch().video.at[3].set(0))
    again = whole(params(), {}, {}, other)[0][1][0]
    np.testing.assert_allclose(again["loss/kl"], metrics["loss/kl"], rtol=1e-6)
    (again, _), other = half(params(), {}, {}, batch())
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), gradient, other)


def test_a_token_has_the_slots_that_paint_it():
    found = jax.jit(OBJECTIVE.slots)(params(), batch().video)
    tokens = np.asarray(jax.jit(OBJECTIVE.encode)(params(), batch().video))
    masks = np.asarray(found["masks"])  # [B, T, K, H, W]
    np.testing.assert_allclose(masks.sum(2), 1, atol=1e-6)
    share = masks[1, 1, :, 4:8, 8:12].mean((1, 2))  # frame 1, row 1, column 2 of 4 x 4 tokens
    np.testing.assert_allclose(tokens[1, 16 + 4 + 2], share @ np.asarray(found["slots"])[1, 1], atol=1e-5)


def test_the_divergence_is_that_of_two_normal_distributions():
    kernel = np.array([[3.0, -1.0, np.log(0.01), np.log(0.04)]])
    wanted = 0.5 * (np.log(0.01 / 0.04) + 0.04 / 0.01 - 1)
    np.testing.assert_allclose(divergence(kernel), [wanted], rtol=1e-5)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"savi": SIZES | {"slots": 0}}, "objective.savi.slots = 0: must be a whole number, at least 1"),
        (
            {"savi": SIZES | {"strides": (2, 2)}},
            "objective.savi.strides = (2, 2): must have as many entries as objective.savi.decoder = (4,)",
        ),
        ({"kl_weight": -1}, "objective.kl_weight = -1: must be a number of at least 0"),
        ({"savi": SIZES | {"strides": (1,)}}, "data.size = 16: must be 8, 8 x the objective.savi.strides"),
        (
            {"savi": SIZES | {"slotz": 3}},
            "objective.savi.slotz = 3: there is no such option, but slots, width, channels, embed, hidden, units, "
            "iterations, decoder, strides, noise",
        ),
        ({"savi": SIZES | {"strides": 2}}, "objective.savi.strides = 2: must be a list of whole numbers"),
        ({"savi": SIZES | {"noise": "no"}}, "objective.savi.noise = 'no': must be True or False"),
        ({"patch": 5}, "objective.patch = 5: must divide data.size = 16"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(dataclasses.replace(OBJECTIVE, **options).loss, *made(options), batch(), jax.random.key(0), 0)
    assert str(error.value) == text


@pytest.mark.parametrize("channels", [1, 2])
def test_pictures_without_three_channels_are_refused(channels):
    other = dataclasses.replace(batch(), video=batch().video[..., :channels])
    with pytest.raises(ConfigError) as error:
        OBJECTIVE.init(jax.random.key(0), other)
    assert str(error.value) == f"data.source: videos have {channels} channels: must be 3 for objective.savi"


def made(options):
    return jax.eval_shape(functools.partial(dataclasses.replace(OBJECTIVE, **options).init, jax.random.key(0)), batch())
