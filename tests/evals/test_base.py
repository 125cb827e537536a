"""Intervals and pooling by hand and from printed tables."""

import numpy as np
import pytest

from cjepa_jax.evals import base, stats


def test_a_share_has_the_normal_interval_of_its_count():
    assert base.binomial(0.5, 100) == pytest.approx(1.96 * 0.05)
    assert base.binomial(0.1, 400) == pytest.approx(1.96 * 0.015)
    assert base.binomial(1.0, 10) == 0.0 and base.binomial(1 + 1e-16, 10) == 0.0


def test_students_quantiles_are_those_of_the_printed_tables():
    for count, quantile in ((2, 12.706), (3, 4.303), (4, 3.182), (11, 2.228)):
        assert base.student(count) == pytest.approx(quantile, abs=5e-4)
    assert np.isnan(base.student(1))


def test_random_initialisations_are_one_row_with_the_interval_of_their_mean():
    score = base.over_inits("accuracy", [0.4, 0.5, 0.6], 30)
    assert score[:3] == ("accuracy", base.RANDOM, pytest.approx(0.5)) and score.count == 30
    assert score.interval == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)  # deviation 0.1, divided by 2
    assert (score.kind, score.of) == ("floor", "inits") and np.isnan(base.over_inits("accuracy", [0.4], 30).interval)


def test_pooling_is_the_mean_of_what_is_chosen_and_0_of_nothing():
    tokens = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    where = np.array([[True, False, True], [False, False, False]])
    assert base.pool(tokens, where).tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_a_mean_has_its_standard_error_and_of_one_value_none():
    assert base.mean(np.array([1.0, 2.0, 3.0, 6.0])) == pytest.approx((3.0, 1.96 * np.sqrt(14 / 3) / 2))
    value, half = base.mean(np.array([2.0]))
    assert value == 2 and np.isnan(half)


def test_the_bootstrap_of_a_mean_is_1_96_standard_errors_wide_on_either_side():
    values = np.random.default_rng(0).normal(size=400)
    half = stats.half_width(lambda rows: values[rows].mean(), 400, 0)
    assert half == pytest.approx(1.96 * values.std() / 20, rel=0.08)  # of 1000 draws: 3 of its own deviations
    assert half == stats.half_width(lambda rows: values[rows].mean(), 400, 0)
    assert half != stats.half_width(lambda rows: values[rows].mean(), 400, 1)
    of_sums = stats.half_width_of_sums(lambda sums: sums[:, 0] / 400, values[:, None], 0)
    assert of_sums == pytest.approx(1.96 * values.std() / 20, rel=0.08)
