"""Bootstrap intervals, for statistics other than simple shares."""

from collections.abc import Callable

import numpy as np

from cjepa_jax.configuration import seeds

DRAWS = 1000


def half_width(statistic: Callable[[np.ndarray], float], count: int, seed: int) -> float:
    """Half of the 95 % percentile bootstrap interval (Efron 1979) of `statistic(rows)`.

    rows, int [count], are drawn with replacement from the `count` independent items. The same seed draws the same rows.
    """
    rng = seeds.generator(seed, "bootstrap", count)
    values = [statistic(rng.integers(0, count, count)) for _ in range(DRAWS)]
    low, high = np.quantile(values, (0.025, 0.975))
    return float(high - low) / 2
