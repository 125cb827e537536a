"""Geometry shared by all masks."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.errors import ConfigError


def require(fits: bool, name: str, value: Any, limit: str) -> None:
    """Raises ConfigError, one line, for an invalid value of the config's mask section."""
    if not fits:
        raise ConfigError(f"mask.{name} = {value!r}: {limit}")


def require_range(name: str, value: Any, high: float | int = np.inf) -> None:
    """Raises ConfigError unless the value is two numbers, the lower one first, above 0 and up to `high`."""
    limit = "must be two numbers, the lower bound first, above 0" + (f" and up to {high:g}" if high < np.inf else "")
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    require(pair and 0 < value[0] <= value[1] <= high, name, value, limit)


def shape(tokens: int, grid: tuple[int, ...]) -> tuple[int, int, int]:
    """(times, rows, cols) of a grid of these, or of (rows, cols).

    Raises: ValueError if it does not have this number of tokens, or has only one (one token cannot be both hidden and
    visible).
    """
    anchored(tokens, grid, 0)
    times, rows, cols = (1, *grid) if len(grid) == 2 else grid
    return times, rows, cols


def sides(area: float | int, ratio: float, rows: int, cols: int) -> tuple[int, int]:
    """Height and width in whole tokens of a rectangle of this area and height / width, cut to rows and cols."""
    height, width = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
    return int(np.clip(height, 1, rows)), int(np.clip(width, 1, cols))


def rectangle(
    rng: np.random.Generator, height: int, width: int, rows: int, cols: int, *, last: bool = True
) -> Bool[np.ndarray, "{rows} {cols}"]:
    """A rectangle in the plane, with all places equally likely. With `last` False it does not reach the last row or
    column, if there is another place."""
    free = [max(side - own + last, 1) for side, own in ((rows, height), (cols, width))]
    top, left = rng.integers(0, free[0]), rng.integers(0, free[1])
    plane = np.zeros((rows, cols), bool)
    plane[top : top + height, left : left + width] = True
    return plane


def first(mask: Bool[np.ndarray, "*shape"], count: int) -> Bool[np.ndarray, "*shape"]:
    """The mask's first `count` tokens, in the order of the grid, as published collators cut longer masks."""
    kept: Bool[np.ndarray, "*shape"] = mask & (np.cumsum(mask).reshape(mask.shape) <= count)
    return kept


def through(plane: Bool[np.ndarray, "rows cols"], times: int) -> Bool[np.ndarray, " N"]:
    """The plane repeated at all times, as tokens [N]."""
    return np.broadcast_to(plane, (times, *plane.shape)).ravel().copy()


def anchored(tokens: int, grid: tuple[int, ...] | None, anchor: int) -> Bool[np.ndarray, " {tokens}"]:
    """bool [N], True for the tokens of the first `anchor` times, which are never masked.

    Raises: ValueError if `grid` does not have N tokens, if there is only one (it cannot be both hidden and visible), or
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
