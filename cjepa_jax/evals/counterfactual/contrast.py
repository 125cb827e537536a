"""Scores of the predicted difference of two removals against the true one: docs/EVALUATION.md, (E1) to (E6).

All scores are functions of three sums per scene. So tokens are chosen by a mask, and an interval is a bootstrap over
scenes.
"""

from typing import NamedTuple

import numpy as np

from cjepa_jax.evals import stats

LEAST = 0.01


class Products(NamedTuple):
    """Inner products of a predicted vector x and a true one y: at every token, float64 [n, N], or summed, [n]."""

    predicted: np.ndarray  # |x|^2
    inner: np.ndarray  # <x, y>
    true: np.ndarray  # |y|^2

    def over(self, where: np.ndarray) -> "Products":
        """The sums over chosen tokens, bool [n, N]: [n] each."""
        return Products(*((values * where).sum(1) for values in self))


def products(x: np.ndarray, y: np.ndarray) -> Products:
    """The inner products of x and y, [n, N, P] each, at every token."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return Products((x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1))


def joined(parts: list[Products]) -> Products:
    """The products of the scenes of all parts, in order."""
    return Products(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def share(sums: Products, scale: float = 1.0) -> float:
    """R2 around 0: 1 - sum |scale x - y|^2 / sum |y|^2 over all scenes. 0 for x = 0, 1 for scale x = y.

    NaN where y is 0 everywhere.
    """
    return float(_share(np.array([values.sum() for values in sums]), scale)) if sums.true.sum() > 0 else float("nan")


def r2(sums: Products, seed: int, scale: float = 1.0) -> tuple[float, float]:
    """`share`, and half of its 95 % interval by bootstrap over scenes."""
    value = share(sums, scale)
    if not np.isfinite(value):
        return value, value
    return value, stats.half_width_of_sums(lambda drawn: _share(drawn, scale), np.stack(sums, -1), seed)


def _share(sums: np.ndarray, scale: float) -> np.ndarray:
    """`share` of sums [..., 3]. A bootstrap draw whose true differences are all 0 gives 0."""
    predicted, inner, true = np.moveaxis(sums, -1, 0)
    error = scale**2 * predicted - 2 * scale * inner + true
    return np.where(true > 0, 1 - error / np.where(true > 0, true, 1), 0.0)


def matched(sums: Products, seed: int) -> tuple[float, float]:
    """2AFC: the share of scenes with <x, y> > 0, where x is the predicted difference of two removals and y the true
    one. In these scenes the two predictions are matched with the right outcomes. A tie counts 1/2.

    Scenes without a difference (|y|^2 below LEAST of the median scene's) have nothing to match and are left out.

    Returns: the share, and half of its 95 % interval by bootstrap over scenes. NaN if no scene is left.
    """
    inner = sums.inner[(sums.true > 0) & (sums.true >= LEAST * np.median(sums.true))]
    if not len(inner):
        return float("nan"), float("nan")
    right = np.where(inner == 0, 0.5, inner > 0)
    half = stats.half_width_of_sums(lambda drawn: drawn[:, 0] / len(right), right[:, None].astype(float), seed)
    return float(right.mean()), half


def best_scale(sums: Products) -> float:
    """The factor of x, 0 or more, with the least sum of |factor x - y|^2. 0 where x is 0 everywhere.

    A negative factor would reward a model that always predicts the removal of the other object.
    """
    predicted = sums.predicted.sum()
    return max(float(sums.inner.sum() / predicted), 0.0) if predicted > 0 else 0.0
