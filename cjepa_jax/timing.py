"""Where the time goes: scenes per second, the share of waiting for data, the time that is left, compilations."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
    """Measures the training loop between two log lines.

        clock = Clock(step=0, total=1000, batch=32)
        clock.waited(0.02)        # the device was idle until the next batch came
        with clock.outside():     # a probe, a report: not training
            probe(state)
        metrics |= clock.lap(step)

    Args:
      step: steps that are done already (a resumed run).
      total: steps of the whole run.
      batch: scenes per step.
      now: a clock in seconds.
    """

    def __init__(self, step: int, total: int, batch: int, now: Callable[[], float] = time.perf_counter):
        self._total, self._batch, self._now = total, batch, now
        self._step, self._since = step, now()
        self._waited = self._away = 0.0
        self._laps, self._pace = 0, 0.0  # pace: seconds per step, smoothed over laps

    def waited(self, seconds: float) -> None:
        """Adds time in which the device had nothing to do for want of a batch."""
        self._waited += seconds

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Leaves what happens inside out of every measure."""
        start = self._now()
        try:
            yield
        finally:
            self._away += self._now() - start

    def lap(self, step: int) -> dict[str, float]:
        """The metrics of the steps since the last lap, of which there must be at least one; starts the next lap.

        scenes_per_s; step_time_ms; data_wait, a share from 0 to 1; eta_s, seconds left at the pace of the last laps.
        """
        now = self._now()
        steps, seconds = step - self._step, max(now - self._since - self._away, 1e-9)
        pace = seconds / steps
        # The first lap compiles, which says nothing about the rest: smoothing starts from the second.
        self._pace = pace if self._laps < 2 else 0.7 * self._pace + 0.3 * pace
        self._laps += 1
        waited = self._waited
        self._step, self._since, self._waited, self._away = step, now, 0.0, 0.0
        return {
            "scenes_per_s": self._batch / pace,
            "step_time_ms": 1e3 * pace,
            "data_wait": min(waited / seconds, 1.0),
            "eta_s": self._pace * (self._total - step),
        }


def compilations(jitted: Callable) -> int:
    """For how many shapes a `jax.jit` function has been compiled; 0 where this JAX does not tell (it is not public)."""
    return getattr(jitted, "_cache_size", int)()
