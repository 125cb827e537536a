"""I-JEPA's multi-block masks (arXiv 2301.08243, section 3): some target blocks, and a context block without them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import first, rectangle, require, require_range, shape, sides, through

TRIES = 20  # places of the context block that are tried before a target is ignored
PLANE = 14 * 14  # tokens of the plane that `min_keep` is meant for
MOST_SCENES = 10_000  # of a batch to whose smallest context all are cut


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    targets: int = 4,
    target_scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    context_scale: tuple[float, float] = (0.85, 1.0),
    min_keep: int = 10,
    tied: bool = False,
    corner: bool = False,
    batch: int = 1,
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"], Bool[np.ndarray, " N"]]:
    """Hides the union of the target blocks. The rest of a large square stays visible. The other tokens are dropped.

    All targets of a scene have one size. By default area and shape are independent, blocks reach the last row and
    column, and contexts are not cut to equal length. The published sampler is `tied=True, corner=True` and `batch`
    equal to its images per GPU, with one difference: there a batch shares the sizes too. In clips they span all times.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      targets: blocks to predict.
      target_scale: a target's share of the (rows, cols) plane. aspect: its height / width. context_scale: the context
        block's share before the targets are cut out, height = width. Each is uniform between its two numbers.
      min_keep: least number of context tokens of one time (exclusive), on a plane of 14 x 14, in proportion on smaller
        planes. After 20 failed places for the context block, one target after the other is ignored.
      tied: one uniform number gives a target's area and its shape: larger ones are taller.
      corner: no block reaches the last row or column, so the context square, 13 of 14 wide, has one place.
      batch: the context is cut to the fewest tokens of a batch of this size, keeping the first ones. The other scenes
        are simulated with the same sizes, so a mask has the published distribution and does not depend on the scene's
        neighbours.
      grid: (rows, cols) or (times, rows, cols).
    Returns: masked bool [N], predicted. removed bool [K], all False. dropped bool [N], neither seen nor predicted.
    Raises: ConfigError naming an option that cannot work.
    """
    _require_counts(targets, min_keep, batch)
    _require_rest(aspect, target_scale, context_scale, tied=tied, corner=corner)
    times, rows, cols = shape(object_patches.shape[1], grid)
    if rows * cols == 1:  # one token per time cannot be both hidden and visible, so the last time is hidden
        masked = np.arange(times) == times - 1
        return masked, np.zeros(len(object_patches), bool), np.zeros(times, bool)
    if tied:
        height, width = tied_sides(rng.random(), target_scale, aspect, rows, cols)
    else:
        area = int(rng.uniform(*target_scale) * rows * cols)
        height, width = sides(area, rng.uniform(*aspect), max(rows - 1, 1), max(cols - 1, 1))
    # The first scene's targets are drawn before its context's size. The seeds depend on this order.
    blocks = [rectangle(rng, height, width, rows, cols, last=not corner) for _ in range(targets)]
    square = sides(int(rng.uniform(*context_scale) * rows * cols), 1.0, max(rows - 1, 1), max(cols - 1, 1))
    context = context_block(rng, blocks, square, min_keep, not corner)
    least = int(context.sum())
    for _ in range(batch - 1):
        others = [rectangle(rng, height, width, rows, cols, last=not corner) for _ in range(targets)]
        least = min(least, int(context_block(rng, others, square, min_keep, not corner).sum()))
    context = first(context, max(least, 1))
    target = np.any(blocks, axis=0)
    _hide_one(rng, target, context)
    masked, dropped = target & ~context, ~target & ~context
    return through(masked, times), np.zeros(len(object_patches), bool), through(dropped, times)


def _require_counts(targets: int, min_keep: int, batch: int) -> None:
    require(isinstance(targets, int) and targets >= 1, "targets", targets, "must be a whole number, at least 1")
    require(isinstance(min_keep, int) and min_keep >= 0, "min_keep", min_keep, "must be a whole number, 0 or more")
    few = isinstance(batch, int) and 1 <= batch <= MOST_SCENES
    require(few, "batch", batch, f"must be whole, from 1 to {MOST_SCENES}")


def _require_rest(aspect: Any, target_scale: Any, context_scale: Any, **switches: bool) -> None:
    for name, value in switches.items():
        require(isinstance(value, bool), name, value, "must be True or False")
    require_range("target_scale", target_scale, 1)
    require_range("context_scale", context_scale, 1)
    require_range("aspect", aspect)


def tied_sides(
    u: float, scale: tuple[float, float], aspect: tuple[float, float], rows: int, cols: int
) -> tuple[int, int]:
    """Height and width of a block, where u in 0..1 is the position in both ranges, as in the published sampler."""
    (smallest, largest), (lowest, highest) = scale, aspect
    area = int((smallest + u * (largest - smallest)) * rows * cols)
    return sides(area, lowest + u * (highest - lowest), max(rows - 1, 1), max(cols - 1, 1))


def _hide_one(rng: np.random.Generator, target: np.ndarray, context: np.ndarray) -> None:
    """On planes of a few tokens one target token leaves `context`, in place, and another token is seen."""
    if not (target & ~context).any():
        context[tuple(rng.choice(np.argwhere(target)))] = False
        if not context.any():
            context[tuple(rng.choice(np.argwhere(~target)))] = True


def context_block(
    rng: np.random.Generator, blocks: Sequence[np.ndarray], square: tuple[int, int], min_keep: int, last: bool
) -> Bool[np.ndarray, "rows cols"]:
    """A square without the blocks, with more than `min_keep` tokens on a plane of 14 x 14."""
    rows, cols = blocks[0].shape
    least = min_keep * min(1.0, rows * cols / PLANE)
    for attempt in range(TRIES * (len(blocks) + 1)):
        context = rectangle(rng, *square, rows, cols, last=last)
        for block in blocks[: len(blocks) - attempt // TRIES]:
            context &= ~block
        if context.sum() > least:
            break
    return context
