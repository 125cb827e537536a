"""I-JEPA-style random blocks (arXiv 2301.08243, section 3): the fallback of METHOD, Algorithm 2, line 8."""

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import anchored, rectangle, sides, through


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    count: int = 4,
    scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    grid: tuple[int, ...] | None = None,
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """Masks the union of `count` rectangles of (rows, cols), each through all times.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      count: rectangles.
      scale: each one's share of the (rows, cols) plane, uniform between the two.
      aspect: height / width, uniform between the two.
      grid: (rows, cols) or (times, rows, cols). None scatters single tokens, count x scale of them.
      anchor: the first times that stay visible.
    Returns: masked bool [N] with at least one token masked and one not, and removed bool [K], all False.
    """
    objects, tokens = object_patches.shape
    removed = np.zeros(objects, bool)
    maskable = ~anchored(tokens, grid, anchor)
    if grid is None:
        wanted = round(tokens * min(count * rng.uniform(*scale), 0.9))
        masked = np.zeros(tokens, bool)
        masked[rng.choice(tokens, np.clip(wanted, 1, max(tokens - 1, 1)), replace=False)] = True
    else:
        times, rows, cols = (1, *grid) if len(grid) == 2 else grid
        plane = np.zeros((rows, cols), bool)
        for _ in range(count):
            area, ratio = rng.uniform(*scale) * rows * cols, rng.uniform(*aspect)
            plane |= rectangle(rng, *sides(area, ratio, rows, cols), rows, cols)
        masked = through(plane, times)
    masked &= maskable
    if masked.all():  # only on grids of a few tokens: leave one visible
        masked[rng.integers(tokens)] = False
    if not masked.any():
        masked[rng.choice(np.flatnonzero(maskable))] = True
    return masked, removed
