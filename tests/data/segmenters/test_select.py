"""The choice among proposals, against its definition."""

import numpy as np

from cjepa_jax.data.segmenters import select


def rectangles(*corners: tuple[int, int, int, int], size: int = 20) -> np.ndarray:
    masks = np.zeros((len(corners), size, size), bool)
    for mask, (left, top, right, bottom) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_boxes():
    corners = [(0, 0, 20, 20), (3, 5, 4, 6), (2, 7, 11, 20)]
    assert (select.boxes(rectangles(*corners)) == corners).all()
    assert select.boxes(rectangles()).shape == (0, 4)


def test_distinct_keeps_the_best_of_those_that_are_the_same():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [12, 12, 20, 20], [0, 0, 10, 10]])
    scores = np.array([0.5, 0.9, 0.1, 0.2, 0.5])
    assert select.distinct(boxes, scores, 0.7).tolist() == [1, 3, 2]
    assert select.distinct(boxes, scores, 0.95).tolist() == [1, 0, 3, 2]
    assert select.distinct(boxes, np.ones(5), 0.7).tolist() == [0, 2, 3]
    assert select.distinct(boxes[:0], scores[:0], 0.7).tolist() == []


def test_every_pixel_goes_to_the_smallest_mask():
    whole, part, beside = masks = rectangles((0, 0, 12, 12), (2, 2, 6, 6), (10, 0, 20, 5))
    out = select.share_out(masks)
    assert (out.sum(0) == masks.any(0)).all()
    assert (out[1] == part).all() and (out[2] == beside).all() and (out[0] == whole & ~part & ~beside).all()
    assert (select.share_out(masks[[2, 0, 1]]) == out[[2, 0, 1]]).all()
    assert select.share_out(np.stack([part, part])).sum((1, 2)).tolist() == [0, 16]
    assert select.share_out(masks[:0]).shape == (0, 20, 20)


def test_a_mask_that_others_cover_is_left_out_even_if_any_area_will_do():
    masks = np.zeros((3, 10, 10), bool)
    masks[0], masks[1, :5], masks[2, 5:] = True, True, True
    shared = select.share_out(masks)
    assert not shared[0].any()
    assert select.left(shared, 0.0).tolist() == [1, 2] and select.left(shared, 0.6).tolist() == []
    assert select.left(masks[:0], 0.0).tolist() == []
