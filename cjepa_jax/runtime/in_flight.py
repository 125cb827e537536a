"""Steps that have been started, and of which it is not known yet that they are done."""

import collections
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

MOST = 2  # steps: the device has the next one before it is done with one


class InFlight:
    """Lets the host be a step ahead, so that a device never waits for the host's bookkeeping between two steps.

        flight = InFlight(clock.stepped)
        for step, batch in enumerate(batches):
            state, metrics = run(state, batch)     # returns before it is computed
            flight.started(step, metrics["loss"], compiled=step == 0)
            batch = next(batches)
            flight.arrived(); flight.settle(MOST - 1)
        flight.settle(0)

    Args:
      booked: called once for each step that is done, in their order, with its number, the seconds for which the device
        then waited for the next batch, and `compiled`.
    """

    def __init__(self, booked: Callable[[int, float, bool], Any]):
        self._booked = booked
        self._running: collections.deque[list[Any]] = collections.deque()  # step, compiled, its end, its next batch
        self._watch = ThreadPoolExecutor(1, "step")

    def started(self, step: int, result: jax.Array, compiled: bool) -> None:
        """A step was started, of which `result` is ready when it is done."""
        self._running.append([step, compiled, self._watch.submit(_when_ready, result), None])

    def arrived(self) -> None:
        """The batch of the step after the last one that was started is here."""
        self._running[-1][3] = time.perf_counter()

    def settle(self, left: int) -> None:
        """Waits until at most `left` steps are running, and books the others. Raises what a step raised."""
        while len(self._running) > left:
            step, compiled, end, arrived = self._running.popleft()
            ended = end.result()
            self._booked(step, max(0.0, arrived - ended) if arrived else 0.0, compiled)

    def close(self) -> None:
        """Ends the thread that watches. What is running is not waited for."""
        futures: list[Future] = [each[2] for each in self._running]
        for future in futures:
            future.cancel()
        self._watch.shutdown(wait=False)


def _when_ready(array: jax.Array) -> float:
    array.block_until_ready()
    return time.perf_counter()
