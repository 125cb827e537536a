"""V-JEPA's tubes (arXiv 2404.08471, section 3): blocks of the plane, hidden at all times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import rectangle, require, require_range, shape, sides, through

REDRAWS = 100  # draws that hide everything are tried again this often


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    kinds: Sequence[tuple[int, float | int]] = ((8, 0.15), (2, 0.7)),
    aspect: tuple[float, float] = (0.75, 1.5),
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """Masks the union of a scene's tubes, which is of one of the kinds; the context is all the rest.

    V-JEPA predicts every clip once for each kind and averages; here a clip has one, drawn with equal chances, which
    has the same expectation.

    Args:
      object_patches, object_valid: bool [K, N], [K]; only their shapes are used.
      kinds: (tubes, each one's share of the plane): short-range, many small ones, and long-range, few large ones.
      aspect: height / width, uniform between the two; a scene's tubes have one size.
      grid: (rows, cols) or (times, rows, cols).
    Returns: masked bool [N] with at least one token masked and one not; removed bool [K], all False.
    Raises: ConfigError naming an option that cannot work.
    """
    limit = "must be pairs (tubes, at least 1; share of the plane, above 0 and up to 1)"
    require(len(kinds) > 0 and all(map(_is_kind, kinds)), "kinds", kinds, limit)
    require_range("aspect", aspect)
    times, rows, cols = shape(object_patches.shape[1], grid)
    count, scale = kinds[int(rng.integers(len(kinds)))]
    height, width = sides(int(scale * rows * cols), rng.uniform(*aspect), rows, cols)
    for _ in range(REDRAWS):
        plane = np.any([rectangle(rng, height, width, rows, cols) for _ in range(count)], axis=0)
        if not plane.all():
            break
    removed, masked = np.zeros(len(object_patches), bool), through(plane, times)
    if masked.all():  # on planes of a few tokens: leave one visible
        masked[rng.integers(masked.size)] = False
    return masked, removed


def _is_kind(kind: Any) -> bool:
    count, share = kind if isinstance(kind, tuple | list) and len(kind) == 2 else (0, 0)
    return isinstance(count, int) and count >= 1 and isinstance(share, int | float) and 0 < share <= 1
