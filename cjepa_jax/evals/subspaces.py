"""Subspaces of a layer that carry a variable, what they do, and what of it is chance. NumPy, float64.

The definitions, the derivation of SAS and RCE and the traps are in docs/STATES.md. n clips, D width, C classes, r rank.
A subspace is an orthonormal basis U [D, r]. Extractors see pooled features x [n, D] and classes y int [n].
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from cjepa_jax.evals import ridge

SHARE = 0.5  # of the variance of each class that class_pca keeps
MOST = 2  # class_pca has at most this number of ranks of the means
L1 = 0.02  # strength of the sparse probe, for standardised features
STEPS = 200  # of the sparse probe's proximal gradient
STRENGTHS = 10.0 ** np.arange(-4, 1)  # of the readout, one of which is selected on the last fifth
LIMIT = {"maxiter": 300}  # of the readout's fit. Separable classes would take thousands at the least strength
RESAMPLES = 2000  # of clips and of a control's draws together
ROUNDING = 1e-6  # nats: effects that differ by less are equal
TILT = 16.0  # of a matched basis, at most. With 4 one of eight draws misses the share where variances are similar
TINY = 1e-9  # of a basis: directions with a smaller share of the largest singular value are left out


class Readout(NamedTuple):
    """Softmax regression of the class on features: weights [D, C], bias [C], strength of its l2 penalty."""

    weights: np.ndarray
    bias: np.ndarray
    strength: float

    def log_p(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """log p(y) of each row, [n], for features [n, D] and classes int [n]."""
        return np.take_along_axis(special.log_softmax(self.logits(x), -1), y[:, None], -1)[:, 0]

    def logits(self, x: np.ndarray) -> np.ndarray:
        """[n, D] -> [n, C]."""
        return np.asarray(x, np.float64) @ self.weights + self.bias

    def pull(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """d log p(y) / d features, [n, D]."""
        error = np.eye(len(self.bias))[y] - special.softmax(self.logits(x), -1)
        return error @ self.weights.T


def readout(x: np.ndarray, y: np.ndarray, classes: int, strength: float = 0.0) -> Readout:
    """Softmax regression with an l2 penalty on standardised features. Strength 0 is selected on the last fifth."""
    x, cut = np.asarray(x, np.float64), len(x) - max(1, len(x) // 5)
    if strength:
        return _softmax(x, y, classes, strength)
    losses = [-_softmax(x[:cut], y[:cut], classes, s).log_p(x[cut:], y[cut:]).mean() for s in STRENGTHS]
    return _softmax(x, y, classes, STRENGTHS[int(np.argmin(losses))])


def _softmax(x, y, classes, strength):
    centre, scale = ridge.moments(x)
    z, wanted = (x - centre) / scale, np.eye(classes)[y]

    def loss(flat):
        w = flat.reshape(-1, classes)
        logits = z @ w[1:] + w[0]
        error = (special.softmax(logits, -1) - wanted) / len(z)
        value = (special.logsumexp(logits, -1) - (logits * wanted).sum(-1)).mean() + strength * (w[1:] ** 2).sum() / 2
        return value, np.concatenate([error.sum(0)[None], z.T @ error + strength * w[1:]]).ravel()

    found = optimize.minimize(loss, np.zeros((x.shape[1] + 1) * classes), jac=True, method="L-BFGS-B", options=LIMIT)
    w = found.x.reshape(-1, classes)
    weights = w[1:] / scale[:, None]
    return Readout(weights, w[0] - centre @ weights, strength)


def orthonormal(columns: np.ndarray, rank: int) -> np.ndarray:
    """The `rank` strongest left singular vectors of [D, m], fewer if the columns span less: U [D, r]."""
    u, sigma, _ = np.linalg.svd(np.asarray(columns, np.float64), full_matrices=False)
    return u[:, : min(rank, int((sigma > TINY * max(sigma[:1].max(initial=0), 1e-300)).sum()))]


def means(x: np.ndarray, y: np.ndarray, rank: int) -> np.ndarray:
    """Difference in means: the span of the class means minus their mean."""
    centres = np.stack([x[y == c].mean(0, dtype=np.float64) for c in np.unique(y)])
    return orthonormal((centres - centres.mean(0)).T, min(rank, len(centres) - 1))


def class_pca(x: np.ndarray, y: np.ndarray, rank: int) -> np.ndarray:
    """Class-conditional PCA: for each class the principal components of its deviations from the mean of all clips,
    scaled by their deviation, up to half of its variance. Then the joint span, cut to twice the rank of the means."""
    centre, parts = x.mean(0, dtype=np.float64), []
    for c in np.unique(y):
        _, sigma, vt = np.linalg.svd(x[y == c] - centre, full_matrices=False)
        share = np.cumsum(sigma**2) / max((sigma**2).sum(), 1e-300)
        count = int(np.searchsorted(share, SHARE)) + 1
        parts.append((vt[:count] * sigma[:count, None] / np.sqrt((y == c).sum())).T)
    return orthonormal(np.concatenate(parts, 1), MOST * rank)


def l1(x: np.ndarray, y: np.ndarray, rank: int) -> np.ndarray:
    """The span of the weights of `sparse_probe`, in the coordinates of x."""
    return orthonormal(sparse_probe(x, y) / ridge.moments(x)[1][:, None], rank)


def sparse_probe(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """L1-regularised softmax regression on standardised features by accelerated proximal gradient: weights [D, C]."""
    centre, scale = ridge.moments(x)
    z, wanted = (x - centre) / scale, np.eye(y.max() + 1)[y]
    step = 1 / (0.5 * np.linalg.norm(z, 2) ** 2 / len(z) + 1e-12)
    w = ahead = np.zeros((z.shape[1], wanted.shape[1]))
    bias, t = np.log(wanted.mean(0) + 1e-12), 1.0
    for _ in range(STEPS):
        error = special.softmax(z @ ahead + bias, -1) - wanted
        moved = ahead - step * z.T @ error / len(z)
        new = np.sign(moved) * np.maximum(np.abs(moved) - step * L1, 0)
        further = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead, w, t = new + (t - 1) / further * (new - w), new, further
    return w


def gradient(slopes: np.ndarray, rank: int) -> np.ndarray:
    """The strongest eigenvectors of E[g g'] of gradients g [n, D] of log p(y) by a common shift of all tokens."""
    return orthonormal(np.asarray(slopes).T, rank)


EXTRACTORS: dict[str, Callable] = {"means": means, "class_pca": class_pca, "l1": l1}


def interchange(x: Any, other: Any, u: Any) -> Any:
    """Tokens [..., D] with the part in U of `other`: of a twin's tokens, or of the mean [D] (ablation), or of x with a
    shift (steering). NumPy or JAX arrays."""
    return x + ((other - x) @ u) @ u.T


def sas(u: np.ndarray, v: np.ndarray) -> float:
    """Subspace alignment score: the mean squared cosine of the principal angles, of min(r_u, r_v) angles. 0 to 1."""
    least = min(u.shape[1], v.shape[1])
    return float((np.square(u.T @ v)).sum() / least) if least else float("nan")


def sas_chance(u: np.ndarray, v: np.ndarray) -> float:
    """The expectation of `sas` for random subspaces of these ranks: max(r_u, r_v) / D."""
    return max(u.shape[1], v.shape[1]) / len(u)


def angles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Principal angles in degrees, ascending, [min(r_u, r_v)]."""
    return np.degrees(np.arccos(np.clip(np.linalg.svd(u.T @ v, compute_uv=False), 0, 1)))


def share_of_variance(u: np.ndarray, covariance: np.ndarray) -> float:
    """tr(U' C U) / tr C."""
    return float(np.trace(u.T @ covariance @ u) / max(np.trace(covariance), 1e-300))


def random_basis(rng: np.random.Generator, width: int, rank: int) -> np.ndarray:
    """A uniform subspace: control 1."""
    return np.linalg.qr(rng.normal(size=(width, rank)))[0]


def matched_basis(rng: np.random.Generator, covariance: np.ndarray, rank: int, share: float) -> np.ndarray:
    """A random subspace with this share of the variance: control 2.

    A Gaussian [D, r] in the basis of the principal components is scaled by their deviations to the power t, and
    orthonormalised. t is found by bisection. The share is the nearest that such a tilt reaches.
    """
    values, vectors = np.linalg.eigh(covariance)
    deviation = np.log(np.maximum(values, 1e-12 * max(values.max(), 1e-300))) / 2
    start, low, high = rng.normal(size=(len(values), rank)), -TILT, TILT

    def basis(t):
        weight = np.exp(np.clip(t * (deviation - deviation.max() * (t > 0) - deviation.min() * (t <= 0)), -200, 0))
        return vectors @ np.linalg.qr(weight[:, None] * start)[0]

    for _ in range(27):
        t = (low + high) / 2
        low, high = (t, high) if share_of_variance(basis(t), covariance) < share else (low, t)
    return basis((low + high) / 2)


def bootstrap(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    """Rows int [n] of a bootstrap within each class, so that none is lost: control 4."""
    return np.concatenate([rng.choice(np.flatnonzero(y == c), (y == c).sum()) for c in np.unique(y)])


class Ratio(NamedTuple):
    """An effect against its controls. Intervals are 95 %, over clips and draws."""

    effect: float  # mean nats
    low: float
    high: float
    control: float  # mean nats of the strongest control
    worst: str  # its name
    ratio: float  # effect / control. inf: the control has no effect, and the subspace has one
    ratio_low: float
    ratio_high: float
    difference: float  # effect - control
    difference_low: float
    difference_high: float


def ratio(effect: np.ndarray, controls: dict[str, np.ndarray], rng: np.random.Generator) -> Ratio:
    """Effects per clip, [n], against controls, each [draws, n] of the same clips. One control gives the ratio to it,
    several the ratio to the worst: in each resample, the one with the largest mean effect."""
    sampled = _resampled(effect, controls, rng)
    value = effect.mean()
    by_name = {name: float(draws.mean()) for name, draws in controls.items()}
    worst = max(by_name, key=by_name.__getitem__)
    own, other = sampled[:, 0], sampled[:, 1:].max(1)
    low, high = np.quantile(own, (0.025, 0.975))
    ratios = _divided(own, other)
    order = np.sort(ratios)  # quantiles of infinite values are not defined
    edge = int(0.025 * RESAMPLES)
    lower, upper = np.quantile(own - other, (0.025, 0.975))
    return Ratio(
        effect=float(value),
        low=float(low),
        high=float(high),
        control=by_name[worst],
        worst=worst,
        ratio=float(_divided(np.array(value), np.array(by_name[worst]))),
        ratio_low=float(order[edge]),
        ratio_high=float(order[-1 - edge]),
        difference=float(value - by_name[worst]),
        difference_low=float(lower),
        difference_high=float(upper),
    )


def _resampled(effect, controls, rng):
    """Means of the effect and of each control in RESAMPLES resamples of clips and draws: [RESAMPLES, 1 + controls]."""
    n = len(effect)
    clips = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    columns = [clips @ effect]
    for draws in controls.values():
        count = len(draws)
        chosen = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
        columns.append(((chosen @ draws) * clips).sum(1))
    return np.stack(columns, 1)


def _divided(value, by):
    """value / by. Where `by` is not above ROUNDING: inf for a value above ROUNDING, 0 for another."""
    some = by > ROUNDING
    return np.where(some, value / np.where(some, by, 1.0), np.where(value > ROUNDING, np.inf, 0.0))


def rce(
    own: np.ndarray, moved: np.ndarray, controls: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Retained causal effect of a subspace that was found elsewhere: (CE(moved) - CE(control)) / (CE(own) -
    CE(control)) with the strongest control, and its 95 % interval.

    own, moved: effects per clip [n] of both subspaces on the same clips. controls: each [draws, n]. None (not defined)
    unless the interval of the denominator is above 0.
    """
    state = rng.bit_generator.state
    sampled = _resampled(own, controls, rng)
    rng.bit_generator.state = state  # the same clips and draws
    other = _resampled(moved, controls, rng)[:, 0]
    control = sampled[:, 1:].max(1)
    below = sampled[:, 0] - control
    if np.quantile(below, 0.025) <= ROUNDING:
        return None
    base = max(draws.mean() for draws in controls.values())
    low, high = np.quantile((other - control) / below, (0.025, 0.975))
    return float((moved.mean() - base) / (own.mean() - base)), float(low), float(high)


class Correlations(NamedTuple):
    """Canonical correlations of two encoders, means over the first pairs of directions."""

    held_out: float  # on the clips that were not fitted
    permuted: float  # the same on pairs of different clips
    fitted: float  # on the fitted clips: close to 1 for anything, if there are few clips
    kept: tuple[int, int]  # principal components of each


def cca(x: np.ndarray, y: np.ndarray, fit: int, rng: np.random.Generator, directions: int = 7) -> Correlations:
    """CCA of features [n, D] and [n, E] of the same clips, fitted on the first `fit` and scored on the rest.

    Both are reduced to at most fit / 10 principal components of the fitted clips first.
    """
    most = max(1, fit // 10)
    (a, held_a), (b, held_b) = (_whitened(np.asarray(z, np.float64), fit, most) for z in (x, y))
    u, sigma, vt = np.linalg.svd(a.T @ b / fit)
    count = min(directions, len(sigma))
    one, other = held_a @ u[:, :count], held_b @ vt[:count].T
    order = rng.permutation(len(other))
    kept = a.shape[1], b.shape[1]
    return Correlations(_correlation(one, other), _correlation(one, other[order]), float(sigma[:count].mean()), kept)


def _whitened(z, fit, most):
    """Principal components of the first rows with unit variance, and those of the rest. 0 for constant features."""
    z = z - z[:fit].mean(0)
    _, sigma, vt = np.linalg.svd(z[:fit], full_matrices=False)
    known = sigma > 1e-8 * max(sigma[0], 1e-8)
    count = max(1, min(most, int(known.sum())))
    scale = np.where(known, np.sqrt(fit) / np.where(known, sigma, 1.0), 0.0)
    white = z @ (vt[:count].T * scale[:count])
    return white[:fit], white[fit:]


def _correlation(one, other):
    one, other = (z - z.mean(0) for z in (one, other))
    norms = np.linalg.norm(one, axis=0) * np.linalg.norm(other, axis=0)
    return float(((one * other).sum(0) / np.maximum(norms, 1e-300)).mean())


def bins(values: Sequence[float] | np.ndarray, count: int) -> np.ndarray:
    """Values as classes of equal frequency, int [n] in 0 .. count - 1. Values that are classes already stay apart."""
    values = np.asarray(values, np.float64)
    found = np.unique(values, return_inverse=True)[1]
    if found.max() < count:
        return found
    edges = np.quantile(values, np.arange(1, count) / count)
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]
