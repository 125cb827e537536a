"""One geometry for frames, masks and intervened frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax.data import transforms
from cjepa_jax.errors import ConfigError


def make_scene(height: int, width: int, frames: int = 2) -> dict:
    """A dark scene with three objects that are painted into the video, so that masks can be read off the pixels."""
    rng = np.random.default_rng([height, width])
    masks = np.zeros((3, frames, height, width), bool)
    for k in range(3):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        masks[k, :, top : top + height // 3, left : left + width // 3] = True
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[..., :] = masks.transpose(1, 2, 3, 0) * 200
    return {"video": video, "masks": masks, "intervened": video // 2}


def cropped(crop, scene, size):
    videos = {key: crop.frames(scene[key], size) for key in ("video", "intervened")}
    return videos | {"masks": crop.masks(scene["masks"], size)}


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 90), st.integers(5, 90), st.integers(4, 40), st.integers(0, 10_000))
def test_crops_stay_inside_and_give_the_size_that_is_asked_for(height, width, size, seed):
    crop = transforms.draw_crop(np.random.default_rng(seed), height, width)
    assert 0 <= crop.top and crop.top + crop.height <= height and crop.height > 0
    assert 0 <= crop.left and crop.left + crop.width <= width and crop.width > 0
    out = cropped(crop, make_scene(height, width), size)
    for key in ("video", "intervened"):
        assert out[key].shape == (2, size, size, 3) and out[key].dtype == np.uint8 and out[key].flags.c_contiguous
    assert out["masks"].shape == (3, 2, size, size) and out["masks"].dtype == bool


@pytest.mark.parametrize("seed", range(8))
def test_masks_follow_their_pixels(seed):
    """Wherever a frame is clearly inside or outside an object after the crop, its mask says so."""
    scene = make_scene(120, 90)
    out = cropped(transforms.draw_crop(np.random.default_rng(seed), 120, 90), scene, 48)
    painted = np.moveaxis(out["video"], -1, 0)
    assert out["masks"][painted > 190].all() and not out["masks"][painted < 10].any()
    assert np.abs(out["intervened"] * 2.0 - out["video"]).max() <= 2


def test_flip_mirrors_everything():
    scene = make_scene(40, 40)
    plain = cropped(transforms.Crop(4, 6, 30, 20), scene, 32)
    mirrored = cropped(transforms.Crop(4, 6, 30, 20, flip=True), scene, 32)
    assert (mirrored["video"] == plain["video"][:, :, ::-1]).all()
    assert (mirrored["masks"] == plain["masks"][..., ::-1]).all()
    assert (plain["masks"] != mirrored["masks"]).any()


def test_random_crop_flips_half_of_the_time_and_spans_its_scale():
    rng = np.random.default_rng(0)
    crops = [transforms.draw_crop(rng, 100, 120) for _ in range(600)]
    assert 0.42 < np.mean([crop.flip for crop in crops]) < 0.58
    share = np.array([crop.height * crop.width / 12_000 for crop in crops])
    assert 0.28 < share.min() < 0.35 and 0.8 < share.max() <= 1
    aspect = np.array([crop.width / crop.height for crop in crops])
    assert aspect.min() > 0.7 and aspect.max() < 1.45


def test_a_crop_is_as_wide_as_its_ratio_says():
    rng = np.random.default_rng(0)
    crops = [transforms.draw_crop(rng, 400, 400, scale=(0.05, 0.1), ratio=(2.0, 3.0)) for _ in range(50)]
    assert all(1.95 < crop.width / crop.height < 3.05 for crop in crops)


def test_the_centre_square_is_as_wide_as_the_short_side():
    scene = make_scene(30, 50)
    out = cropped(transforms.centre_square(30, 50), scene, 30)
    assert (out["video"] == scene["video"][:, :, 10:40]).all() and (out["masks"] == scene["masks"][..., 10:40]).all()
    assert cropped(transforms.centre_square(30, 50), scene, 64)["video"].shape == (2, 64, 64, 3)
    assert cropped(transforms.centre_square(5, 7), make_scene(5, 7), 3)["masks"].shape == (3, 2, 3, 3)


def test_area_interpolation_keeps_the_mean():
    video = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    out = transforms.centre_square(96, 96).frames(video, 32)
    expected = video.reshape(1, 32, 3, 32, 3, 3).mean((2, 4))
    assert np.abs(out - expected).max() <= 1


def test_lost_objects_keep_their_place():
    masks = np.zeros((2, 1, 20, 20), bool)
    masks[0, :, :3, :3] = masks[1, :, 10:15, 10:15] = True
    out = transforms.Crop(8, 8, 10, 10).masks(masks, 10)
    assert out.shape[0] == 2 and not out[0].any() and out[1].sum() == 25


def test_no_objects():
    masks = np.zeros((0, 1, 9, 12), bool)
    assert transforms.draw_crop(np.random.default_rng(0), 9, 12).masks(masks, 8).shape == (0, 1, 8, 8)
    assert transforms.centre_square(9, 12).masks(masks, 8).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("bad", [{"scale": (0.5, 0.3)}, {"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"ratio": (2, 1)}])
def test_bad_bounds_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        transforms.draw_crop(np.random.default_rng(0), 10, 10, **bad)


def test_shapes_that_cannot_fit_fall_back_to_the_square():
    crop = transforms.draw_crop(np.random.default_rng(0), 100, 4, scale=(0.9, 1.0), ratio=(1.0, 1.0))
    assert (crop.top, crop.left, crop.height, crop.width) == (48, 0, 4, 4)
