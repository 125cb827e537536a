"""Selects a few masks that do not overlap from many proposals. NumPy."""

import numpy as np


def boxes(masks: np.ndarray) -> np.ndarray:
    """The boxes of masks bool [N,H,W], none of them empty: int64 [N,4], left, top, right, bottom (past the end)."""
    sides = []
    for axis in (1, 2):  # over rows: columns, then over columns: rows
        line = masks.any(axis)
        sides.append((line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)))
    (left, right), (top, bottom) = sides
    return np.stack([left, top, right, bottom], 1)


def distinct(boxes: np.ndarray, scores: np.ndarray, most: float) -> np.ndarray:
    """Non-maximum suppression of boxes [N,4]: the indices of those to keep, by decreasing score.

    From the highest score [N] on, a box is left out if its intersection over union with one that is kept exceeds
    `most`. Ties keep their order.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[left, :2]), np.minimum(boxes[first, 2:], boxes[left, 2:])
        both = np.clip(high - low, 0, None).prod(1)
        left = left[both <= most * (area[first] + area[left] - both)]
    return np.array(kept, np.int64)


def share_out(masks: np.ndarray) -> np.ndarray:
    """Gives every pixel of masks bool [N,H,W] to one mask: the smallest that contains it, the later one of equals.

    Segmenters return an object, its parts, and objects in front of it. If the larger mask won, a mask entirely inside
    another would vanish. So the smaller mask keeps its pixels, and the larger one gets the rest.
    """
    owner = np.full(masks.shape[1:], -1)
    for k in np.argsort(-masks.sum((1, 2)), kind="stable"):
        owner[masks[k]] = k
    return owner[None] == np.arange(len(masks))[:, None, None]


def left(masks: np.ndarray, least: float) -> np.ndarray:
    """The indices of the masks, bool [N,H,W], that hold at least this share of the pixels, and at least one pixel,
    because smaller masks may have taken all of them."""
    return np.flatnonzero(masks.any((1, 2)) & (masks.mean((1, 2)) >= least))
