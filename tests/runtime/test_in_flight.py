"""Steps that run while the host prepares the next ones."""

import threading
import time

import pytest

from cjepa_jax.runtime.in_flight import MOST, InFlight


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
    made = InFlight(lambda *step: booked.append(step))
    made.booked = booked
    yield made
    made.close()


def test_it_waits_for_older_steps_alone_and_books_them_in_order(flight):
    results = [Result() for _ in range(4)]
    for step, result in enumerate(results[:MOST]):
        flight.started(step, result, compiled=step == 0)
        flight.arrived()
    results[0].done.set()
    flight.settle(MOST - 1)  # returns although step 1 runs
    assert [(step, compiled) for step, _, compiled in flight.booked] == [(0, True)]
    flight.started(2, results[2], compiled=False)
    threading.Timer(0.2, lambda: [results[2].done.set(), results[1].done.set()]).start()
    began = time.monotonic()
    flight.settle(0)
    assert time.monotonic() - began > 0.1 and [step for step, *_ in flight.booked] == [0, 1, 2]
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
    waited = [seconds for _, seconds, _ in flight.booked]
    assert 0.2 < waited[0] < 5 and waited[1:] == [0, 0]


def test_what_a_step_raises_comes_out_when_it_is_waited_for(flight):
    broken = Result(RuntimeError("out of memory"))
    broken.done.set()
    flight.started(1, broken, compiled=False)
    with pytest.raises(RuntimeError, match="out of memory"):
        flight.settle(0)
