"""I-JEPA's multi-block masks (arXiv 2301.08243, section 3): some target blocks, and a context block without them."""

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import rectangle, require, require_range, shape, sides, through

TRIES = 20  # places of the context block that are tried before one target gives way to it
PLANE = 14 * 14  # tokens of the plane that `min_keep` is meant for


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    targets: int = 4,
    target_scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    context_scale: tuple[float, float] = (0.85, 1.0),
    min_keep: int = 10,
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"], Bool[np.ndarray, " N"]]:
    """Hides the union of the target blocks; the rest of a large square stays visible; what is left is dropped.

    All targets of a scene have one size, as in the published sampler; unlike there, sizes are a scene's own and not
    its batch's, the last row and column are reached too, and clips are allowed: blocks go through all times.

    Args:
      object_patches, object_valid: bool [K, N], [K]; only their shapes are used.
      targets: blocks to predict.
      target_scale: a target's share of the (rows, cols) plane; aspect: its height / width; context_scale: the context
        block's share before the targets are cut out, height = width. Uniform between the two.
      min_keep: context tokens of one time must be more than these, on a plane of 14 x 14; in proportion on a smaller.
        After 20 vain places for the context block one target after the other no longer limits it.
      grid: (rows, cols) or (times, rows, cols).
    Returns: masked bool [N], predicted; removed bool [K], all False; dropped bool [N], neither seen nor predicted.
    Raises: ConfigError naming an option that cannot work.
    """
    require(isinstance(targets, int) and targets >= 1, "targets", targets, "must be a whole number, at least 1")
    require(isinstance(min_keep, int) and min_keep >= 0, "min_keep", min_keep, "must be a whole number, 0 or more")
    require_range("target_scale", target_scale, 1)
    require_range("context_scale", context_scale, 1)
    require_range("aspect", aspect)
    times, rows, cols = shape(object_patches.shape[1], grid)
    area = int(rng.uniform(*target_scale) * rows * cols)
    height, width = sides(area, rng.uniform(*aspect), max(rows - 1, 1), max(cols - 1, 1))
    blocks = [rectangle(rng, height, width, rows, cols) for _ in range(targets)]
    area = int(rng.uniform(*context_scale) * rows * cols)
    height, width = sides(area, 1.0, max(rows - 1, 1), max(cols - 1, 1))
    least = min_keep * min(1.0, rows * cols / PLANE)
    for attempt in range(TRIES * (targets + 1)):
        context = rectangle(rng, height, width, rows, cols)
        for block in blocks[: targets - attempt // TRIES]:
            context &= ~block
        if context.sum() > least:
            break
    target = np.any(blocks, axis=0)
    if not (target & ~context).any():  # on planes of a few tokens: one target token stays hidden, another one is seen
        context[tuple(rng.choice(np.argwhere(target)))] = False
        if not context.any():
            context[tuple(rng.choice(np.argwhere(~target)))] = True
    masked = target & ~context
    dropped = ~target & ~context
    return through(masked, times), np.zeros(len(object_patches), bool), through(dropped, times)
