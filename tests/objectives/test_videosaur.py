"""VideoSAUR and SlotContrast as objectives: their terms, slices of a batch, segments, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import microbatch
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.videosaur import slot_contrast
from cjepa_jax.objectives.base import Segmenting
from cjepa_jax.objectives.videosaur import VideoSaurLoss
from tests.objectives.test_savi import batch

SIZES = dict(slots=3, width=8, fixed=True, embed=8, hidden=8, first=1, iterations=1, heads=2, blocks=1, units=(8,))
OBJECTIVE = VideoSaurLoss(SIZES, steps=10, patch=4, similarity=0.3, contrast=0.5)


@functools.cache
def params():
    return jax.jit(OBJECTIVE.init)(jax.random.key(0), batch())[0]


def test_the_loss_is_the_weighted_sum_of_its_terms_over_valid_scenes_and_slices_add_up():
    key = jax.random.key(1)
    whole, half = (
        jax.jit(functools.partial(microbatch.loss_and_grad(OBJECTIVE, k, None), key=key, step=0)) for k in (1, 2)
    )
    (loss, (metrics, _)), gradient = whole(params(), {}, {}, batch())
    terms = [metrics[f"loss/{name}"] for name in ("features", "similarity", "contrast")]
    np.testing.assert_allclose(loss, terms[0] + 0.3 * terms[1] + 0.5 * terms[2], rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)) and 0 < metrics["slots/mbo"] < 1
    given = OBJECTIVE.patches(batch().video)
    decoded = jax.jit(OBJECTIVE.model.apply)({"params": params()["videosaur"]}, given, None)["features"]
    of_all_frames = np.square(np.asarray(decoded - given))[np.asarray(batch().valid)].mean()
    np.testing.assert_allclose(terms[0], of_all_frames, rtol=1e-5)
    other = dataclasses.replace(batch(), video=batch().video.at[3].set(0))  # not a valid scene
    np.testing.assert_allclose(whole(params(), {}, {}, other)[0][0], loss, rtol=1e-6)
    (again, _), other = half(params(), {}, {}, batch())
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_padded_scenes_are_no_others():
    slots = jax.random.normal(jax.random.key(0), (3, 2, 4, 5))
    valid = jnp.array([True, True, False])
    np.testing.assert_allclose(slot_contrast(slots, 0.1, valid=valid)[:2], slot_contrast(slots[:2], 0.1), rtol=1e-6)


def test_features_are_the_colour_and_the_texture_of_each_patch():
    video = np.zeros((1, 2, 8, 8, 3), np.uint8)
    video[0, 1, :4, 4:] = 255
    found = OBJECTIVE.patches(jnp.asarray(video))
    assert found.shape == (1, 2, 4, 3 + 48) and not found[..., 3:].any()
    np.testing.assert_allclose(found[0, 1, :, 0], [-2, 2, -2, -2])  # rows of patches
    video[0, 0, 0, 0] = 255
    np.testing.assert_allclose(OBJECTIVE.patches(jnp.asarray(video))[0, 0, 0, 3], 2 * 15 / 16, rtol=1e-6)
    weak = dataclasses.replace(OBJECTIVE, texture=0.3)
    np.testing.assert_allclose(weak.patches(jnp.asarray(video))[0, 0, 0, 3], 0.3 * 2 * 15 / 16, rtol=1e-6)


def test_every_pixel_has_the_slot_of_its_patch_and_drawn_slots_are_the_same_each_time():
    drawn = dataclasses.replace(OBJECTIVE, videosaur=SIZES | {"fixed": False}, similarity=0.0)
    init = jax.jit(drawn.init)
    (own, _, extra), (_, _, again), (_, _, others) = (init(jax.random.key(seed), batch()) for seed in (2, 2, 3))
    np.testing.assert_array_equal(extra["noise"], again["noise"])
    assert np.abs(extra["noise"] - others["noise"]).max() > 0.1, "the noise is the run's"
    run = jax.jit(lambda given, video: [f(given, video) for f in (drawn.slots, drawn.segments, drawn.encode)])
    (slots, found, tokens), (different, *_) = (run(own | of, batch().video) for of in (extra, others))
    masks, found, tokens = map(np.asarray, (slots["masks"], found, tokens))
    assert np.abs(slots["slots"] - different["slots"]).max() > 1e-4
    assert isinstance(drawn, Segmenting) and drawn.segment_count == masks.shape[2] == 3
    assert found.shape == batch().video.shape[:4] and found.dtype == np.int32
    np.testing.assert_array_equal(found[1, 0, ::4, ::4].ravel(), masks[1, 0].argmax(0))
    np.testing.assert_array_equal(found[:, :, 1::4, 3::4], found[:, :, ::4, ::4])
    other = run(own | extra, batch().video[::-1])  # the noise is not the place's in the batch
    np.testing.assert_array_equal(other[1][::-1], found)
    assert tokens.shape == (4, 32, 8)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(videosaur=SIZES | {"similarity": True}), "objective.videosaur.similarity"),
        (dict(videosaur=SIZES | {"slots": 0}), "objective.videosaur.slots = 0"),
        (dict(videosaur=SIZES | {"heads": 3}), "objective.videosaur.heads = 3: must divide"),
        (dict(videosaur=SIZES | {"units": 3}), "objective.videosaur.units = 3"),
        (dict(videosaur=SIZES | {"placed": 1}), "objective.videosaur.placed = 1: must be True or False"),
        (dict(texture=-1.0), "objective.texture = -1.0"),
        (dict(contrast=-1.0), "objective.contrast = -1.0"),
        (dict(temperature=0.0), "objective.temperature = 0.0"),
    ],
)
def test_options_outside_their_limits_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dataclasses.replace(OBJECTIVE, **options)
    assert "\n" not in str(caught.value)


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="objective.patch = 5: must divide data.size = 16"):
        dataclasses.replace(OBJECTIVE, patch=5).init(jax.random.key(0), batch())
    with pytest.raises(ConfigError, match="data.frames = 1: must be at least 2"):
        OBJECTIVE.init(jax.random.key(0), dataclasses.replace(batch(), video=batch().video[:, :1]))
    placed = dataclasses.replace(OBJECTIVE, videosaur=SIZES | {"placed": True})
    with pytest.raises(ConfigError, match="placed = True: 12 features a frame: must be a square number"):
        placed.init(jax.random.key(0), dataclasses.replace(batch(), video=batch().video[:, :, :12]))
