"""Point-JEPA's masks (arXiv 2404.16432, section 3.3): runs of tokens that follow each other in one order."""

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import require, require_range

MOST_TARGETS = 64


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    targets: int = 4,
    target: tuple[float, float] = (0.15, 0.2),
    context: tuple[float, float] = (0.4, 0.75),
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"], Bool[np.ndarray, " N"]]:
    """Masks the union of runs of equal length. The context is a run of the tokens that are left, in their order.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      targets: runs, which may overlap.
      target: their share of the tokens, uniform between the two, one for all runs of a scene, rounded down.
      context: the context's share of the tokens that no run has, rounded down.
    Returns: masked bool [N], removed bool [K], all False, and dropped bool [N], neither seen nor predicted.
    Raises: ConfigError naming an option that cannot work.
    """
    whole = isinstance(targets, int) and not isinstance(targets, bool)
    require(whole and 1 <= targets <= MOST_TARGETS, "targets", targets, f"must be whole, from 1 to {MOST_TARGETS}")
    require_range("target", target, 1)
    require_range("context", context, 1)
    tokens = object_patches.shape[1]
    length = min(max(1, int(rng.uniform(*target) * tokens)), tokens - 1)
    masked = np.zeros(tokens, bool)
    for first in rng.integers(0, tokens - length + 1, targets):
        masked[first : first + length] = True
    if masked.all():  # of a few tokens: leave one visible
        masked[rng.integers(tokens)] = False
    left = np.flatnonzero(~masked)
    count = max(1, int(rng.uniform(*context) * len(left)))
    first = int(rng.integers(0, len(left) - count + 1))
    seen = np.zeros(tokens, bool)
    seen[left[first : first + count]] = True
    return masked, np.zeros(len(object_patches), bool), ~masked & ~seen
