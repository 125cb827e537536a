"""Marks are where they should be, and only there."""

import numpy as np
import pytest

from cjepa_jax.data.drawing import marks

RED = (255, 0, 0)


def square(size, top, left, side):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def grey(size):
    return np.full((size, size, 3), 128, np.uint8)


@pytest.mark.parametrize("factor", [1, 4])
def test_an_outline_follows_its_mask_and_leaves_the_rest(factor):
    picture, mask = grey(24 * factor), square(24, 6, 8, 10)
    marks.outline(picture, mask, RED, 2)
    drawn = (picture != 128).any(-1)
    rows, columns = np.nonzero(drawn)
    box = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / factor
    assert np.abs(box - (6, 8, 16, 18)).max() <= 2
    assert not drawn[9 * factor : 13 * factor, 11 * factor : 15 * factor].any()  # its inside
    assert (picture == RED).all(-1).sum() > 20 * factor


def test_holes_are_outlined_and_a_single_pixel_is_not_lost():
    ring, dot = grey(96), grey(96)
    mask = square(24, 2, 2, 20)
    mask[8:16, 8:16] = False
    marks.outline(ring, mask, RED, 2)
    assert (ring[28:68, 28:68] == RED).all(-1).any()
    marks.outline(dot, square(24, 5, 5, 1), RED, 1)
    assert (dot != 128).any()
    marks.outline(empty := grey(96), square(24, 0, 0, 0), RED, 1)
    assert (empty == 128).all()


def test_hidden_patches_are_drawn_where_the_mask_says():
    picture = grey(64)
    cells = np.zeros((4, 4), bool)
    cells[1, 2] = cells[3, 3] = True
    marks.hatch(picture, cells, 6)
    touched = (picture != 128).any(-1)
    assert (touched == cells.repeat(16, 0).repeat(16, 1)).all()
    assert len(np.unique(picture[16:32, 32:48].reshape(-1, 3), axis=0)) == 2  # stripes on paler ground


def test_where_two_objects_touch():
    one, other = square(40, 10, 4, 12), square(40, 14, 16, 8)
    x, y = marks.touching(one, other)
    assert abs(x * 40 - 16) <= 1 and 12 <= y * 40 <= 24
    assert marks.touching(other, one) == pytest.approx((x, y), abs=0.1)


@pytest.mark.parametrize(
    ("top", "left", "side"), [(14, 1, "left"), (14, 30, "right"), (1, 14, "top"), (30, 14, "bottom")]
)
def test_a_wall_is_touched_at_the_nearest_border(top, left, side):
    x, y = marks.touching(square(40, top, left, 9))
    assert {"left": x < 0.05, "right": x > 0.95, "top": y < 0.05, "bottom": y > 0.95}[side]
    assert abs((y if side in ("left", "right") else x) - 18.5 / 40) < 0.06


def test_what_is_hidden_is_not_marked():
    nothing = np.zeros((16, 16), bool)
    assert marks.touching(nothing) is None
    assert marks.touching(square(16, 2, 2, 4), nothing) is None and marks.touching(nothing, ~nothing) is None


def test_a_ring_is_round_its_point():
    picture = grey(80)
    marks.ring(picture, (0.25, 0.75), 8, 2)
    rows, columns = np.nonzero((picture != 128).any(-1))
    assert abs(rows.mean() - 60) < 1 and abs(columns.mean() - 20) < 1
    assert (picture[60, 20] == 128).all() and {tuple(c) for c in picture.reshape(-1, 3)} >= {
        marks.LIGHT,
        marks.DARK,
    }


def test_frames_are_enlarged_sharply_and_reduced_smoothly():
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    large = marks.enlarge(frame, 10)
    assert large.shape == (12, 12, 3) and (large[::3, ::3] == frame).all() and (large[2::3, 2::3] == frame).all()
    assert marks.enlarge(large, 4).shape == (4, 4, 3)
