"""Geometry that every mask shares."""

import numpy as np
from jaxtyping import Bool


def anchored(tokens: int, grid: tuple[int, ...] | None, anchor: int) -> Bool[np.ndarray, " {tokens}"]:
    """bool [N], True for the tokens of the first `anchor` times, which are never masked.

    Raises: ValueError if `grid` does not have N tokens, if there is only one (nothing can be both hidden and seen), or
    if the anchor leaves nothing to mask.
    """
    if tokens < 2:
        raise ValueError(f"the scene has {tokens} token: masking needs at least 2")
    if grid is not None and np.prod(grid) != tokens:
        raise ValueError(f"grid {tuple(grid)}: has {np.prod(grid)} tokens, the objects' patches {tokens}")
    fixed = np.zeros(tokens, bool)
    if anchor:
        times = grid[0] if grid is not None and len(grid) == 3 else 1
        if anchor >= times:
            raise ValueError(f"anchor = {anchor}: must be below the clip's {times} times")
        fixed[: anchor * (tokens // times)] = True
    return fixed
