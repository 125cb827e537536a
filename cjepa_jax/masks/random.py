"""Random tokens and random tubes: masks without any shape.

With pair = "drawn", the two masks that hide as much as `objects.draw` also return the objects that it would remove, so
that the causal term has its pairs (the scene, the scene under do(remove)). The hidden tokens are drawn independently of
these objects, which stay visible where no hidden token covers them. The predictor must be told which they are
(`objective.predictor.name_context`).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks import objects
from cjepa_jax.masks.grid import anchored, rectangle, require, require_range, shape, sides

MOST_BLOCKS = 100  # that are tried until enough of the plane is hidden
PAIRS = ("none", "drawn")


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    ratio: float = 0.75,
    tubes: bool = False,
    grid: tuple[int, ...] | None = None,
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """Masks tokens drawn uniformly without replacement.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      ratio: the share of the N tokens to mask, as nearly as whole tokens (or tubes) allow.
      tubes: draw places of the plane and mask them at all times after the anchor.
      grid: (rows, cols) or (times, rows, cols).
      anchor: tokens of the first `anchor` times stay visible.
    Returns: masked bool [N] with at least one token masked and one not, and removed bool [K], all False.
    Raises: ConfigError naming an option that cannot work.
    """
    require(isinstance(ratio, int | float) and 0 < ratio < 1, "ratio", ratio, "must be above 0 and below 1")
    tokens = object_patches.shape[1]
    chosen = _choose(rng, ratio * tokens, tokens, tubes=tubes, grid=grid, anchor=anchor)
    return chosen, np.zeros(len(object_patches), bool)


def share(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    ratio: tuple[float, float] = (0.4, 0.6),
    grid: tuple[int, ...] | None = None,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """As `draw`, with a share that is uniform between two numbers (Audio-JEPA, arXiv 2507.02915).

    Of N tokens int(N (1 - ratio)) stay visible. There a batch has one ratio, here each scene.
    Raises: ConfigError naming an option that cannot work.
    """
    require_range("ratio", ratio, 1)
    tokens = object_patches.shape[1]
    visible = int(np.clip(int(tokens * (1 - rng.uniform(*ratio))), 1, tokens - 1))
    masked = np.ones(tokens, bool)
    masked[rng.permutation(tokens)[:visible]] = False
    return masked, np.zeros(len(object_patches), bool)


def matched(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    max_objects: int = 3,
    area: tuple[float, float] = (0.05, 0.40),
    tubes: bool = False,
    pair: str = "none",
    grid: tuple[int, ...] | None = None,
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """As `draw`, masking in every scene as many tokens as `objects.draw` would mask there from the same generator.

    The control for object masks: the same amount is hidden in the same scenes, but not as whole objects. The arguments
    are those of both functions. With tubes the amount is met to half a tube. pair: "none", or "drawn": `removed` is
    that of `objects.draw`.
    """
    require(pair in PAIRS, "pair", pair, f"must be one of {', '.join(PAIRS)}")
    algorithm: dict[str, Any] = dict(max_objects=max_objects, area=area, grid=grid, anchor=anchor)
    masked, removed = objects.draw(rng, object_patches, object_valid, **algorithm)
    chosen = _choose(rng, masked.sum(), masked.size, tubes=tubes, grid=grid, anchor=anchor)
    return chosen, removed & (pair == "drawn")


def matched_blocks(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    max_objects: int = 3,
    area: tuple[float, float] = (0.05, 0.40),
    blocks: int = 4,
    scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    pair: str = "none",
    grid: tuple[int, ...] = (),
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """I-JEPA-style blocks (masks/blocks.py) of as many tokens as `objects.draw` would mask from the same generator.

    The blocks' areas are drawn as I-JEPA's and scaled together to the amount. They span all times after the anchor. If
    they overlap, further blocks of these sizes are added, and the last one is cut to the amount.

    Args: those of `objects.draw`. blocks: least number of blocks. scale: their areas, relative to each other. aspect:
      height / width, uniform between the two. pair: "none", or "drawn". grid: (rows, cols) or (times, rows, cols).
    Returns: masked bool [N], and removed bool [K], all False, or that of `objects.draw` with pair = "drawn".
    Raises: ConfigError naming an option that cannot work.
    """
    require(pair in PAIRS, "pair", pair, f"must be one of {', '.join(PAIRS)}")
    require(isinstance(blocks, int) and blocks >= 1, "blocks", blocks, "must be a whole number, at least 1")
    require_range("scale", scale, 1)
    require_range("aspect", aspect)
    algorithm: dict[str, Any] = dict(max_objects=max_objects, area=area, grid=grid, anchor=anchor)
    hidden, removed = objects.draw(rng, object_patches, object_valid, **algorithm)
    wanted = int(hidden.sum())
    times, rows, cols = shape(object_patches.shape[1], grid)
    each = times - anchor
    places = -(-wanted // each)  # of the plane
    plane = np.zeros((rows, cols), bool)
    order: list[tuple[int, ...]] = []  # of the places that are hidden
    areas = rng.uniform(*scale, blocks)
    areas *= places / areas.sum()
    for i in range(MOST_BLOCKS):
        height, width = sides(areas[i % blocks], rng.uniform(*aspect), rows, cols)
        new = np.argwhere(rectangle(rng, height, width, rows, cols) & ~plane)
        # Along the longer side, so that a cut leaves a block.
        new = new[np.lexsort(new.T if width > height else new.T[::-1])]
        order += map(tuple, new[: places - len(order)])
        plane[tuple(np.transpose(order))] = True
        if len(order) == places:
            break
    rest = np.argwhere(~plane)  # of nearly full planes
    order += map(tuple, rng.permutation(rest)[: places - len(order)])
    masked = np.zeros((times, rows, cols), bool)
    masked[anchor:, *np.transpose(order)] = True
    row, col = order[-1]
    masked[times - (places * each - wanted) :, row, col] = False
    return masked.ravel(), removed & (pair == "drawn")


def _choose(
    rng: np.random.Generator,
    wanted: float | np.integer,
    tokens: int,
    tubes: bool,
    grid: tuple[int, ...] | None,
    anchor: int,
) -> Bool[np.ndarray, " N"]:
    """About `wanted` of the tokens that may be hidden, and neither none nor all."""
    maskable = ~anchored(tokens, grid, anchor)
    times = grid[0] if tubes and grid is not None and len(grid) == 3 else 1
    places = maskable.reshape(times, -1)
    plane = np.flatnonzero(places.any(0))  # without tubes: the tokens themselves
    each = places.any(1).sum()
    count = np.clip(round(wanted / each), 1, len(plane) if anchor else max(len(plane) - 1, 1))
    masked = np.zeros(places.shape, bool)
    masked[:, rng.choice(plane, count, replace=False)] = True
    hidden: Bool[np.ndarray, " N"] = masked.ravel() & maskable
    if hidden.all():  # there is only one tube: leave a token visible
        hidden[rng.integers(tokens)] = False
    return hidden
