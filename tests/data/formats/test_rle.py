"""Run-length masks: equal to pycocotools on what it writes, and unharmed by what it would crash on."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from cjepa_jax.data.formats import rle
from cjepa_jax.errors import DataError


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """A mask of a few rectangles. Sometimes noise, empty or full."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool) if seed % 5 else rng.random((height, width)) < 0.5
    for _ in range(seed % 4):
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + height // 2 + 1, left : left + width // 2 + 1] ^= True
    return mask


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (5, 8), (480, 640)])
def test_round_trip_and_the_reference(size):
    for seed in range(12):
        mask = blobs(seed, *size) | (seed == 11)
        stored = rle.encode(mask)
        assert stored == json.loads(json.dumps(stored)) and stored["size"] == list(size)
        assert (rle.decode(stored, *size, "here") == mask).all()
        reference = coco.decode({"size": size, "counts": stored["counts"].encode()})
        assert (reference.astype(bool) == mask).all()


def test_list_of_runs():
    mask = rle.decode({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3, "here")
    assert (mask == [[0, 1, 0], [1, 0, 0]]).all() and mask.dtype == bool
    assert not rle.decode({"size": [2, 3], "counts": [6]}, 2, 3, "here").any()
    assert rle.decode({"size": [2, 3], "counts": [0, 6]}, 2, 3, "here").all()


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text(st.sampled_from([chr(c) for c in range(48, 112)]), max_size=40)))
def test_hostile_texts_are_refused_or_are_masks(text):
    """Every text is a mask of the frame or one DataError. What passes is what the reference reads."""
    try:
        mask = rle.decode({"size": [4, 5], "counts": text}, 4, 5, "here")
    except DataError as error:
        assert str(error).startswith("here: ") and "\n" not in str(error)
    else:
        assert (coco.decode({"size": [4, 5], "counts": text.encode()}) == mask).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 30), st.data())
def test_damaged_texts(seed, data):
    """One character of a good text changed, cut or doubled."""
    text = rle.encode(blobs(seed, 12, 9))["counts"]
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.sampled_from([chr(c) for c in range(40, 120)] + ["", text[at] * 2]))
    hostile = {"size": [12, 9], "counts": text[:at] + char + text[at + 1 :]}
    try:
        assert rle.decode(hostile, 12, 9, "here").shape == (12, 9)
    except DataError:
        pass


@pytest.mark.parametrize(
    "bad, message",
    [
        ([], "needs size and counts"),
        ({"size": [4, 5]}, "needs size and counts"),
        ({"size": [400, 500], "counts": "0"}, r"size is \[400, 500\], its frame's \[4, 5\]"),
        ({"size": [5, 4], "counts": [20]}, r"size is \[5, 4\]"),
        ({"size": "x" * 999, "counts": [20]}, "size is x+,"),
        ({"size": [4, 5], "counts": None}, "text or a list"),
        ({"size": [4, 5], "counts": [1.5, 18.5]}, "whole numbers"),
        ({"size": [4, 5], "counts": [True, 19]}, "whole numbers"),
        ({"size": [4, 5], "counts": [1] * 22}, "at most 21"),
        ({"size": [4, 5], "counts": [-5, 25]}, r"outside 0..20"),
        ({"size": [4, 5], "counts": [2**70]}, r"outside 0..20"),
        ({"size": [4, 5], "counts": [20, 20]}, "cover 40 pixels, the frame has 20"),
        ({"size": [4, 5], "counts": []}, "cover 0 pixels"),
        ({"size": [4, 5], "counts": ""}, "cut short"),
        ({"size": [4, 5], "counts": "P"}, "cut short"),
        ({"size": [4, 5], "counts": "o" * 30 + "0"}, "a number"),
        ({"size": [4, 5], "counts": "1" * 22}, "more numbers"),
        ({"size": [4, 5], "counts": "1" * 10**6}, "1000000 characters"),
        ({"size": [4, 5], "counts": "ooooo0"}, "outside 0..20"),
        ({"size": [4, 5], "counts": "é"}, "cut short"),
        ({"size": [4, 5], "counts": "\ud800"}, "cut short"),
        ({"size": [[4], [5, 6]], "counts": "d0"}, "size is"),
    ],
)
def test_bad_masks(bad, message):
    with pytest.raises(DataError, match=f"^file.json: mask 3: .*{message}"):
        rle.decode(bad, 4, 5, "file.json: mask 3")


def test_polygons():
    mask = rle.draw([[1, 1, 4, 1, 4, 3, 1, 3], [5, 0, 6, 0, 6, 1, 5, 1]], 5, 8, "here")
    expected = np.zeros((5, 8), bool)
    expected[1:3, 1:4] = expected[0, 5] = True
    assert (mask == expected).all() and mask.dtype == bool
    assert not rle.draw([], 5, 8, "here").any()


@pytest.mark.parametrize(
    "bad, message",
    [
        ([[0, 0, 1]], "pairs"),
        ([["a", 0, 1, 0, 1, 1]], "pairs"),
        ([7], "pairs"),
        ([["0", "0", "1", "0", "1", "1"]], "pairs"),
        ([[False, 0, 1, 0, 1, 1]], "pairs"),
        ([[[0, 0], [1, 0], [1, 1]]], "pairs"),
        (["001011"], "pairs"),
        ([[0, 0, 1, 0, 10**400, 1]], "pairs"),
        ([[0, 0, 1, 0]], "2 corners"),
        ([[0, 0, 1, 0, 1e12, 1]], "far outside its frame of 8x5"),
        ([[0, 0, 1, 0, 1, 1], [0, 0, 1, 0, float("nan"), 1]], "polygon 1 is far"),
        ([[0, 0, 8, 0, 8, 10.5]], "far"),
        ([[-8.5, 0, 8, 0, 8, 5]], "far"),
    ],
)
def test_bad_polygons(bad, message):
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        rle.draw(bad, 5, 8, "here")
