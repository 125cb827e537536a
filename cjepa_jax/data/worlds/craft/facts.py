"""Facts for Craft's questions: what happens in a scene, and what would happen without each object."""

from typing import NamedTuple

import numpy as np

EVENTS = {"basket": ("enter", "entering", "the basket"), "ground": ("touch", "touching", "the ground")}


class Facts(NamedTuple):
    """The facts about a scene with K objects that questions use."""

    names: list[str]
    kinds: list[str]  # names without colour, equal for objects of the same size and shape
    movers: list[int]
    basket: int
    rest: np.ndarray  # bool [K] at rest at the start
    low: np.ndarray  # bool [K] on the ground at the start
    left: np.ndarray  # bool [K] in the left half at the end
    entry: np.ndarray  # [K] the frame from which on it stays in the basket, infinity: never
    touched: list[list[tuple[float, int]]]  # [K] (time of the first contact, moving object), in order
    happens: dict[str, np.ndarray]  # events to bool [K+1,K]. Row 0: the original scene. Row k + 1: without k.


def entries(within: np.ndarray) -> np.ndarray:
    """The frame [K] from which on each object is inside until the end, from `within` bool [T,K].

    Infinity: it is not inside at the end.
    """
    return np.where(within[-1], np.logical_and.accumulate(within[::-1])[::-1].argmax(0), np.inf)
