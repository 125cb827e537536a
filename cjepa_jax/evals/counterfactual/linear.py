"""Ridge regression on more rows than fit into memory, with its strength chosen on rows that are held out. NumPy."""

import dataclasses
from collections.abc import Callable

import numpy as np

from cjepa_jax.evals.ridge import STRENGTHS

HELD = 5  # one scene in five, the last ones, is held out while the strength is chosen


@dataclasses.dataclass
class Sums:
    """Sums of rows x [.., D] and y [.., P] for a linear regression, float64. `a + b`: the sums of both sets of rows."""

    rows: int
    x: np.ndarray  # [D]
    y: np.ndarray  # [P]
    xx: np.ndarray  # [D, D]
    xy: np.ndarray  # [D, P]
    yy: float

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "Sums":
        x, y = (np.asarray(values, np.float64).reshape(-1, values.shape[-1]) for values in (x, y))
        return cls(len(x), x.sum(0), y.sum(0), xx=x.T @ x, xy=x.T @ y, yy=float((y * y).sum()))

    def __add__(self, other: "Sums") -> "Sums":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Sums(*(mine + theirs for mine, theirs in pairs))

    def solve(self, *strengths: float) -> list["Linear"]:
        """Ridge with penalty strength * rows, for each strength, on features standardised by these rows."""
        centre, mean = self.x / self.rows, self.y / self.rows
        covariance = self.xx - self.rows * np.outer(centre, centre)
        spread = np.sqrt(np.maximum(np.diag(covariance), 0) / self.rows)
        scale = np.where(spread > 1e-8 * max(spread.max(), 1e-300), spread, np.inf)  # a constant feature is left out
        values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        cross = vectors.T @ ((self.xy - self.rows * np.outer(centre, mean)) / scale[:, None])
        found = []
        for strength in strengths:
            shrunk = cross / (np.maximum(values, 0) + strength * self.rows)[:, None]
            weights = vectors @ shrunk / scale[:, None]
            found.append(Linear(weights.astype(np.float32), (mean - centre @ weights).astype(np.float32)))
        return found

    def error(self, linear: "Linear", offset: bool = True) -> float:
        """The sum of |y - prediction|^2 over these rows. offset False: of a prediction without its offset."""
        w = linear.weights.astype(np.float64)
        b = linear.offset.astype(np.float64) if offset else np.zeros(len(self.y))
        square = self.yy + ((self.xx @ w) * w).sum() + self.rows * (b @ b)
        return float(square - 2 * (self.xy * w).sum() - 2 * b @ self.y + 2 * b @ (self.x @ w))


@dataclasses.dataclass(frozen=True)
class Linear:
    """y = x weights + offset: [D, P], [P]."""

    weights: np.ndarray
    offset: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.offset

    def change(self, x: np.ndarray) -> np.ndarray:
        """The change of y for a change x of the features. The offset cancels."""
        return x @ self.weights


def fit(kept: Sums, held: Sums, error: Callable[[Linear], float]) -> tuple[Linear, float]:
    """Ridge on all rows, and its strength: the one whose fit to the kept rows has the least error."""
    errors = [error(found) for found in kept.solve(*STRENGTHS)]
    best = float(STRENGTHS[int(np.argmin(errors))])
    return (kept + held).solve(best)[0], best


def held_out(scenes: int) -> np.ndarray:
    """The scenes that are held out while the strength is chosen: the last fifth, bool [scenes]."""
    return np.arange(scenes) >= scenes - max(1, scenes // HELD)
