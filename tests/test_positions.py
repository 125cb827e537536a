"""Sin-cos codes: the formula, the token order, that no two places look alike. Rotations. Resizing as PyTorch does."""

import numpy as np
import pytest

from cjepa_jax import positions
from cjepa_jax.errors import ConfigError


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
    expected = np.concatenate([code(1, 16), code(2, 24), code(3, 24)])  # a quarter and twice three eighths
    np.testing.assert_allclose(codes[1, 2, 3], expected, atol=1e-6)


def test_images_split_the_width_between_rows_and_columns():
    codes = positions.sincos((1, 3, 5), 12).reshape(3, 5, 12)
    np.testing.assert_allclose(codes[2, 4], np.concatenate([code(2, 6), code(4, 6)]), atol=1e-6)
    golden = [0, 0, 1, 1, 0.841471, 0.01, 0.540302, 0.99995]  # as V-JEPA's code. I-JEPA's has columns before rows
    np.testing.assert_allclose(positions.sincos((1, 3, 3), 8)[1], golden, atol=1e-6)


@pytest.mark.parametrize(
    "tile, golden",
    [
        (False, [-1.272233, -1.838865, 2.41577, 4.377677, 4.961116, 6.032191]),
        (True, [-1.272233, 2.119439, 2.974084, -3.53661, 4.118815, 6.032191]),
    ],
)
def test_rotations_are_those_of_v_jepa_2_1_and_2(tile, golden):
    """1, 2, ..., 6 at place 3, by formulas written from the published descriptions."""
    x = np.arange(1.0, 7.0)
    (turn,) = positions.axis_rotation(np.array([3]), 6, tile)
    np.testing.assert_allclose(x * turn[0] + x.reshape(3, 2)[:, ::-1].ravel() * turn[1], golden, atol=1e-6)


@pytest.mark.parametrize("width, share", [(64, 20), (80, 26), (32, 10), (24, 8), (6, 2)])
def test_heads_are_split_among_times_rows_and_cols(width, share):
    grid, tokens = (2, 3, 4), 24
    rotations = positions.rotations(grid, width)
    assert rotations.shape == (tokens, 2, 3 * share)
    for axis, places in enumerate(np.indices(grid).reshape(3, -1)):
        angles = [[p * 10000.0 ** (-2 * (i // 2) / share) for i in range(share)] for p in places]
        signs = [(-1) ** (i + 1) for i in range(share)]
        expected = np.stack([np.cos(angles), np.sin(angles) * signs], axis=1)
        np.testing.assert_allclose(rotations[..., axis * share : (axis + 1) * share], expected, atol=1e-6)


def test_a_reference_grid_scales_rows_and_cols_but_not_times():
    small = positions.rotations((4, 3, 1), 18, reference=(1, 5, 9)).reshape(4, 3, 2, 18)
    large = positions.rotations((4, 5, 9), 18).reshape(4, 5, 9, 2, 18)
    np.testing.assert_allclose(small, large[:, ::2, 0], atol=1e-6)
    np.testing.assert_array_equal(positions.rotations((2, 3, 4), 18, reference=(7, 3, 4)),
                                  positions.rotations((2, 3, 4), 18))  # fmt: skip


def test_heads_too_narrow_to_turn_are_refused():
    with pytest.raises(ConfigError, match="^positions: heads of width 5 are too narrow for rope, which needs 6$"):
        positions.rotations((1, 2, 2), 5)


GRIDS = [((1, 4, 6), (1, 7, 3)), ((1, 3, 3), (1, 8, 8)), ((1, 1, 2), (1, 3, 3)), ((2, 3, 4), (3, 5, 2)),
         ((4, 4, 4), (1, 2, 8)), ((1, 14, 14), (1, 28, 28)), ((8, 14, 14), (4, 24, 24))]  # fmt: skip


@pytest.mark.needs("torch")
@pytest.mark.parametrize("old, new", GRIDS, ids=str)
def test_a_table_is_resized_as_torch_does(old, new):
    import torch

    table = np.random.default_rng(0).normal(size=(*old, 3)).astype(np.float32)
    found = np.einsum("ta,rb,cd,abdk->trck", *positions.resizing(old, new), table, optimize=True)
    x = torch.tensor(table).permute(3, 0, 1, 2)[None]
    if old[0] == new[0] == 1:
        expected = torch.nn.functional.interpolate(x[:, :, 0], new[1:], mode="bicubic", align_corners=False)[:, :, None]
    else:
        expected = torch.nn.functional.interpolate(x, new, mode="trilinear", align_corners=False)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 3, 0), atol=1e-5)


def test_a_table_is_resized_linearly_in_what_is_linear():
    """Weights that add to 1, and a ramp that stays one away from the edges: a clip's exactly, an image's nearly."""
    for old, new in GRIDS:
        for matrix, before, after in zip(positions.resizing(old, new), old, new, strict=True):
            np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
            centres = (np.arange(after) + 0.5) * before / after - 0.5
            inner = (centres >= 1) & (centres <= before - 2)
            np.testing.assert_allclose(
                (matrix @ np.arange(before))[inner], centres[inner], atol=1e-5 if old[0] > 1 else 0.06
            )
    assert all((m == np.eye(len(m))).all() for grid in ((1, 3, 4), (2, 3, 4)) for m in positions.resizing(grid, grid))
    np.testing.assert_array_equal(positions.resizing((4, 2, 2), (1, 2, 2))[0], [[0, 0.5, 0.5, 0]])  # an image's time


def test_a_clip_in_the_table_of_images_is_refused():
    with pytest.raises(ConfigError, match=r"^position_grid = \(1, 4, 4\): a table for images, .* has 2 times$"):
        positions.resizing((1, 4, 4), (2, 4, 4))
