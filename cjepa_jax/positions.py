"""Sin-cos position codes for any grid."""

import numpy as np
from jaxtyping import Float, Float32, Real


def axis_code(positions: Real[np.ndarray, " N"], width: int) -> Float[np.ndarray, "N {width}"]:
    """Sines then cosines of `positions` [N] at width/2 frequencies 10000^(-i / (width/2)): [N, width].

    An odd `width` gets a zero in its last place.
    """
    half = width // 2
    angle = positions[:, None] / 10000.0 ** (np.arange(half) / max(half, 1))
    return np.concatenate([np.sin(angle), np.cos(angle), np.zeros((len(positions), width - 2 * half))], axis=1)


def sincos(grid: tuple[int, int, int], width: int) -> Float32[np.ndarray, "N {width}"]:
    """Fixed codes of a (times, rows, cols) grid, time-major then row-major: [N, width] float32.

    An image (times = 1) gives half of the width to rows and half to columns (Vision Transformer practice, as in MAE);
    a clip a quarter to times and three eighths each to rows and columns, each share even.
    """
    times, rows, cols = grid
    time_width = 0 if times == 1 else 2 * (width // 8)
    row_width = 2 * ((width - time_width) // 4)
    t, r, c = (axis.ravel() for axis in np.meshgrid(range(times), range(rows), range(cols), indexing="ij"))
    codes = [axis_code(t, time_width), axis_code(r, row_width), axis_code(c, width - time_width - row_width)]
    return np.concatenate(codes, axis=1).astype(np.float32)
