"""V-JEPA's tubes (arXiv 2404.08471, section 3): blocks of the plane, hidden at all times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import first, rectangle, require, require_range, shape, sides, through
from cjepa_jax.masks.multiblock import MOST_SCENES

REDRAWS = 100  # draws that hide everything are tried again this often


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    kinds: Sequence[tuple[int, float | int]] = ((8, 0.15), (2, 0.7)),
    aspect: tuple[float, float] = (0.75, 1.5),
    batch: int = 1,
    both: bool = False,
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, "..."], ...]:
    """Masks the union of a scene's tubes, which are of one kind. The context is all other tokens.

    V-JEPA predicts every clip once for each kind and averages: `both`. By default a clip has one kind, drawn with equal
    chances, which has the same expectation. By default masks are not cut to equal length. The published masks have
    `batch` equal to the clips per GPU, with one difference: there the clips of a batch share the tubes' size too.

    Args:
      object_patches, object_valid: bool [K, N], [K]. Only their shapes are used.
      kinds: (tubes, each one's share of the plane): short-range, many small ones, and long-range, few large ones.
      aspect: height / width, uniform between the two. A scene's tubes have one size.
      batch: hidden tokens and context are cut to the fewest of a batch of this size, keeping the first ones, so late
        times are dropped. The other clips are simulated with tubes of the same size, so a mask has the published
        distribution and does not depend on the clip's neighbours.
      both: a mask of each of two kinds.
      grid: (rows, cols) or (times, rows, cols).
    Returns: masked bool [N] with at least one token masked and one not, and removed bool [K], all False. With `batch`
      above 1 also dropped bool [N], neither seen nor predicted. With `both` masked, removed and dropped of the first
      kind, then masked and dropped of the second.
    Raises: ConfigError naming an option that cannot work.
    """
    limit = "must be pairs (tubes, at least 1, and share of the plane, above 0 and up to 1)"
    require(len(kinds) > 0 and all(map(_is_kind, kinds)), "kinds", kinds, limit)
    require_range("aspect", aspect)
    most = f"must be whole, from 1 to {MOST_SCENES}"
    require(isinstance(batch, int) and 1 <= batch <= MOST_SCENES, "batch", batch, most)
    require(isinstance(both, bool), "both", both, "must be True or False")
    require(not both or len(kinds) == 2, "both", both, "must be False unless there are two kinds")
    of, removed = shape(object_patches.shape[1], grid), np.zeros(len(object_patches), bool)
    if both:
        (masked, dropped), second = (_of_kind(rng, kind, aspect, batch, of) for kind in kinds)
        return masked, removed, dropped, *second
    masked, dropped = _of_kind(rng, kinds[int(rng.integers(len(kinds)))], aspect, batch, of)
    return (masked, removed) if batch == 1 else (masked, removed, dropped)


def _of_kind(
    rng: np.random.Generator,
    kind: tuple[int, float],
    aspect: tuple[float, float],
    batch: int,
    grid: tuple[int, int, int],
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Masked and dropped tokens of one kind."""
    (count, scale), (times, rows, cols) = kind, grid
    height, width = sides(int(scale * rows * cols), rng.uniform(*aspect), rows, cols)
    planes = [_plane(rng, count, height, width=width, rows=rows, cols=cols) for _ in range(batch)]
    masked = through(planes[0], times)
    if masked.all():  # on planes of a few tokens: leave one visible
        masked[rng.integers(masked.size)] = False
    if batch == 1:
        return masked, np.zeros_like(masked)
    hidden = [int(plane.sum()) * times for plane in planes]
    context = first(~masked, max(masked.size - max(hidden), 1))
    masked = first(masked, min(hidden))
    return masked, ~masked & ~context


def _plane(
    rng: np.random.Generator, count: int, height: int, width: int, rows: int, cols: int
) -> Bool[np.ndarray, "{rows} {cols}"]:
    """The union of `count` rectangles of this size, which does not cover the whole plane if that is possible."""
    for _ in range(REDRAWS):
        tubes = [rectangle(rng, height, width, rows, cols) for _ in range(count)]
        plane: Bool[np.ndarray, "rows cols"] = np.any(tubes, axis=0)
        if not plane.all():
            break
    return plane


def _is_kind(kind: Any) -> bool:
    count, share = kind if isinstance(kind, tuple | list) and len(kind) == 2 else (0, 0)
    return isinstance(count, int) and count >= 1 and isinstance(share, int | float) and 0 < share <= 1
