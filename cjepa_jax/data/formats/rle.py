"""Masks as COCO stores them: run lengths down the columns, first run background, and polygons.

The format is that of pycocotools (github.com/cocodataset/cocoapi, common/maskApi.c): {"size": [H, W], "counts": ...}.
`counts` is a list of run lengths, or a text of them. A character holds 5 bits, starting at "0", lowest first. Bit 5
means "more to come", and bit 4 of the last character is the sign. From the fourth number on, a number is the difference
to the number two before it.

pycocotools writes these texts and draws the polygons. Texts from a file are read here and not by pycocotools, which
checks neither where they end nor that the runs fit into the frame.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from cjepa_jax.errors import DataError

LONGEST = 7  # characters of one number: 7 x 5 bits hold every 32-bit run
MOST_POLYGONS = 1000  # of one object (COCO's have some dozens)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """A mask bool [H,W] -> {"size": [H, W], "counts": text}, ready for JSON."""
    text = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")
    return {"size": [int(side) for side in mask.shape], "counts": text}


def decode(rle: Mapping[str, Any], height: int, width: int, where: str) -> np.ndarray:
    """Run lengths, as a text or a list -> bool [height,width].

    Raises DataError, beginning with `where`, if they are not run lengths of a frame of exactly this size.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= rle.keys():
        raise DataError(f"{where}: a run-length mask needs size and counts")
    if rle["size"] not in ([height, width], (height, width)):
        raise DataError(f"{where}: the mask's size is {str(rle['size'])[:40]}, its frame's [{height}, {width}]")
    counts, most = rle["counts"], height * width + 1
    if isinstance(counts, str | bytes):
        counts = _numbers(counts, most, where)
    elif not isinstance(counts, list) or len(counts) > most or {type(run) for run in counts} - {int}:
        raise DataError(f"{where}: counts must be a text or a list of at most {most} whole numbers")
    if len(counts) and not (0 <= min(counts) and max(counts) < most):
        raise DataError(f"{where}: counts hold a run outside 0..{most - 1}, the pixels of the frame")
    runs = np.asarray(counts, np.int64)
    if runs.sum() != height * width:
        raise DataError(f"{where}: counts cover {runs.sum()} pixels, the frame has {height * width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _numbers(text: str | bytes, most: int, where: str) -> np.ndarray:
    """The run lengths in a text, int64 [at most `most`]. Values lie between -2^40 and 2^55."""
    if len(text) > LONGEST * most:
        raise DataError(f"{where}: counts hold {len(text)} characters, a frame of {most - 1} pixels fewer")
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    data = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(data & 32 == 0)
    if data.size == 0 or data.min() < 0 or data.max() > 63 or not last.size or last[-1] != data.size - 1:
        raise DataError(f"{where}: counts are not a run-length text, or cut short")
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > LONGEST or len(lengths) > most:
        raise DataError(f"{where}: counts hold a number, or more numbers, than a frame of {most - 1} pixels can need")
    place = np.arange(data.size) - np.repeat(last - lengths + 1, lengths)
    numbers = np.add.reduceat((data & 31) << (5 * place), last - lengths + 1)
    numbers -= np.where(data[last] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def draw(polygons: Sequence[Sequence[float]], height: int, width: int, where: str) -> np.ndarray:
    """The union of polygons [x0, y0, x1, y1, ...] in pixels -> bool [height,width], as pycocotools rasterises them.

    What lies outside the frame is cut off. A polygon that covers no pixel, as small ones may not, gives an empty mask.
    Raises DataError, beginning with `where`, for an invalid polygon, and for a corner that is farther outside than the
    frame is long: then it is a polygon of another image.
    """
    if len(polygons) > MOST_POLYGONS:
        raise DataError(f"{where}: {len(polygons)} polygons, at most {MOST_POLYGONS} are read")
    size, checked = np.array([width, height]), []
    for number, polygon in enumerate(polygons):
        try:
            if not isinstance(polygon, Sequence) or {type(number) for number in polygon} - {int, float}:
                raise TypeError  # NumPy would read texts, truth values and nested lists as numbers too
            corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{where}: polygon {number} is not a list of x, y pairs") from None
        if len(corners) < 3:
            raise DataError(f"{where}: polygon {number} has {len(corners)} corners, at least 3")
        if not ((corners >= -size) & (corners <= 2 * size)).all():  # false for NaN as well
            raise DataError(f"{where}: polygon {number} is far outside its frame of {width}x{height} pixels")
        checked.append(corners.ravel().tolist())
    if not checked:
        return np.zeros((height, width), bool)
    # Its rasteriser rounds negative numbers another way: what is left of the frame or above is moved into a larger one.
    left, top = (max(0, -math.floor(min(min(corners[axis::2]) for corners in checked))) for axis in (0, 1))
    moved = [[number + (left, top)[place % 2] for place, number in enumerate(corners)] for corners in checked]
    found = coco.merge(coco.frPyObjects(moved, height + top, width + left))
    return coco.decode(found).astype(bool)[top:, left:]
