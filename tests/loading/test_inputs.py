"""What is taken for scenes, masks and objects' numbers. All other input is refused in one line."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cjepa_jax.errors import ConfigError
from cjepa_jax.loading import inputs
from cjepa_jax.loading.inputs import InputError, Takes

IMAGES, CLIPS, BOTH = Takes(8, 1, False), Takes(8, 2, True), Takes(8, 1, True)
RNG = np.random.default_rng(0)
VIDEO = RNG.integers(0, 256, (2, 4, 16, 24, 3), np.uint8)


def refused(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, ConfigError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_form_of_the_same_scenes():
    for given_ in (VIDEO, VIDEO.astype(np.int64), VIDEO.tolist(), memoryview(VIDEO)):
        found = inputs.pixels(given_, CLIPS)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, VIDEO)
    for kind in (np.float32, np.float64, np.float16):
        found = inputs.pixels(VIDEO.astype(kind), CLIPS)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, VIDEO.astype(np.float32))
    assert inputs.pixels(VIDEO.astype(ml_dtypes.bfloat16), CLIPS).dtype == np.float32
    np.testing.assert_array_equal(inputs.pixels(VIDEO[0], IMAGES), VIDEO[0][:, None])
    np.testing.assert_array_equal(inputs.pixels(VIDEO[0, 0], IMAGES), VIDEO[:1, :1])
    np.testing.assert_array_equal(inputs.pixels(VIDEO[:, :1], IMAGES), VIDEO[:, :1])
    np.testing.assert_array_equal(inputs.pixels(VIDEO, BOTH), VIDEO)
    assert inputs.pixels(np.zeros((1, 8, 8, 3), np.float32), IMAGES).shape == (1, 1, 8, 8, 3)  # black is valid
    assert inputs.pixels(VIDEO[:0], CLIPS).shape == (0, 4, 16, 24, 3)


@pytest.mark.parametrize(
    "images, takes, text",
    [
        (VIDEO / 255, CLIPS, "floats up to 1: pixels are 0..255 here. Multiply by 255"),
        (VIDEO / 250, CLIPS, "floats up to 1.02: pixels are 0..255 here. Multiply by 255"),
        (VIDEO / 128 - 1.0, CLIPS, "must be in 0..255. Do not normalise: the model does"),
        (VIDEO.astype(int) + 1, CLIPS, "values from 1 to 256: must be in 0..255"),
        (np.where(VIDEO > 3, VIDEO, np.nan), CLIPS, "values from nan to nan"),
        (VIDEO > 3, CLIPS, "dtype bool: must be uint8 or float"),
        (VIDEO.astype(complex), CLIPS, "dtype complex128"),
        (np.moveaxis(VIDEO, -1, 1), CLIPS, "Channels come last: np.moveaxis(images, 1, -1)"),
        (np.moveaxis(VIDEO, -1, 2), CLIPS, "Channels come last: np.moveaxis(images, 2, -1)"),
        (np.moveaxis(VIDEO[0], -1, 1), IMAGES, "Channels come last: np.moveaxis(images, 1, -1)"),
        (np.moveaxis(VIDEO[0, 0], -1, 0), IMAGES, "Channels come last: np.moveaxis(images, 0, -1)"),
        (VIDEO[0, 0, ..., 0], IMAGES, "Grey pictures need three equal channels"),
        (VIDEO[0, ..., :1], IMAGES, "Grey pictures need three equal channels"),
        (np.zeros((2, 8, 8, 4), np.uint8), IMAGES, "Without the fourth channel: images[..., :3]"),
        (VIDEO[0], CLIPS, "one frame each, the model takes clips [B, T, H, W, 3] with T a multiple of 2"),
        (VIDEO[0], CLIPS, "Frames of one clip: images[None]. Single pictures: np.repeat(images[:, None], 2, 1)"),
        (VIDEO, IMAGES, "4 frames, the model takes images: images.reshape"),
        (VIDEO[:, :3], CLIPS, "T = 3 must be a multiple of 2"),
        (VIDEO[:, :, :15], CLIPS, "H = 15 must be a multiple of 8"),
        (VIDEO[:, :, :, :9], CLIPS, "W = 9 must be a multiple of 8"),
        (VIDEO[:, :, :0], CLIPS, "H = 0 must be a multiple of 8"),
        (VIDEO[:, :0], CLIPS, "T = 0 must be a multiple of 2"),
        ([VIDEO[0], VIDEO[0, 0]], CLIPS, "cannot be made a NumPy array"),
        ("cat.png", IMAGES, "images: shape ()"),
        (None, IMAGES, "NoneType does not become"),
    ],
)
def test_images_that_cannot_be_meant(images, takes, text):
    assert text in refused(inputs.pixels, images, takes)


def test_masks_and_labels_are_the_same_objects():
    labels = RNG.integers(0, 4, VIDEO.shape[:4])
    masks = np.stack([labels == k for k in (1, 2, 3)], 1)
    for given_, shape, ndim in (
        (labels, VIDEO.shape, 5),
        (masks.astype(np.uint8), VIDEO.shape, 5),
        (masks, VIDEO.shape, 5),
    ):
        np.testing.assert_array_equal(inputs.objects_of(given_, shape, ndim), masks)
    one = masks[:, :, 0]
    for given_ in (labels[:, 0], one):
        np.testing.assert_array_equal(inputs.objects_of(given_, VIDEO[:, :1].shape, 4), one[:, :, None])
    for given_ in (labels[0, 0], one[0]):
        np.testing.assert_array_equal(inputs.objects_of(given_, VIDEO[:1, :1].shape, 3), one[:1, :, None])


@pytest.mark.parametrize(
    "masks, text",
    [
        (np.zeros((2, 3, 16, 24), bool), "must be [2, K, 4, 16, 24] for these images"),
        (np.zeros((1, 3, 4, 16, 24), bool), "shape (1, 3, 4, 16, 24): must be [2, K, 4, 16, 24]"),
        (np.zeros((2, 3, 4, 16, 16), bool), "must be [2, K, 4, 16, 24]"),
        (np.zeros((2, 3, 4, 16, 24)), "dtype float64: must be bool, or 0 and 1"),
        (np.full((2, 3, 4, 16, 24), 255), "must be bool, or 0 and 1"),
        (np.full((2, 4, 16, 24), -1), "labels down to -1"),
        (np.full((2, 4, 16, 24), 10**6), "labels up to 1000000: at most 4096"),
    ],
)
def test_masks_that_cannot_be_meant(masks, text):
    assert text in refused(inputs.objects_of, masks, VIDEO.shape, 5)


def test_which_objects_are_removed():
    for given_ in (1, [1], (1,), np.array([1]), np.int64(1), [[1], [1]], np.array([[1], [1]])):
        assert inputs.chosen(given_, 2, 3) == [[1], [1]], given_
    assert inputs.chosen([[2, 0], [1]], 2, 3) == [[0, 2], [1]]
    for given_, text in (
        ([], "names no object"),
        ([0, 1, 0], "remove = [0, 1, 0]: object 0 is named twice"),
        ([[0], [2, 2]], "remove[1] = [2, 2]: object 2 is named twice"),
        ([[0], []], "remove[1]: names no object"),
        (3, "remove = 3: object 3 is not in masks, which has 3 (from 0)"),
        ([0, -1], "object -1 is not in masks"),
        ([[0], [5]], "remove[1] = [5]"),
        ([[0]], "1 lists for 2 scenes"),
        ([True, False, True], "must be whole numbers"),
        (0.5, "must be whole numbers"),
        (None, "remove"),
        ("first", "must be whole numbers"),
        ([[[0]], [[1]]], "must be whole numbers"),
    ):
        assert text in refused(inputs.chosen, given_, 2, 3), given_


def test_objects_that_cannot_be_removed():
    masks = np.zeros((1, 4, 2, 16, 16), bool)
    masks[0, :3, 1, 0, 9] = True
    found = inputs.taken_away(masks, [[0, 2]], 3, CLIPS)
    assert found.shape == (1, 3, 4)
    np.testing.assert_array_equal(found[0], [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    assert "object 3 of scene 0 has no pixel" in refused(inputs.taken_away, masks, [[3]], 3, CLIPS)
    assert "trained to remove 2 at most" in refused(inputs.taken_away, masks, [[0, 1, 2]], 2, CLIPS)
    assert inputs.taken_away(masks, [[0, 1, 2]], 0, CLIPS).shape == (1, 3, 4)


KINDS = st.sampled_from([np.uint8, np.int16, np.float32, bool, np.float64, np.complex64, "U3", "M8[s]", object])
ANY = KINDS.flatmap(
    lambda kind: (
        arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=4))
        if kind is not object
        else st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
    )
)


@settings(max_examples=150, deadline=None)
@given(ANY)
def test_whatever_comes_is_used_or_refused_in_one_line(value):
    calls = (
        lambda: inputs.pixels(value, Takes(1, 1, True)),
        lambda: inputs.objects_of(value, (2, 1, 3, 4, 3), 4),
        lambda: inputs.chosen(value, 2, 3),
    )
    for call in calls:
        try:
            found = call()
        except InputError as error:
            assert "\n" not in str(error)
            continue
        if isinstance(found, list):
            assert len(found) == 2 and all(0 <= number < 3 for each in found for number in each)
        else:
            assert found.ndim == 5 and found.dtype in (np.uint8, np.float32, bool)


BANDS = inputs.Takes(4, 1, False, channels=5, scale=1.0)


def test_values_of_other_channels():
    values = np.random.default_rng(0).normal(0, 300, (2, 8, 8, 5))
    found = inputs.pixels(values, BANDS)
    assert found.shape == (2, 1, 8, 8, 5) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], values.astype(np.float32))
    assert inputs.pixels(values.astype(np.int16), BANDS).dtype == np.float32
    values[0, 0, 0, :2] = np.nan, np.inf
    for bad, text in ((values, "2 values are not finite"), (np.moveaxis(values, -1, 1), "np.moveaxis.images, 1, -1.")):
        with pytest.raises(inputs.InputError, match=text):
            inputs.pixels(bad, BANDS)
    with pytest.raises(inputs.InputError, match="pixels are 0..255 here"):  # the same scale as pictures
        inputs.pixels(np.full((8, 8, 5), 0.5), BANDS._replace(scale=255.0))
