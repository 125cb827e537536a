"""Masks of drawn objects, counted by hand."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import draw

SIZE = 16


def box(left, right):
    """A box from column `left` to `right` in every row, per frame: [T,4,2] in fixed-point pixels."""
    corners = [[(a, 0), (b, 0), (b, SIZE - 1), (a, SIZE - 1)] for a, b in zip(left, right, strict=True)]
    return np.array(corners, np.int32) << draw.SHIFT


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_an_object_at_rest_is_in_all_frames_before_or_behind_a_moving_one(order):
    rests, moves = box([4], [7]), box([0, 6], [3, 9])
    visible, amodal = draw.masks([[rests], [moves]], order, 2, SIZE)
    columns = np.arange(SIZE)
    whole = np.stack([[(4 <= columns) & (columns <= 7)] * 2, [columns <= 3, (6 <= columns) & (columns <= 9)]])
    np.testing.assert_array_equal(amodal[:, :, 5], whole)
    first, last = order
    np.testing.assert_array_equal(visible[last, :, 5], whole[last])
    np.testing.assert_array_equal(visible[first, :, 5], whole[first] & ~whole[last])


def test_masks_of_an_object_that_is_not_drawn_are_empty():
    visible, amodal = draw.masks([[box([4], [7])], [box([0, 6], [3, 9])]], [1], 2, SIZE)
    assert not visible[0].any() and not amodal[0].any() and amodal[1].any()
