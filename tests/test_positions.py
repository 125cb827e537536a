"""Sin-cos codes: the formula, the token order, and that no two places look alike."""

import numpy as np
import pytest

from cjepa_jax import positions


def code(position, width):
    half = width // 2
    angle = [position / 10000 ** (i / half) for i in range(half)]
    return np.concatenate([np.sin(angle), np.cos(angle), np.zeros(width % 2)])


def test_axis_code_is_the_formula():
    for width in (2, 7, 12):
        expected = [code(p, width) for p in (0, 1, 13)]
        np.testing.assert_allclose(positions.axis_code(np.array([0, 1, 13]), width), expected, atol=1e-12)


@pytest.mark.parametrize("grid", [(1, 1, 2), (1, 3, 5), (2, 3, 2), (8, 14, 14), (1, 28, 28)])
@pytest.mark.parametrize("width", [16, 48, 50, 96, 384, 1280])
def test_any_grid_and_width(grid, width):
    codes = positions.sincos(grid, width)
    assert codes.shape == (np.prod(grid), width) and codes.dtype == np.float32
    assert np.abs(codes).max() <= 1 and (codes == positions.sincos(grid, width)).all()
    assert len(np.unique(codes.round(4), axis=0)) == len(codes)  # no two tokens share a code


def test_tokens_are_time_major_then_row_major():
    """A step along one axis changes that axis's share of the width and nothing else."""
    grid, width = (2, 3, 4), 64
    codes = positions.sincos(grid, width).reshape(*grid, width)
    shares = [np.flatnonzero((np.moveaxis(codes, axis, 0)[0] != np.moveaxis(codes, axis, 0)[1]).any((0, 1))) for axis in
              range(3)]  # fmt: skip
    assert [share.max() for share in shares] == sorted(share.max() for share in shares)  # time, rows, columns
    assert not set(shares[0]) & set(shares[1]) and not set(shares[1]) & set(shares[2])
    for axis, share in enumerate(shares):
        others = tuple(other for other in range(3) if other != axis)
        assert (np.ptp(codes[..., share], axis=others) == 0).all()


def test_images_split_the_width_between_rows_and_columns():
    codes = positions.sincos((1, 3, 5), 12).reshape(3, 5, 12)
    np.testing.assert_allclose(codes[2, 4], np.concatenate([code(2, 6), code(4, 6)]), atol=1e-6)
