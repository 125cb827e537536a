"""Ridge regression, with its strength selected by leave-one-out within the training set. NumPy, float64."""

import numpy as np

STRENGTHS = 10.0 ** np.arange(-4, 5)  # times the number of training rows. Fixed, never tuned on test rows


def r2(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> np.ndarray:
    """Coefficient of determination on the test rows, for each target: features [n, D], targets [n, P] -> [P].

    Features are standardised by the training rows. The result is 1 - error / variance around the *training* mean. A
    prediction of that mean scores 0, and a worse prediction is negative. NaN for a target that is constant in the test
    rows.
    """
    train_y, test_y = np.asarray(train_y, np.float64), np.asarray(test_y, np.float64)
    mean, prediction = train_y.mean(0), predict(train_x, train_y, test_x)
    error, variance = ((test_y - prediction) ** 2).sum(0), ((test_y - mean) ** 2).sum(0)
    return np.where(np.ptp(test_y, axis=0) > 0, 1.0 - error / np.where(variance > 0, variance, 1.0), np.nan)


def predict(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """Predictions [m, P] for features [m, D], from a fit to features [n, D] and targets [n, P].

    Features are standardised by the training rows.
    """
    centre, scale = moments(train_x)
    mean = np.mean(train_y, 0, np.float64)
    return mean + (test_x - centre) / scale @ fit((train_x - centre) / scale, train_y - mean)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [D] over the rows of [n, D], in float64.

    The deviation of a constant feature is infinite, so that standardisation sets the feature to 0.
    """
    centre, scale = np.mean(x, 0, np.float64), np.std(x, 0, dtype=np.float64)
    return centre, np.where(scale > 1e-8 * max(scale.max(), 1e-300), scale, np.inf)


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights [D, P] for centred features [n, D] and targets [n, P]. Each target has its own strength."""
    rows = len(x)
    u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ y
    best, weights = np.full(y.shape[1], np.inf), np.zeros((x.shape[1], y.shape[1]))
    for strength in STRENGTHS * rows:
        shrink = sigma**2 / (sigma**2 + strength)
        leverage = (u**2 * shrink).sum(1) + 1.0 / rows  # 1 / rows, because the mean is also fitted
        left_out = (y - u @ (shrink[:, None] * projected)) / np.maximum(1.0 - leverage, 1e-9)[:, None]
        error = (left_out**2).mean(0)
        better = error < best
        candidate = vt.T @ ((shrink / np.where(sigma > 0, sigma, 1.0))[:, None] * projected)
        weights[:, better], best[better] = candidate[:, better], error[better]
    return weights
