"""Ridge regression against its closed form, brute-force leave-one-out, and the meaning of the score."""

import numpy as np
import pytest

from cjepa_jax.evals import ridge


def data(rows=30, width=4, targets=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width))
    y = x @ rng.normal(size=(width, targets)) + rng.normal(size=(rows, targets)) * [0.1, 1.0, 10.0][:targets]
    return x, y


def closed_form(x, y, strength):
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)


@pytest.mark.parametrize("rows, width", [(30, 4), (12, 40), (20, 20)])
def test_strength_is_that_of_brute_force_leave_one_out(rows, width):
    """Refits without each row, mean included. Per target."""
    x, y = data(rows, width)
    x, y = x - x.mean(0), y - y.mean(0)
    errors = np.zeros((len(ridge.STRENGTHS), y.shape[1]))
    for s, strength in enumerate(ridge.STRENGTHS * rows):
        for i in range(rows):
            rest = np.arange(rows) != i
            mean_x, mean_y = x[rest].mean(0), y[rest].mean(0)
            w = closed_form(x[rest] - mean_x, y[rest] - mean_y, strength)
            errors[s] += (y[i] - mean_y - (x[i] - mean_x) @ w) ** 2
    best = ridge.STRENGTHS[errors.argmin(0)] * rows
    expected = np.stack([closed_form(x, y[:, p], best[p]) for p in range(y.shape[1])], 1)
    np.testing.assert_allclose(ridge.fit(x, y), expected, rtol=1e-6, atol=1e-9)


def test_r2_is_against_the_training_mean():
    x, y = data(300)
    x, test_x, y, test_y = x[:200], x[200:], y[:200], y[200:]
    score = ridge.r2(x, y, test_x, test_y)
    assert score[0] > 0.99 and score[0] > score[1] > score[2]
    noise = np.random.default_rng(1).normal(size=(100, 4))
    assert np.abs(ridge.r2(np.random.default_rng(2).normal(size=(200, 4)), y, noise, test_y)).max() < 0.15
    shifted = ridge.r2(np.zeros((200, 4)), y, np.zeros((100, 4)), test_y + [100, 0, 0])
    assert shifted[0] == pytest.approx(0.0, abs=1e-9)  # guessing the training mean scores 0 even far from it
    mean = y.mean(0)
    centre, scale = x.mean(0), x.std(0)
    prediction = mean + (test_x - centre) / scale @ ridge.fit((x - centre) / scale, y - mean)
    expected = 1 - ((test_y - prediction) ** 2).sum(0) / ((test_y - mean) ** 2).sum(0)
    np.testing.assert_allclose(score, expected)


def test_worse_than_the_mean_is_negative():
    x, y = data(200)
    assert ridge.r2(x, y, x, -y + 2 * y.mean(0))[0] < -1


def test_scale_and_shift_of_features_and_targets_do_not_matter():
    x, y = data()
    one = ridge.r2(x, y, x[:10], y[:10])
    two = ridge.r2(x * [1, 1e4, 1e-4, 7] + 3, 5 * y - 2, x[:10] * [1, 1e4, 1e-4, 7] + 3, 5 * y[:10] - 2)
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_constant_features_and_targets():
    x, y = data()
    constant = np.concatenate([x, np.full((30, 1), 0.1)], 1)
    np.testing.assert_allclose(ridge.r2(constant, y, constant[:9], y[:9]), ridge.r2(x, y, x[:9], y[:9]), rtol=1e-6)
    surprise = constant[:9] + [0, 0, 0, 0, 50]  # a feature that was constant in training says nothing later
    np.testing.assert_allclose(ridge.r2(constant, y, surprise, y[:9]), ridge.r2(x, y, x[:9], y[:9]), rtol=1e-6)
    score = ridge.r2(x, y, x[:9], np.where([True, False, False], 3.0, y[:9]))
    assert np.isnan(score[0]) and np.isfinite(score[1:]).all()
    assert np.isfinite(ridge.r2(np.zeros((30, 4)), y, np.zeros((9, 4)), y[:9])).all()
    always = np.where([True, False, False], 3.0, y)  # constant in training, not in the test
    assert np.isfinite(ridge.r2(x, always, x[:9], y[:9])).all()
