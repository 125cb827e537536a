"""Bootstrap intervals, for statistics other than simple shares."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from cjepa_jax.configuration import seeds

DRAWS = 1000


def half_width(statistic: Callable[[np.ndarray], float], count: int, seed: int) -> float:
    """Half of the 95 % percentile bootstrap interval (Efron 1979) of `statistic(rows)`.

    rows, int [count], are drawn with replacement from the `count` independent items. The same seed draws the same rows.
    """
    rng = seeds.generator(seed, "bootstrap", count)
    return _half([statistic(rng.integers(0, count, count)) for _ in range(DRAWS)])


def half_width_of_sums(statistic: Callable[[np.ndarray], np.ndarray], items: np.ndarray, seed: int) -> float:
    """`half_width` of a function of sums over items, [n, P]: statistic(sums [DRAWS, P]) -> [DRAWS]. Much faster."""
    return _half(statistic(_counts(len(items), seed) @ items))


def _half(values: Sequence[float] | np.ndarray) -> float:
    """Half of the interval that holds the middle 95 % of the draws' values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(high - low) / 2


@functools.lru_cache(maxsize=4)
def _counts(count: int, seed: int) -> np.ndarray:
    """How often each draw has each of `count` items, float64 [DRAWS, count]. Do not modify it."""
    rows = seeds.generator(seed, "bootstrap", count).integers(0, count, (DRAWS, count))
    return np.stack([np.bincount(row, minlength=count) for row in rows]).astype(np.float64)
