"""From many proposals to a few masks that do not overlap. NumPy."""

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
    """Non-maximum suppression of boxes [N,4]: the places of those to keep, by falling score.

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
    """Give every pixel of masks bool [N,H,W] to one mask alone: the smallest that has it, the later one of equals.

    Segmenters offer an object and its parts as well as what stands before it. Were the larger to win, whatever lies
    wholly inside another mask would vanish; so it keeps its pixels, and the larger is what is left to see of it.
    """
    owner = np.full(masks.shape[1:], -1)
    for k in np.argsort(-masks.sum((1, 2)), kind="stable"):
        owner[masks[k]] = k
    return owner[None] == np.arange(len(masks))[:, None, None]


def left(masks: np.ndarray, least: float) -> np.ndarray:
    """The places of those of masks bool [N,H,W] that hold at least this share of the pixels, and at least one: smaller
    ones may have taken all of it."""
    return np.flatnonzero(masks.any((1, 2)) & (masks.mean((1, 2)) >= least))
