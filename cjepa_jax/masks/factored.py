"""Masks of whole times, or of places of the plane at all times: what moves is hidden, or what stays the same."""

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks import random
from cjepa_jax.masks.grid import require, shape


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    motion: float = 0.5,
    times: float = 0.5,
    places: float = 0.5,
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """Masks whole times with probability `motion`, otherwise places of the plane at all times.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      times, places: shares of the times and of the places to mask, at least one and never all. An image has one time,
        so places of it are masked.
      grid: (rows, cols) or (times, rows, cols).
    Returns: masked bool [N], and removed bool [K], all False.
    Raises: ConfigError naming an option that cannot work.
    """
    require(isinstance(motion, int | float) and 0 <= motion <= 1, "motion", motion, "must be in [0, 1]")
    for name, value in (("times", times), ("places", places)):
        require(isinstance(value, int | float) and 0 < value < 1, name, value, "must be above 0 and below 1")
    count, rows, cols = shape(object_patches.shape[1], grid)
    if rng.random() < motion and count > 1:
        hidden = np.zeros((count, rows * cols), bool)
        hidden[rng.permutation(count)[: int(np.clip(round(times * count), 1, count - 1))]] = True
        return hidden.ravel(), np.zeros(len(object_patches), bool)
    return random.draw(rng, object_patches, object_valid, ratio=places, tubes=True, grid=grid)
