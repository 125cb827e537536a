"""Random views: identity, ranges, determinism, one draw per clip, the distribution of crops."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives import views
from cjepa_jax.objectives.views import Views

STILL = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0, "jitter": (0.0, 0.0, 0.0, 0.0), "grey": 0.0}
VIDEO = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), np.uint8)


def make(**fields):
    return jax.jit(Views(**fields))


def test_identity_settings_give_the_input_back():
    out = make(**STILL)(jax.random.key(0), VIDEO)
    assert out.shape == (3, 2, 2, 16, 16, 3) and out.dtype == jnp.float32
    np.testing.assert_allclose(out, np.repeat(VIDEO[:, None], 2, 1), atol=1e-3)


@pytest.fixture(scope="module")
def everything():
    return make(count=3, blur=(1.0, 0.5), solarise=(0.0, 0.5))


def test_the_same_key_gives_the_same_bits_and_all_draws_differ(everything):
    out = np.asarray(everything(jax.random.key(1), np.repeat(VIDEO[:1], 3, 0)))
    np.testing.assert_array_equal(out, everything(jax.random.key(1), np.repeat(VIDEO[:1], 3, 0)))
    assert out.min() >= 0 and out.max() <= 255 + 1e-3 and out.std() > 1
    different = [out[b, v] for b in range(3) for v in range(3)] + [everything(jax.random.key(2), VIDEO)[0, 0]]
    assert all((a != b).any() for i, a in enumerate(different) for b in different[:i])


def test_a_scenes_view_does_not_depend_on_its_neighbours(everything):
    other = VIDEO.copy()
    other[1:] = 255 - other[1:]
    one, two = (everything(jax.random.key(3), video)[0] for video in (VIDEO, other))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_all_frames_of_a_clip_share_one_draw(everything):
    still = np.repeat(VIDEO[:, :1], 2, 1)
    out = np.asarray(everything(jax.random.key(4), still))
    np.testing.assert_allclose(out[:, :, 0], out[:, :, 1], atol=1e-3)


def test_crops_have_the_stated_distribution_and_lie_inside():
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(lambda key: views.crop_box(key, 20, 30, (0.2, 0.9), (0.5, 2.0))))
    top, left, height, width = map(np.asarray, draw(keys))
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 20 + 1e-4).all() and (left + width <= 30 + 1e-4).all()
    area = height * width / 600
    assert area.min() >= 0.2 - 1e-4 and area.max() <= 0.9 + 1e-4
    quantiles = np.quantile(area, np.linspace(0, 1, 11))
    np.testing.assert_allclose(quantiles, np.linspace(0.2, 0.9, 11), atol=0.03)  # uniform: about 3 standard errors
    ratio = width / height
    assert ratio.min() >= 0.5 - 1e-4 and ratio.max() <= 2 + 1e-4
    small = np.log(ratio[area < 0.3])  # where every aspect fits: log-uniform
    assert np.mean(small) == pytest.approx(0, abs=0.06) and small.std() == pytest.approx(np.log(4) / 12**0.5, abs=0.04)


def test_a_crop_shows_its_box_and_a_flip_its_mirror():
    """A linear ramp of the column: the crop's is a ramp over the box."""
    ramp = np.broadcast_to(np.arange(32.0)[None, None, None, :, None], (1, 1, 32, 32, 3))
    box = STILL | {"scale": (0.25, 0.25), "count": 1}
    row, mirrored = (np.asarray(make(**box | {"flip": p})(jax.random.key(0), ramp))[0, 0, 0, 16, :, 0] for p in (0, 1))
    np.testing.assert_allclose(np.diff(row)[2:-2], 0.5, atol=1e-3)  # half of the width, enlarged twice
    np.testing.assert_allclose(mirrored[::-1], row, atol=1e-3)


def test_grey_and_solarised():
    grey = np.asarray(make(**STILL | {"grey": 1.0})(jax.random.key(0), VIDEO))[:, 0]
    expected = (VIDEO * np.array([0.299, 0.587, 0.114])).sum(-1)
    np.testing.assert_allclose(grey, np.repeat(expected[..., None], 3, -1), atol=1e-2)
    inverted = np.asarray(make(**STILL, solarise=(1.0, 0.0))(jax.random.key(0), VIDEO))
    np.testing.assert_allclose(inverted[:, 0], np.where(VIDEO >= 128, 255 - VIDEO.astype(int), VIDEO), atol=1e-2)
    np.testing.assert_allclose(inverted[:, 1], VIDEO, atol=1e-2)


def test_a_turned_hue():
    """A third of a turn makes red greener than anything else, a full turn gives the colour back."""
    red = jnp.array([[[[150.0, 90.0, 90.0]]]])
    hue = [colorsys.rgb_to_hsv(*np.asarray(views._turn(red, turns)).ravel())[0] for turns in (0.0, 1 / 3, -1 / 3, 1.0)]
    assert min(hue[0], 1 - hue[0]) < 1e-3 and min(hue[3], 1 - hue[3]) < 1e-3
    assert sorted(hue[1:3]) == pytest.approx([1 / 3, 2 / 3], abs=0.1)


def test_blur_keeps_flat_pictures_and_smooths_others():
    flat, noise = (
        jnp.full((1, 64, 64, 3), 80.0),
        jnp.asarray(np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)), jnp.float32),
    )
    np.testing.assert_allclose(jax.jit(views._blur)(jax.random.key(1), flat), flat, atol=1e-2)
    deviations = [float(jax.jit(views._blur)(jax.random.key(seed), noise).std()) for seed in range(6)]
    assert max(deviations) <= float(noise.std()) + 1e-3 and min(deviations) < 0.9 * float(noise.std())


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"scale": (0.0, 1.0)}, {"scale": (0.5, 0.4)}, {"aspect": (0.0, 1.0)}, {"jitter": (0.1, 0.1, 0.1)},
     {"jitter": (0.1, 0.1, 0.1, 0.6)}, {"flip": 1.5}, {"blur": ()}],
)  # fmt: skip
def test_values_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"objective.views.*{next(iter(wrong))}"):
        Views(**wrong)


def test_small_views_have_their_own_size_and_share_of_the_frame():
    across = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.float32)[None, None, None, :, None], (40, 1, 64, 64, 3))
    fields = STILL | {"count": 1, "small": 2, "small_size": 8, "small_scale": (0.05, 0.1)}
    views = jax.jit(Views(**fields).small_views)(jax.random.key(0), across)
    assert views.shape == (40, 2, 1, 8, 8, 3)
    wide = (
        np.asarray(views[..., -1, 0] - views[..., 0, 0])[..., 0, 0] / 255 * 64 / 7 * 8 / 64
    )  # of a view, of the frame
    assert 0.9 * 0.05 <= (wide**2).min() and (wide**2).max() <= 1.1 * 0.1 and wide.std() > 0.005
    assert len(np.unique(np.asarray(views[:, :, 0, 0, 0, 0]))) > 70  # every view has another crop


def test_small_views_leave_the_large_ones_as_they_are(everything):
    fields = {"count": 3, "blur": (1.0, 0.5), "solarise": (0.0, 0.5), "small": 2, "small_size": 8}
    several = make(**fields)(jax.random.key(1), VIDEO)
    np.testing.assert_array_equal(several, everything(jax.random.key(1), VIDEO))


@pytest.mark.parametrize(
    "wrong", [{"small": -1}, {"small": 2}, {"small": 2, "small_size": 8, "small_scale": (0.3, 0.1)}]
)
def test_small_views_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match="objective.views.small"):
        Views(**wrong)
