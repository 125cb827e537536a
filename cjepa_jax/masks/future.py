"""The future: all tokens of a clip's last times are hidden."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import require, shape


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    share: float = 0.5,
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """Hides the last `share` of the times, rounded, at least one and not all. Nothing is drawn.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      grid: (times, rows, cols), at least 2 times.
    Returns: masked bool [N], and removed bool [K], all False.
    Raises: ConfigError naming an option that cannot work.
    """
    require(_is_share(share), "share", share, "must be a number above 0 and below 1")
    tokens = object_patches.shape[1]
    times = shape(tokens, grid)[0]
    require(times > 1, "type", "cjepa_jax.masks.future:draw", "needs clips of at least 2 times (data.frames)")
    hidden = min(max(round(share * times), 1), times - 1)
    masked = np.arange(tokens) // (tokens // times) >= times - hidden
    return masked, np.zeros(len(object_patches), bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
