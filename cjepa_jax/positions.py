"""Position encodings for any token grid: sin-cos codes, rotary embeddings, resizing of a table of codes."""

import numpy as np
from jaxtyping import Float, Float32, Real

from cjepa_jax.errors import ConfigError


def axis_code(positions: Real[np.ndarray, " N"], width: int) -> Float[np.ndarray, "N {width}"]:
    """Sines then cosines of `positions` [N] at width/2 frequencies 10000^(-i / (width/2)): [N, width].

    If `width` is odd, the last column is zero.
    """
    half = width // 2
    angle = positions[:, None] / 10000.0 ** (np.arange(half) / max(half, 1))
    return np.concatenate([np.sin(angle), np.cos(angle), np.zeros((len(positions), width - 2 * half))], axis=1)


def sincos(grid: tuple[int, int, int], width: int) -> Float32[np.ndarray, "N {width}"]:
    """Fixed codes of a (times, rows, cols) grid, time-major then row-major: [N, width] float32.

    For an image (times = 1), half of the width encodes rows and half encodes columns, as in MAE. For a clip, a quarter
    encodes times, and rows and columns get three eighths each. Each share is even.
    """
    times, rows, cols = grid
    time_width = 0 if times == 1 else 2 * (width // 8)
    row_width = 2 * ((width - time_width) // 4)
    t, r, c = places(grid)
    codes = [axis_code(t, time_width), axis_code(r, row_width), axis_code(c, width - time_width - row_width)]
    return np.concatenate(codes, axis=1).astype(np.float32)


def places(grid: tuple[int, int, int]) -> list[Real[np.ndarray, " N"]]:
    """The time, row and column of each token, [N] each, time-major then row-major."""
    return [axis.ravel() for axis in np.meshgrid(*map(np.arange, grid), indexing="ij")]


def axis_rotation(
    positions: Real[np.ndarray, " N"], width: int, tile: bool = False
) -> Float[np.ndarray, "N 2 {width}"]:
    """Factors r [N, 2, width] of a rotary embedding of x [N, width]: x * r[:, 0] + swapped(x) * r[:, 1].

    Neighbouring elements of x form pairs. Pair i turns by position * 10000^(-i / (width/2)). The second factor carries
    the sign of (-x1, x0). `tile` orders the angles as 0, 1, 2, ..., 0, 1, 2, ... although pairs are neighbours, as in
    the released V-JEPA 2. That is not a rotation, and attention then depends on absolute positions.
    """
    angle = positions[:, None] / 10000.0 ** (np.arange(width // 2) / (width // 2))
    angle = np.tile(angle, 2) if tile else np.repeat(angle, 2, axis=1)
    return np.stack([np.cos(angle), np.sin(angle) * np.tile([-1.0, 1.0], width // 2)], axis=1)


def rotations(
    grid: tuple[int, int, int], width: int, tile: bool = False, reference: tuple[int, ...] = ()
) -> Float32[np.ndarray, "N 2 M"]:
    """`axis_rotation` by time, row and column for heads of `width`: [N, 2, M] float32.

    Each axis gets 2 * (width // 3 // 2) elements of a head, M in total. The rest is not rotated (64 = 3 x 20 + 4).
    A `reference` grid (times, rows, cols) scales rows and columns to its span, p * (ref - 1) / (n - 1), as V-JEPA 2.1
    does. Raises: ConfigError for heads that are too narrow.
    """
    share = 2 * (width // 3 // 2)
    if not share:
        raise ConfigError(f"positions: heads of width {width} are too narrow for rope, which needs 6")
    rows, cols = ((ref - 1) / max(n - 1, 1) for ref, n in zip((reference or grid)[1:], grid[1:], strict=True))
    scaled = zip(places(grid), (1.0, rows, cols), strict=True)
    turned = [axis_rotation(axis * scale, share, tile) for axis, scale in scaled]
    return np.concatenate(turned, axis=2).astype(np.float32)


def resizing(old: tuple[int, int, int], new: tuple[int, int, int]) -> list[Float32[np.ndarray, "_ _"]]:
    """Interpolation matrices [new, old], one per axis, from one grid of position codes to another.

    Bicubic for images (both grids have one time), as in I-JEPA. Trilinear for clips, as in V-JEPA. Both use half-pixel
    centres (torch.nn.functional.interpolate with align_corners=False). An image given to a model of clips gets the
    codes of the middle time. The originals repeat the image as a still clip instead.
    Raises: ConfigError for a clip given to a model of images, whose codes do not distinguish times.
    """
    if old[0] == 1 < new[0]:
        raise ConfigError(f"position_grid = {old}: a table for images, but the input has {new[0]} times")
    axis = _cubic if old[0] == new[0] == 1 else _linear
    return [axis(*sizes) for sizes in zip(old, new, strict=True)]


def _linear(old: int, new: int) -> Float32[np.ndarray, "{new} {old}"]:
    source = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
    low = np.floor(source)
    return _weights(low[:, None] + [0, 1], np.stack([1 - source + low, source - low], axis=1), old)


def _cubic(old: int, new: int, a: float = -0.75) -> Float32[np.ndarray, "{new} {old}"]:
    """Cubic convolution (Keys 1981), with PyTorch's value of a."""
    source = (np.arange(new) + 0.5) * old / new - 0.5
    taps = np.floor(source)[:, None] + [-1, 0, 1, 2]
    x = np.abs(source[:, None] - taps)
    near, far = ((a + 2) * x - (a + 3)) * x**2 + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return _weights(taps, np.where(x <= 1, near, far), old)


def _weights(taps: np.ndarray, values: np.ndarray, old: int) -> np.ndarray:
    """A matrix with these values at these columns. Columns outside the grid are clamped to its edge."""
    matrix = np.zeros((len(taps), old))
    np.add.at(matrix, (np.arange(len(taps))[:, None], np.clip(taps, 0, old - 1).astype(int)), values)
    return matrix.astype(np.float32)
