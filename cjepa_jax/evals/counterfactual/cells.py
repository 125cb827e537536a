"""Pictures as cells of tokens, and features of a removal that need no model: places and local pixels."""

import numpy as np

from cjepa_jax.evals.counterfactual.pairs import Pairs

CELLS = 2  # a token's patch is cut into 2 x 2
BINS = 6  # of the distance to the removed object, in tokens: 0, 1, .., 5 and more
NEAR = 1.5  # tokens

Grid = tuple[int, int, int]


def colours(video: np.ndarray, grid: Grid) -> np.ndarray:
    """y of (E1): mean RGB of each token's cells over its tubelet, 0 .. 1: uint8 [n, T, H, W, 3] -> float32 [n, N, 12].

    A pixel on the border of two cells (patches of an odd size) counts for each cell by the area that lies in it.
    """
    n, frames, height, width, _ = video.shape
    times, rows, cols = grid
    y = video.reshape((n, times, frames // times, height, width, 3)).mean(2, dtype=np.float32)
    down, right = _means(height, rows * CELLS), _means(width, cols * CELLS)
    y = np.einsum("ah,nthwc,bw->ntabc", down, y, right, optimize=True) / 255
    y = y.reshape((n, times, rows, CELLS, cols, CELLS, 3)).transpose((0, 1, 2, 4, 3, 5, 6))
    return np.ascontiguousarray(y.reshape(n, times * rows * cols, CELLS * CELLS * 3), np.float32)


def pictures(values: np.ndarray, grid: Grid) -> np.ndarray:
    """`colours`' layout as pictures of cells: [n, N, 12] -> [n, times, 2 rows, 2 cols, 3]."""
    times, rows, cols = grid
    y = values.reshape((-1, times, rows, cols, CELLS, CELLS, 3)).transpose((0, 1, 2, 4, 3, 5, 6))
    return y.reshape(-1, times, rows * CELLS, cols * CELLS, 3)


def distances(touched: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Distances and offsets of all tokens from an object. It touches the tokens `touched`, bool [n, N].

    Returns: the Euclidean distance in the plane to the nearest token that the object touches at any time, [n, N], in
      tokens. Then the offset from the mean place of these tokens, [n, N, 2], as shares of the plane.
    """
    n, (times, rows, cols) = len(touched), grid
    place = np.stack(np.divmod(np.arange(rows * cols), cols), -1).astype(np.float32)
    apart = np.linalg.norm(place[:, None] - place, axis=-1)  # [plane, plane]
    ever = np.asarray(touched.reshape(n, times, -1).any(1))
    nearest = np.stack([apart[:, plane].min(1) for plane in ever])
    centre = np.stack([place[plane].mean(0) for plane in ever])
    offset = (place - centre[:, None]) / np.array([rows, cols], np.float32)
    return np.tile(nearest, (1, times)), np.tile(offset, (1, times, 1))


def place_features(touched: np.ndarray, grid: Grid) -> np.ndarray:
    """Indicators of every pair of a time and a bin of the distance to the object: float32 [n, N, times * 6]."""
    bins = _bins(touched, grid)
    time = np.repeat(np.eye(grid[0], dtype=np.float32), grid[1] * grid[2], 0)  # [N, times]
    return (time[:, :, None] * bins[..., None, :]).reshape(*bins.shape[:2], -1)


def local_features(y: np.ndarray, touched: np.ndarray, grid: Grid) -> np.ndarray:
    """`place_features`, the cells of the 3 x 3 tokens around, the offset from the object, and products with the bins.

    The bins of the distance are multiplied with the offset and with (background - y). The background is the scene's
    median over tokens. y [n, N, 12], touched bool [n, N] -> float32 [n, N, F].
    """
    n, (times, rows, cols) = len(y), grid
    padded = np.pad(y.reshape(n, times, rows, cols, -1), [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
    around = [padded[:, :, i : i + rows, j : j + cols] for i in range(3) for j in range(3)]
    near = np.concatenate(around, -1).reshape(n, times * rows * cols, -1)
    offset = distances(touched, grid)[1]
    products = np.concatenate([np.median(y, 1, keepdims=True) - y, offset], -1)
    products = (_bins(touched, grid)[..., None] * products[..., None, :]).reshape(*y.shape[:2], -1)
    return np.concatenate([place_features(touched, grid), near, offset, products], -1, dtype=np.float32)


def raw_pixels(video: np.ndarray, grid: Grid) -> np.ndarray:
    """Tokens without a model: each token's pixels, 0 .. 1, with its time and place: float32 [n, N, F]."""
    n, frames, height, width, _ = video.shape
    times, rows, cols = grid
    x = video.reshape((n, times, frames // times, rows, height // rows, cols, width // cols, 3))
    x = x.transpose((0, 1, 3, 5, 2, 4, 6, 7)).reshape(n, times * rows * cols, -1) / np.float32(255)
    time, row, col = np.unravel_index(np.arange(times * rows * cols), grid)
    where = np.concatenate([np.eye(times)[time], np.stack([row / rows, col / cols], -1)], -1)
    return np.concatenate([x, np.broadcast_to(where, (n, *where.shape))], -1, dtype=np.float32)


def nearby(pairs: Pairs, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Tokens at most NEAR from k, and from k or o: bool [n, N] each."""
    k, o = (distances(pairs.touched(row), grid)[0] <= NEAR for row in (pairs.removed, pairs.other))
    return k, k | o


def _bins(touched: np.ndarray, grid: Grid) -> np.ndarray:
    away = np.rint(distances(touched, grid)[0]).astype(int)
    return np.eye(BINS, dtype=np.float32)[np.clip(away, 0, BINS - 1)]


def _means(pixels: int, parts: int) -> np.ndarray:
    """Weights [parts, pixels]: of each pixel in the mean over each part. A line is cut into `parts` equal parts."""
    ends = np.arange(parts + 1) * pixels / parts
    overlap = np.minimum(ends[1:, None], np.arange(1, pixels + 1)) - np.maximum(ends[:-1, None], np.arange(pixels))
    return (np.maximum(overlap, 0) * parts / pixels).astype(np.float32)
