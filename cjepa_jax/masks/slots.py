"""Masks of slots: some of the history and all of the future (arXiv 2602.11389, section 4)."""

import functools

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks.grid import require, shape

KINDS = ("object", "token", "tube")


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    history: int,
    most: int = 3,
    least: int = 0,
    kind: str = "object",
    share: float = 0.25,
    span: int = 2,
    constant: int = -1,
    grid: tuple[int, ...] = (),
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"], Bool[np.ndarray, " N"]]:
    """Hides a part of the history after its first frame, and all frames after it.

    Tokens of no object are dropped: they are neither seen nor predicted. In a scene without an object every token is
    that of an object, and only the future is hidden.

    Args:
      object_patches: bool [K, N]. Object k is the slot of its tokens, at all times.
      history: frames that are given. The first of them, the identity anchor, is always visible.
      most, least: with kind "object" M ~ U{least .. most} objects are hidden, at most those that are there.
      kind: "object" hides whole objects, "token" scattered tokens, and "tube" runs of `span` frames of an object.
      share: of the history's tokens after the first frame, hidden with "token" and "tube".
      constant: the seed of the published code's fixed set: the same `most` slots in every scene, drawn by NumPy's
        RandomState among all columns. -1: objects are drawn for each scene.
      grid: (times, rows, cols).
    Returns: masked bool [N], removed bool [K] (the objects that are hidden as a whole), dropped bool [N].
    Raises: ConfigError naming an option that cannot work.
    """
    objects, tokens = object_patches.shape
    times, _, slots = shape(tokens, grid)
    _check(history, least=least, most=most, kind=kind, share=share, span=span, constant=constant, times=times)
    time = np.arange(tokens) // (tokens // times)
    own = object_patches & object_valid[:, None]
    present = own.any(0) if own.any() else np.ones(tokens, bool)
    inside = (time > 0) & (time < history) & present
    removed = np.zeros(objects, bool)
    if kind == "object":
        chosen = _objects(rng, object_valid, least=least, most=most, constant=constant, slots=slots)
        removed[chosen] = True
        hidden = own[removed].any(0)
    else:
        hidden = np.zeros(tokens, bool)
        wanted, left = round(share * int(inside.sum())), inside.copy()
        for token in rng.permutation(np.flatnonzero(inside)):
            if int(hidden.sum()) >= wanted:
                break
            run = token + np.arange(span if kind == "tube" else 1) * (tokens // times)  # the same slot, later
            run = run[run < tokens]
            hidden[run[left[run]][: wanted - int(hidden.sum())]] = True
            left &= ~hidden
    return (hidden & inside) | ((time >= history) & present), removed, ~present


def _objects(
    rng: np.random.Generator, valid: np.ndarray, *, least: int, most: int, constant: int, slots: int
) -> np.ndarray:
    """Indices of the objects that are hidden."""
    if constant >= 0:
        chosen = _fixed(constant, slots, min(most, slots))
        chosen = chosen[chosen < len(valid)]
        kept: np.ndarray = chosen[valid[chosen]]
        return kept
    count = min(int(rng.integers(least, most + 1)), int(valid.sum()))
    drawn: np.ndarray = rng.choice(np.flatnonzero(valid), count, replace=False)
    return drawn


@functools.lru_cache(maxsize=64)
def _fixed(constant: int, slots: int, most: int) -> np.ndarray:
    """The published fixed set. Do not modify it."""
    chosen: np.ndarray = np.random.RandomState(constant).choice(slots, most, replace=False)
    return chosen


def _check(
    history: int, *, least: int, most: int, kind: str, share: float, span: int, constant: int, times: int
) -> None:
    whole = {
        "history": (history, 1),
        "least": (least, 0),
        "most": (most, 0),
        "span": (span, 1),
        "constant": (constant, -1),
    }
    for name, (value, low) in whole.items():
        good = isinstance(value, int) and not isinstance(value, bool) and value >= low
        require(good, name, value, f"must be a whole number, at least {low}")
    require(history < times, "history", history, f"must be below the {times} frames of the scenes")
    require(least <= most, "least", least, f"must not exceed mask.most = {most}")
    require(kind in KINDS, "kind", kind, f"must be one of {', '.join(KINDS)}")
    number = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
    require(number, "share", share, "must be in [0, 1]")
