"""Learning rate and EMA momentum against golden numbers and the cosine written out."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

from cjepa_jax import schedules

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden/formulas.json").read_text())


def test_ema_momentum_golden():
    for case in GOLDEN["ema_momentum"]:
        case = dict(case)
        value = case.pop("value")
        assert float(schedules.ema_momentum(**case)) == pytest.approx(value, abs=2e-7), case


def test_learning_rate_golden():
    for case in GOLDEN["learning_rate"]:
        case = dict(case)
        value = case.pop("value")
        assert float(schedules.learning_rate(**case)) == pytest.approx(value, rel=1e-5, abs=1e-10), case


@pytest.mark.parametrize("step", [0, 1, 250, 500, 999, 1000, 1500, 2000, 5000])
def test_ema_momentum_is_a_cosine_that_stays_at_its_end(step):
    share = min(step / 1000, 1)
    expected = 1.0 - (1.0 - 0.996) * (1 + math.cos(math.pi * share)) / 2
    assert float(schedules.ema_momentum(step, 1000)) == pytest.approx(expected, abs=2e-7)
    assert float(schedules.ema_momentum(step, 1000, 0.9, 0.9)) == pytest.approx(0.9)


@pytest.mark.parametrize("step, share", [(0, 0), (1, 0.001), (250, 0.25), (1000, 1), (5000, 1)])
def test_linear_ema_momentum_is_a_line_that_stays_at_its_end(step, share):
    """As in I-JEPA and V-JEPA: start + i (end - start) / total."""
    for start in (0.996, 0.998):
        expected = start + (1.0 - start) * share
        assert float(schedules.ema_momentum(step, 1000, start, 1.0, "linear")) == pytest.approx(expected, abs=2e-7)
    assert float(schedules.ema_momentum(step, 1000, 0.0, 0.0, "linear")) == 0


@pytest.mark.parametrize("warmup, total", [(0, 100), (1, 100), (40, 100), (100, 100)])
def test_learning_rate_is_a_line_then_a_cosine(warmup, total):
    for step in {0, 1, warmup // 2, warmup, (warmup + total) // 2, total - 1, total, total + 50}:
        if step < warmup:
            expected = 2.0 * step / warmup
        else:
            expected = 2.0 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1))) / 2
        assert float(schedules.learning_rate(step, 2.0, warmup, total)) == pytest.approx(expected, abs=1e-6), step


@pytest.mark.parametrize("warmup, cooldown, total", [(0, 40, 100), (10, 20, 100), (60, 40, 100), (0, 100, 100)])
def test_with_a_cooldown_the_rate_is_constant_and_then_a_line_to_0(warmup, cooldown, total):
    for step in {0, 1, warmup // 2, warmup, (warmup + total - cooldown) // 2, total - cooldown, total - 7, total, 150}:
        rise = min(step / warmup, 1) if warmup else 1
        fall = min(max((total - step) / cooldown, 0), 1)
        rate = float(schedules.learning_rate(step, 2.0, warmup, total, cooldown))
        assert rate == pytest.approx(2.0 * min(rise, fall), abs=1e-6), step


def test_schedules_take_traced_steps():
    steps = np.arange(0, 120, 7, dtype=np.int32)
    rates = jax.jit(jax.vmap(lambda s: schedules.learning_rate(s, 1.0, 30, 100)))(steps)
    taus = jax.jit(jax.vmap(lambda s: schedules.ema_momentum(s, 100)))(steps)
    np.testing.assert_allclose(rates, [schedules.learning_rate(int(s), 1.0, 30, 100) for s in steps], atol=1e-6)
    np.testing.assert_allclose(taus, [schedules.ema_momentum(int(s), 100) for s in steps], atol=1e-6)
    assert (np.diff(taus) >= 0).all()
