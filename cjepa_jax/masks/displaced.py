"""Displaced object masks: the control that keeps their amount and shape, but not their content."""

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks import grid as geometry
from cjepa_jax.masks import objects


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    max_objects: int = 3,
    area: tuple[float, float] = (0.05, 0.40),
    grid: tuple[int, ...] = (),
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """As `objects.draw` from the same generator, with the hidden tokens moved to another place as one rigid shape.

    The union over objects and times moves by one offset in the plane, uniform among those that keep all of it inside
    and keep the fewest tokens hidden that were hidden before. It may still touch objects. A shape as high and as wide
    as the plane becomes one of its mirror images instead, or stays if it equals all of them. The blocks of a scene
    without an eligible object are left in place.

    Args: as `objects.draw`. The grid is needed.
    Returns: masked bool [N], as many tokens at each time as `objects.draw` masks, and removed bool [K], all False.
    Raises: ValueError for a grid that does not have N tokens, or for N = 1.
    """
    masked, removed = named(
        rng, object_patches, object_valid, max_objects=max_objects, area=area, grid=grid, anchor=anchor
    )
    return masked, np.zeros_like(removed)


def in_place(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    max_objects: int = 3,
    area: tuple[float, float] = (0.05, 0.40),
    grid: tuple[int, ...] = (),
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """`objects.draw` with `removed` all False. It is the partner of `draw` in a comparison: the predictor of both is
    not told which objects are hidden."""
    masked, removed = objects.draw(
        rng, object_patches, object_valid, max_objects=max_objects, area=area, grid=grid, anchor=anchor
    )
    return masked, np.zeros_like(removed)


def named(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    max_objects: int = 3,
    area: tuple[float, float] = (0.05, 0.40),
    grid: tuple[int, ...] = (),
    anchor: int = 0,
    meet: float = 0.0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """`draw` with `removed` of `objects.draw`. It is the control for hiding: the predictor is told which objects are
    removed, and sees them where the displaced shape does not cover them. Its `name_context` must be True. The controls
    with other hidden tokens are `random.matched` and `random.matched_blocks` with pair = "drawn".

    Args:
      meet: share of the scenes, 0 to 1, in which the new place is drawn among those that keep some of the tokens hidden
        that were hidden before, if there is one. In the others it keeps the fewest, which may be some too.
    Raises: ValueError for a `meet` outside 0 to 1.
    """
    if not 0 <= meet <= 1:
        raise ValueError(f"meet = {meet}: must be 0 to 1")
    shape = geometry.shape(object_patches.shape[1], grid)
    masked, removed = objects.draw(
        rng, object_patches, object_valid, max_objects=max_objects, area=area, grid=grid, anchor=anchor
    )
    if removed.any():
        masked = _elsewhere(rng, masked.reshape(shape), meet).ravel()
    return masked, removed


def _elsewhere(
    rng: np.random.Generator, clip: Bool[np.ndarray, "T R C"], meet: float = 0.0
) -> Bool[np.ndarray, "T R C"]:
    """The clip's shape at another place of the plane, or its mirror image if there is no other place."""
    plane = np.any(clip, axis=0)
    steps = [
        range(-int(taken[0]), side - int(taken[-1]))  # up to either border
        for side, taken in zip(plane.shape, (np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))), strict=True)
    ]
    moves = [(down, right) for down in steps[0] for right in steps[1] if (down, right) != (0, 0)]
    if moves:
        moved = [np.roll(clip, move, (1, 2)) for move in moves]  # nothing wraps around
        shared = [(image & clip).sum() for image in moved]
        meets = meet and rng.uniform() < meet and max(shared)
        fits = [image for image, n in zip(moved, shared, strict=True) if (n if meets else n == min(shared))]
        return fits[rng.integers(len(fits))]
    mirrored = [np.flip(clip, axes) for axes in ((1,), (2,), (1, 2))]
    mirrored = [image for image in mirrored if (image != clip).any()] or [clip]
    return mirrored[rng.integers(len(mirrored))]
