"""What happens in one of Craft's scenes, and what would happen without each object: what questions are made of."""

from typing import NamedTuple

import numpy as np

EVENTS = {"basket": ("enter", "entering", "the basket"), "ground": ("touch", "touching", "the ground")}


class Facts(NamedTuple):
    """What the questions need to know of a scene with K objects."""

    names: list[str]
    kinds: list[str]  # names without colour: equal if alike
    movers: list[int]
    basket: int
    rest: np.ndarray  # bool [K] at rest at the start
    low: np.ndarray  # bool [K] on the ground at the start
    left: np.ndarray  # bool [K] in the left half at the end
    entry: np.ndarray  # [K] the frame in which it enters for good, infinity: never
    touched: list[list[tuple[float, int]]]  # [K] when it first touches each moving object, in order
    happens: dict[str, np.ndarray]  # events to bool [K+1,K]: row 0 as it is, row k + 1 without k


def entries(within: np.ndarray) -> np.ndarray:
    """The frame [K] from which on each object is inside to the end, from `within` bool [T,K]; infinity: it isn't."""
    return np.where(within[-1], np.logical_and.accumulate(within[::-1])[::-1].argmax(0), np.inf)
