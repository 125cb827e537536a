"""Steps that run while the host prepares the next ones."""

import threading
import time

import pytest

from cjepa_jax.runtime.goodput import Goodput
from cjepa_jax.runtime.in_flight import MOST, InFlight
from cjepa_jax.runtime.timing import Clock


class Result:
    """Stands for an array on a device: ready when told."""

    def __init__(self, error=None):
        self.done, self.error = threading.Event(), error

    def block_until_ready(self):
        assert self.done.wait(30)
        if self.error:
            raise self.error


@pytest.fixture
def flight():
    booked = []
    made = InFlight(booked.append)
    made.booked = booked
    yield made
    for step in made._running:
        step.result.done.set()
    made.close()


def test_it_waits_for_older_steps_alone_and_books_them_in_order(flight):
    results = [Result() for _ in range(4)]
    for step, result in enumerate(results[:MOST]):
        flight.started(step, result, compiled=step == 0)
        flight.arrived()
    results[0].done.set()
    flight.settle(MOST - 1)  # returns although step 1 runs
    assert [(done.step, done.compiled) for done in flight.booked] == [(0, True)]
    flight.started(2, results[2], compiled=False)
    threading.Timer(0.2, lambda: [results[2].done.set(), results[1].done.set()]).start()
    began = time.monotonic()
    flight.settle(0)
    assert time.monotonic() - began > 0.1 and [done.step for done in flight.booked] == [0, 1, 2]
    flight.settle(0)
    assert len(flight.booked) == 3


def test_only_the_time_after_a_steps_end_is_waiting_for_its_next_batch(flight):
    late, early = Result(), Result()
    late.done.set()
    flight.started(1, late, compiled=False)
    time.sleep(0.3)
    flight.arrived()
    flight.settle(0)
    flight.started(2, early, compiled=False)
    flight.arrived()  # the batch is here before the step is done
    threading.Timer(0.2, early.done.set).start()
    flight.settle(0)
    last = Result()
    last.done.set()
    flight.started(3, last, compiled=False)  # nothing comes after it
    flight.settle(0)
    waited = [done.waited for done in flight.booked]
    assert 0.2 < waited[0] < 5 and waited[1:] == [0, 0]


def test_closing_waits_for_what_runs_so_that_no_thread_is_left_in_the_device():
    """A thread that returns from a device into a Python that ends aborts the process."""
    made, running = InFlight(lambda done: None), Result()
    made.started(1, running, compiled=False)
    threading.Timer(0.2, running.done.set).start()
    made.close()
    assert running.done.is_set() and not made._watcher.is_alive()


def test_what_a_step_raises_comes_out_when_it_is_waited_for(flight):
    broken = Result(RuntimeError("out of memory"))
    broken.done.set()
    flight.started(1, broken, compiled=False)
    with pytest.raises(RuntimeError, match="out of memory"):
        flight.settle(0)


def run(folder, steps, compute, fetch, lines, compiles=()):
    """A loop as training's: (seconds by kind, each step's seconds by its number)."""
    goodput = Goodput(folder / "goodput.json", time.perf_counter)
    clock, times = Clock(goodput, 0, steps, 1), {}

    def booked(done):
        clock.stepped(*done)
        times[done.step] = clock._times[-1]

    flight, before = InFlight(booked), None
    goodput.spent("init")
    for step in range(steps):
        if step in compiles:
            time.sleep(0.5)
        result, start = Result(), before
        threading.Thread(target=computed, args=(start, result, compute)).start()
        before = result
        flight.started(step, result, compiled=step in compiles)
        time.sleep(fetch)
        flight.settle(MOST - 1)
        if step + 1 < steps:
            flight.arrived()
        if step in lines or step + 1 == steps:
            flight.settle(0)
            clock.lap(step + 1)
    flight.close()
    goodput.spent("other")
    return goodput.seconds, times


def computed(start, result, seconds):
    """A device: a step begins when the one before has ended."""
    if start:
        start.done.wait()
    time.sleep(seconds)
    result.done.set()


def test_compiling_is_booked_for_the_step_that_compiled(tmp_path):
    seconds, times = run(tmp_path, 8, compute=0.05, fetch=0.0, lines=(), compiles=(4,))
    assert 0.45 < seconds["compile"] < 0.9 and seconds["step"] < 0.6
    assert max(times, key=times.get) == 4


def test_where_data_are_slow_every_step_takes_as_long_as_its_batch(tmp_path):
    seconds, times = run(tmp_path, 8, compute=0.02, fetch=0.15, lines=(1, 3, 5))
    assert all(0.1 < times[step] < 0.29 for step in range(1, 7)), times
    assert seconds["data"] > 0.7 and seconds["data"] > 2 * seconds["step"]
