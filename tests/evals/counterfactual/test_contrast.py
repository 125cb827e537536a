"""The formulas of the difference of two removals, on arrays whose answers are known."""

import numpy as np
import pytest

from cjepa_jax.evals.counterfactual import contrast, linear
from cjepa_jax.evals.counterfactual.contrast import Products, products

N, TOKENS, P = 40, 9, 12
RNG = np.random.default_rng(0)
K, O = RNG.normal(size=(2, N, TOKENS, P)).astype(np.float32)  # noqa: E741
REST = RNG.random((N, TOKENS)) < 0.7


def sums(x, y, where=REST):
    return products(x, y).over(where)


def test_anything_that_ignores_which_object_is_removed_gets_exactly_0_and_half():
    same = RNG.normal(size=K.shape).astype(np.float32)
    found = sums(same - same, K - O)
    assert contrast.share(found) == 0.0 and contrast.matched(found, 0) == (0.5, 0.0)
    assert contrast.r2(found, 0) == (0.0, 0.0) and contrast.best_scale(found) == 0.0


def test_the_truth_gets_exactly_1():
    found = sums(K - O, K - O)
    assert contrast.r2(found, 0) == (1.0, 0.0) and contrast.matched(found, 0) == (1.0, 0.0)
    assert contrast.best_scale(found) == 1.0


def test_r2_is_the_formula_over_chosen_tokens():
    x = 0.3 * (K - O) + 0.1 * RNG.normal(size=K.shape)
    expected = 1 - np.square(x - (K - O))[REST].sum() / np.square(K - O)[REST].sum()
    assert contrast.share(sums(x, K - O)) == pytest.approx(expected, rel=1e-6)
    scaled = 1 - np.square(2 * x - (K - O))[REST].sum() / np.square(K - O)[REST].sum()
    assert contrast.share(sums(x, K - O), 2.0) == pytest.approx(scaled, rel=1e-6)
    assert contrast.share(sums(x, K - O, np.ones_like(REST))) != contrast.share(sums(x, K - O))


@pytest.mark.parametrize("factor, value, right", [(0.5, 0.75, 1.0), (2.0, 0.0, 1.0), (-1.0, -3.0, 0.0)])
def test_a_shrunk_prediction_is_matched_and_one_scale_mends_it(factor, value, right):
    found = sums(factor * (K - O), K - O)
    assert contrast.share(found) == pytest.approx(value) and contrast.matched(found, 0)[0] == right
    assert contrast.best_scale(found) == pytest.approx(max(1 / factor, 0))  # the opposite is not mended
    assert contrast.share(found, contrast.best_scale(found)) == pytest.approx(right)


def test_the_best_scale_is_that_of_least_squares():
    x = K - O + RNG.normal(size=K.shape)
    found = sums(x, K - O)
    best = contrast.best_scale(found)
    assert best == pytest.approx(np.linalg.lstsq(x[REST].reshape(-1, 1), (K - O)[REST].ravel())[0][0], rel=1e-5)
    assert all(contrast.share(found, best) >= contrast.share(found, best + step) for step in (-0.1, 0.1))


def test_ties_count_a_half_and_the_rest_by_their_sign():
    found = Products(np.ones(4), np.array([2.0, -1.0, 0.0, 0.5]), np.ones(4))
    assert contrast.matched(found, 0)[0] == 2.5 / 4
    alike = found._replace(true=np.array([1.0, 1.0, 0.0, 0.004]))  # the last two outcomes do not differ
    assert contrast.matched(alike, 0)[0] == 1 / 2
    assert np.isnan(contrast.matched(found._replace(true=np.zeros(4)), 0)).all()


def test_nothing_that_changes_has_no_r2():
    value, half = contrast.r2(sums(K, 0 * K), 0)
    assert np.isnan(value) and np.isnan(half)


def test_intervals_are_over_scenes():
    x = (K - O) + RNG.normal(size=K.shape)
    found = sums(x, K - O)
    value, half = contrast.r2(found, 0)
    more = contrast.r2(Products(*(np.concatenate([v] * 16) for v in found)), 0)
    assert more[0] == pytest.approx(value) and half / more[1] == pytest.approx(4, rel=0.15)
    each = 1 - (found.predicted - 2 * found.inner + found.true) / found.true
    assert half == pytest.approx(1.96 * each.std() / np.sqrt(N), rel=0.5)


def test_sums_of_rows_give_ridge_and_its_error():
    x, y = RNG.normal(size=(50, 4)) * [1, 2, 0.1, 1] + 3, RNG.normal(size=(50, 2))
    y = y + x @ RNG.normal(size=(4, 2))
    whole = linear.Sums.of(x[:20], y[:20]) + linear.Sums.of(x[20:].reshape(3, 10, 4), y[20:].reshape(3, 10, 2))
    found = whole.solve(0.1)[0]
    z = (x - x.mean(0)) / x.std(0)
    expected = np.linalg.solve(z.T @ z + 0.1 * 50 * np.eye(4), z.T @ (y - y.mean(0)))
    np.testing.assert_allclose(found(x), z @ expected + y.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.change(x[:3] - x[3:6]), found(x[:3]) - found(x[3:6]), atol=1e-5)
    assert whole.error(found) == pytest.approx(np.square(y - found(x)).sum(), rel=1e-4)
    assert whole.error(found, offset=False) == pytest.approx(np.square(y - found.change(x)).sum(), rel=1e-4)


def test_a_constant_feature_says_nothing():
    x = np.stack([RNG.normal(size=50), np.full(50, 7.0)], -1)
    found = linear.Sums.of(x, x[:, :1]).solve(1e-4)[0]
    assert found.weights[1] == 0 and found(x)[:, 0] == pytest.approx(x[:, 0], abs=1e-3)


def test_the_strength_is_the_one_with_the_least_error_on_what_is_held_out():
    x = RNG.normal(size=(60, 40))
    y = x[:, :1] + 3 * RNG.normal(size=(60, 1))  # noise: no ridge would fit it
    kept, held = linear.Sums.of(x[:45], y[:45]), linear.Sums.of(x[45:], y[45:])
    found, strength = linear.fit(kept, held, held.error)
    errors = {s: held.error(kept.solve(s)[0]) for s in linear.STRENGTHS}
    assert strength == min(errors, key=errors.get) > linear.STRENGTHS[0]
    np.testing.assert_array_equal(found.weights, (kept + held).solve(strength)[0].weights)
    assert linear.held_out(10).tolist() == [False] * 8 + [True] * 2 and linear.held_out(3).sum() == 1
