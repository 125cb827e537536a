"""Heads against the closed form and on problems whose answer is known."""

import numpy as np
import pytest

from cjepa_jax.evals import heads, ridge


def xor(rows, seed):
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (rows, 2))
    return (2.0 * signs - 1 + rng.normal(0, 0.2, (rows, 2))) * [1, 50] + 7, signs[:, 0] ^ signs[:, 1]


def test_ridge_classifies_as_the_closed_form():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=(60, 5)) * [1, 1e3, 1, 1, 1] + np.eye(3, 5)[y]
    scores = heads.ridge_classify(x[:40], y[:40], x[40:])
    assert scores.shape == (20, 3)
    centre, scale = x[:40].mean(0), x[:40].std(0)
    train, test = (x[:40] - centre) / scale, (x[40:] - centre) / scale
    targets = 2.0 * np.eye(3)[y[:40]] - 1
    closed = [  # each class's column with every strength
        test @ np.linalg.solve(train.T @ train + s * 40 * np.eye(5), train.T @ (targets - targets.mean(0)))
        + targets.mean(0)
        for s in ridge.STRENGTHS
    ]
    for c in range(3):
        assert min(np.abs(scores[:, c] - one[:, c]).max() for one in closed) < 1e-9
    assert (heads.ridge_classify(x, y, x).argmax(1) == y).mean() > 0.5


@pytest.mark.slow
def test_an_mlp_solves_xor_which_a_ridge_cannot_and_repeats_its_bits():
    (x, y), (test_x, test_y) = xor(300, 0), xor(300, 1)
    linear = heads.ridge_classify(x, y, test_x).argmax(1)
    assert (linear == test_y).mean() < 0.65
    first = heads.mlp(x, y, test_x, 2, seed=0, hidden=32, steps=300)
    assert first.dtype == np.float32 and first.shape == (300, 2)
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-5)
    assert (first.argmax(1) == test_y).mean() > 0.97
    np.testing.assert_array_equal(first, heads.mlp(x, y, test_x, 2, seed=0, hidden=32, steps=300))
    assert (first != heads.mlp(x, y, test_x, 2, seed=1, hidden=32, steps=300)).any()


def test_a_regression_in_the_targets_own_units():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 3))
    y = np.stack([1e4 * x[:, 0] * x[:, 1], x[:, 2] - 3, np.full(600, 0.25)], 1)
    out = heads.mlp(x[:500], y[:500], x[500:], 0, seed=0, hidden=32, steps=300)
    error = np.square(out - y[500:]).mean(0)
    assert (error[:2] < 0.1 * y[500:, :2].var(0)).all() and error[2] < 1e-2
    assert (ridge.r2(x[:500], y[:500], x[500:], y[500:])[0]) < 0.2  # a product is not linear


def test_the_held_out_rows_stop_it_before_it_learns_noise():
    rng = np.random.default_rng(0)
    x, y, test = rng.normal(size=(60, 30)), rng.integers(0, 2, 60), rng.normal(size=(200, 30))
    out = heads.mlp(x, y, test, 2, seed=0, hidden=32, steps=300)
    assert np.abs(out - 0.5).mean() < 0.2  # 300 steps learn the labels by heart and would answer surely


def test_what_has_no_rows_is_refused():
    with pytest.raises(ValueError, match="at least 2 rows"):
        heads.learn(heads._dense, [], np.zeros((1, 2)), np.zeros(1), 0, 10)
