"""Balanced counterfactual questions: "does it happen to object j, if object k is removed?"

A question has one of four combinations: what happens with k present, and what happens without k. Over a set the four
combinations are equally frequent among questions that look alike: their j look alike, their k look alike (shape, size
in four classes, movable or not, role), and their two objects begin in the same range of distance. So the answers "same
as with k", "always", "never" and any rule that knows no more than this are right half of the time. Outcomes that can
never change, such as what happens without the goal, are not asked. Exact sizes and positions may still be informative.
Report the score of a query-only baseline next to every answer's score.
"""

import collections
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.base import Source
from cjepa_jax.errors import ConfigError, DataError

DISTANCES = (0.22, 0.38, 0.55)  # bounds between the ranges, view widths
CELLS = ((False, False), (False, True), (True, False), (True, True))  # what happens with k, and without k


class Questions(NamedTuple):
    """Q questions, at most one about a scene, in groups of four that cover the four combinations."""

    scene: np.ndarray  # int64 [Q]
    removed: np.ndarray  # int64 [Q] object k, which the question removes
    asked: np.ndarray  # int64 [Q] object j, which the question is about
    factual: np.ndarray  # bool [Q] whether it happens to j with k present
    answer: np.ndarray  # bool [Q] whether it happens to j without k
    distance: np.ndarray  # float32 [Q] between j and k at the beginning, view widths
    final: np.ndarray  # float32 [Q,2] final position of j without k


def draw(source: Source, count: int, seed: int, first: int = 0) -> Questions:
    """Draws the first `count` balanced questions about the source's scenes `first`, `first` + 1, ...

    Args:
      source: must have `outcomes(i)`, as the simulated worlds have.
      count: a multiple of 4.
      seed: of the choice among a scene's questions.
    Raises: ConfigError for a source without outcomes or another count. DataError if there are too few scenes.
    """
    if not hasattr(source, "outcomes"):
        raise ConfigError(f"data.source: {type(source).__name__} has no outcomes under do(remove) to ask about")
    if count < 4 or count % 4:
        raise ConfigError(f"questions = {count}: must be a multiple of 4, at least 4")
    waiting: dict[tuple, collections.deque] = collections.defaultdict(collections.deque)
    groups: list[list] = []
    for scene in range(first, len(source)):
        # One question of a scene is kept: the one whose kind has the fewest so far, then the one that best completes a
        # group of four. Remaining ties are broken at random.
        chances = seeds.generator(seed, "choice among a scene's questions", scene)
        candidates = []
        for alike, cell, row in of_scene(source, scene):
            complete = sum(bool(waiting[alike, other]) for other in CELLS if other != cell)
            candidates.append((len(waiting[alike, cell]), -complete, chances.random(), alike, cell, row))
        if not candidates:
            continue
        *_, alike, cell, row = min(candidates)
        waiting[alike, cell].append(row)
        if all(waiting[alike, other] for other in CELLS):
            groups.append([waiting[alike, other].popleft() for other in CELLS])
        if 4 * len(groups) == count:
            return _stack([row for group in groups for row in group])
    raise DataError(
        f"{type(source).__name__}: its scenes from {first} to {len(source) - 1} give {4 * len(groups)} balanced "
        f"questions, asked for {count}"
    )


def of_scene(source: Source, scene: int) -> Iterator[tuple[Hashable, tuple[bool, bool], tuple]]:
    """All questions about one scene: a key of look-alike questions, the cell, and the row of Questions."""
    known = source.outcomes(scene)
    for k in range(len(known.asked)):
        for j in np.nonzero(known.asked)[0].tolist():
            if j == k:
                continue
            distance = float(np.hypot(*(known.start[k] - known.start[j])))
            factual, answer = bool(known.happens[0, j]), bool(known.happens[k + 1, j])
            row = (scene, k, j, factual, answer, distance, tuple(known.final[k + 1, j].tolist()))
            alike = int(known.looks[k]), int(known.looks[j]), int(np.searchsorted(DISTANCES, distance))
            yield alike, (factual, answer), row


def _stack(rows: list[tuple]) -> Questions:
    scene, removed, asked, factual, answer, distance, final = zip(*rows, strict=True)
    return Questions(
        *(np.array(column, np.int64) for column in (scene, removed, asked)),
        np.array(factual),
        np.array(answer),
        np.array(distance, np.float32),
        np.array(final, np.float32),
    )
