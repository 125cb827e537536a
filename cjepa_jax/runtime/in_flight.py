"""Steps that have been started, and of which it is not known yet that they are done."""

import collections
import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

MOST = 2  # steps: the device has the next one before it is done with one


class Done(NamedTuple):
    """A step that is done: its number, the seconds for which the device then waited for the next batch, whether it was
    compiled, and when step and wait were over (time.perf_counter)."""

    step: int
    waited: float
    compiled: bool
    until: float


@dataclasses.dataclass
class _Step:
    number: int
    result: Any
    compiled: bool
    over: threading.Event = dataclasses.field(default_factory=threading.Event)
    ended: float = 0.0
    arrived: float | None = None  # its next batch
    error: Exception | None = None

    def done(self) -> Done:
        until = max(self.ended, self.arrived or 0.0)
        return Done(self.number, until - self.ended, self.compiled, until)


class InFlight:
    """Lets the host be a step ahead, so that a device does not wait for the host's bookkeeping between two steps.

        flight = InFlight(book)
        for step, batch in enumerate(batches):
            state, metrics = run(state, batch)     # returns before it is computed
            flight.started(step, metrics["loss"], compiled=step == 0)
            flight.settle(MOST - 1)
            batch = next(batches)
            flight.arrived()
        flight.settle(0)

    A thread notes when each step ends. It must have ended before Python does, which would otherwise abort.

    Args:
      booked: called once for each step that is done, in their order.
    """

    def __init__(self, booked: Callable[[Done], Any]):
        self._booked = booked
        self._running: collections.deque[_Step] = collections.deque()
        self._watched: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._watcher = threading.Thread(target=self._watch, name="steps", daemon=True)
        self._watcher.start()

    def started(self, step: int, result: jax.Array, compiled: bool) -> None:
        """A step was started, of which `result` is ready when it is done."""
        self._running.append(_Step(step, result, compiled))
        self._watched.put(self._running[-1])

    def arrived(self) -> None:
        """The batch of the step after the last one that was started is here."""
        self._running[-1].arrived = time.perf_counter()

    def settle(self, left: int) -> None:
        """Waits until at most `left` steps are running, and books the others. Raises what a step raised."""
        while len(self._running) > left:
            step = self._running.popleft()
            step.over.wait()
            if step.error:
                raise step.error
            self._booked(step.done())

    def close(self) -> None:
        """Waits for the steps that run, also if they fail, and ends the thread."""
        self._watched.put(None)
        self._watcher.join()

    def _watch(self) -> None:
        while step := self._watched.get():
            try:
                step.result.block_until_ready()
            except Exception as error:  # of any class, as the device raises it; `settle` raises it in the main thread
                step.error = error
            step.ended = time.perf_counter()
            step.result = None
            step.over.set()
