"""Rates from a clock that the test moves."""

import jax
import jax.numpy as jnp
import pytest

from cjepa_jax.timing import Clock, compilations


class Time:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_laps():
    time = Time()
    clock = Clock(step=100, total=200, batch=32, now=time)
    time.seconds = 50.0
    assert clock.lap(110)["step_time_ms"] == pytest.approx(5000)  # compiling
    clock.waited(0.25)
    clock.waited(0.75)
    time.seconds += 4.0
    with clock.outside():
        time.seconds += 100.0
    lap = clock.lap(120)
    assert lap == pytest.approx({"scenes_per_s": 80.0, "step_time_ms": 400.0, "data_wait": 0.25, "eta_s": 32.0})


def test_the_remaining_time_is_smoothed_after_the_first_lap():
    time = Time()
    clock = Clock(step=0, total=100, batch=1, now=time)
    etas = []
    for pace in (100.0, 1.0, 2.0):
        time.seconds += 10 * pace
        etas.append(clock.lap(10 * (len(etas) + 1))["eta_s"])
    assert etas == pytest.approx([9000.0, 80.0, 1.3 * 70])


def test_what_is_outside_stays_outside_when_it_raises_and_waiting_is_at_most_all():
    time = Time()
    clock = Clock(step=0, total=10, batch=1, now=time)
    with pytest.raises(KeyError):
        with clock.outside():
            time.seconds = 2.0
            raise KeyError
    time.seconds = 4.0
    clock.waited(3.0)
    lap = clock.lap(1)
    assert (lap["step_time_ms"], lap["data_wait"]) == (2000.0, 1.0)


def test_compilations_are_counted_by_shape():
    double = jax.jit(lambda x: 2 * x)
    counts = [compilations(double)]
    for size in (3, 3, 4):
        double(jnp.zeros(size))
        counts.append(compilations(double))
    assert counts == [0, 1, 1, 2]
    assert compilations(lambda x: x) == 0
