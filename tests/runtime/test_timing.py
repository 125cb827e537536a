"""Rates from a clock that the test moves."""

import jax
import jax.numpy as jnp
import pytest

from cjepa_jax.runtime.goodput import Goodput
from cjepa_jax.runtime.timing import Clock, Compiling, compilations, peak_memory


class Time:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def clock(time, folder, **values):
    return Clock(Goodput(folder / "goodput.json", time), **values, now=time)


def steps(clock, time, first, paces):
    """Steps that take this number of seconds each."""
    for step, pace in enumerate(paces, first):
        time.seconds += pace
        clock.stepped(step)


def test_laps(tmp_path):
    time = Time()
    measured = clock(time, tmp_path, step=100, total=200, batch=32)
    steps(measured, time, 101, [50.0])  # compiling
    assert measured.lap(101)["step_time_ms"] == pytest.approx(50_000)
    steps(measured, time, 102, [0.1] * 8)
    time.seconds += 3.2
    measured.stepped(110, waited=1.0)
    with measured.outside("probe"):
        time.seconds += 100.0
    lap = measured.lap(111)
    wanted = {"scenes_per_s": 80.0, "step_time_ms": 400.0, "data_wait": 0.25, "eta_s": 0.4 * 89}
    assert {name: lap[name] for name in wanted} == pytest.approx(wanted)
    assert lap["step_time_p50_ms"] == pytest.approx(100) and lap["step_time_max_ms"] == pytest.approx(3200)
    assert lap["step_time_p50_ms"] <= lap["step_time_p95_ms"] <= lap["step_time_p99_ms"] < lap["step_time_max_ms"]
    assert lap["goodput"] == pytest.approx(53 / 154)


def test_the_remaining_time_is_smoothed_after_the_first_lap(tmp_path):
    time = Time()
    measured = clock(time, tmp_path, step=0, total=100, batch=1)
    etas = []
    for pace in (100.0, 1.0, 2.0):
        steps(measured, time, 1, [pace] * 10)
        etas.append(measured.lap(10 * (len(etas) + 1))["eta_s"])
    assert etas == pytest.approx([9000.0, 80.0, 1.3 * 70])


def test_what_is_outside_stays_outside_when_it_raises_and_waiting_is_at_most_all(tmp_path):
    time = Time()
    measured = clock(time, tmp_path, step=0, total=10, batch=1)
    with pytest.raises(KeyError):
        with measured.outside("probe"):
            time.seconds = 2.0
            raise KeyError
    time.seconds = 4.0
    measured.stepped(1, waited=3.0)
    lap = measured.lap(1)
    assert (lap["step_time_ms"], lap["data_wait"]) == (2000.0, 1.0)


def test_a_cpu_does_not_tell_its_memory():
    assert peak_memory() == {}


def test_compilations_are_counted_by_shape():
    double = jax.jit(lambda x: 2 * x)
    counts = [compilations(double)]
    for size in (3, 3, 4):
        double(jnp.zeros(size))
        counts.append(compilations(double))
    assert counts == [0, 1, 1, 2]
    assert compilations(lambda x: x) == 0


def test_what_was_compiled_since_the_last_time_is_noticed_once():
    compiling = Compiling()
    assert not compiling.again()
    add = jax.jit(lambda x: x + 41.25)
    add(1.0)
    assert compiling.again() and not compiling.again()
    add(2.0)
    assert not compiling.again()
    add(jnp.ones(3))
    assert compiling.again()
