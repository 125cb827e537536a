"""AUCCESS, the score of PHYRE (Bakhtin et al. 2019, arXiv:1908.05656).

It is a share of solved tasks in which early attempts have the largest weights.
"""

from collections.abc import Sequence

import numpy as np

ATTEMPTS = 100  # number of attempts that an agent may make at a task


def auccess(solved_at: Sequence[int] | np.ndarray, attempts: int = ATTEMPTS) -> float:
    """The share of tasks solved within k attempts, averaged over k = 1 .. attempts with weights ln(k + 1) - ln(k).

    The best score is 1: every task is solved at the first attempt.

    solved_at: for each task, the number (from 1) of the first valid attempt that solved it. 0, or more than `attempts`,
    if none did. Raises ValueError for no tasks or a negative number.
    """
    solved_at = np.asarray(solved_at)
    if solved_at.ndim != 1 or not len(solved_at) or solved_at.min() < 0:
        raise ValueError(f"solved_at must be one attempt, from 0, for each of at least one task, not {solved_at!r}")
    k = np.arange(1, attempts + 1)
    weights = np.log(k + 1) - np.log(k)
    solved_within = ((solved_at[:, None] > 0) & (solved_at[:, None] <= k)).mean(0)
    return float(weights @ solved_within / weights.sum())


def solved_at(statuses: Sequence[int] | np.ndarray) -> int:
    """The number (from 1) of the first attempt that solved a task. 0 if none did.

    statuses: one for each attempt, in order. Positive: solved. Negative: not solved. 0: an invalid action, which does
    not count as an attempt.
    """
    counted = np.asarray(statuses)
    counted = counted[counted != 0]
    return int(np.argmax(counted > 0)) + 1 if (counted > 0).any() else 0
