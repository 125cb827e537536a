"""Pixels to tokens: normalisation, order, sizes."""

import jax
import numpy as np
import pytest

from cjepa_jax.models import tokenizers
from cjepa_jax.positions import sincos


def test_pixels_are_normalised_by_the_stated_constants():
    pixels = np.array([[0, 0, 0], [255, 255, 255], [10, 20, 30]], np.uint8)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(tokenizers.normalise(pixels), expected, atol=1e-6)


@pytest.mark.parametrize("frames, tubelet", [(1, 2), (4, 2), (6, 3)])
def test_tokens_match_loops(frames, tubelet):
    patch, width = 4, 8
    video = np.random.default_rng(0).integers(0, 256, (2, frames, 8, 12, 3), np.uint8)
    module = tokenizers.Tokenizer(patch, tubelet, width)
    params = jax.jit(module.init)(jax.random.key(0), video)["params"]
    out, _ = jax.jit(module.apply)({"params": params}, video)
    times, rows, cols = grid = tokenizers.grid(video.shape, patch, tubelet)
    depth = 1 if frames == 1 else tubelet
    assert grid == (frames // depth, 2, 3) and out.shape == (2, times * rows * cols, width)
    kernel, bias = (np.asarray(params["projection"][name], np.float64) for name in ("kernel", "bias"))
    pixels, codes = np.asarray(tokenizers.normalise(video), np.float64), sincos(grid, width)
    for n, (t, r, c) in enumerate(np.ndindex(*grid)):  # time-major, then row-major
        box = pixels[:, t * depth : (t + 1) * depth, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
        np.testing.assert_allclose(out[:, n], box.reshape(2, -1) @ kernel + bias + codes[n], atol=1e-5)


@pytest.mark.parametrize("frames", [1, 4])
def test_boxes_become_the_video_again(frames):
    video = np.random.default_rng(0).integers(0, 256, (2, frames, 8, 12, 3), np.uint8)
    boxes = tokenizers.patchify(video, 4, 2)
    assert boxes.shape == (2, 6 * max(1, frames // 2), min(frames, 2) * 4 * 4 * 3)
    np.testing.assert_array_equal(tokenizers.unpatchify(boxes, video.shape, 4, 2), video)


@pytest.mark.parametrize("shape, name", [((3, 8, 8, 3), "frames"), ((2, 9, 8, 3), "height"), ((2, 8, 10, 3), "width")])
def test_sizes_that_do_not_divide_are_named(shape, name):
    with pytest.raises(ValueError, match=f"{name} = .* multiple"):
        tokenizers.grid(shape, 4, 2)


def test_sixteen_frames_of_224_are_1568_tokens():
    assert np.prod(tokenizers.grid((16, 224, 224, 3), 16, 2)) == 1568
    assert np.prod(tokenizers.grid((1, 224, 224, 3), 16, 2)) == 196


def test_values_of_other_channels_have_their_own_scale():
    values = np.random.default_rng(0).normal(3, 2, (2, 4, 5)).astype(np.float32)
    mean, std = (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 1.0, 2.0, 1.0)
    expected = (values.astype(np.float64) / 10 - mean) / std
    np.testing.assert_allclose(tokenizers.normalise(values, mean, std, 10.0), expected, atol=1e-6)
    with pytest.raises(ValueError, match="1 channels: must be 3"):  # it would be repeated
        tokenizers.normalise(values[..., :1])
