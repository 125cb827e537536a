"""Timing: scenes per second, step times, the share of waiting for data, remaining time, compilations."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from cjepa_jax.runtime.goodput import Goodput

COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event
SLOWEST = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


class Clock:
    """Measures the training loop between two log lines, and books its time for the whole run.

        clock = Clock(goodput, step=0, total=1000, batch=32)
        clock.stepped(1, waited=0.02)      # the device was idle until the next batch came
        with clock.outside("probe"):       # not training
            probe(state)
        metrics |= clock.lap(step)

    Args:
      goodput: where the time is booked.
      step: steps that are already done (a resumed run).
      total: steps of the whole run.
      batch: scenes per step.
      now: a clock in seconds.
    """

    def __init__(
        self, goodput: Goodput, step: int, total: int, batch: int, now: Callable[[], float] = time.perf_counter
    ):
        self._goodput, self._total, self._batch, self._now = goodput, total, batch, now
        self._step, self._since = step, now()
        self._waited = self._away = 0.0
        self._times: list[float] = []
        self._laps, self._pace = 0, 0.0  # pace: seconds per step, smoothed over laps

    def stepped(self, step: int, waited: float = 0.0, compiled: bool = False, until: float | None = None) -> None:
        """Step number `step` is done. For `waited` seconds of it the device waited for a batch. until: see Goodput."""
        self._waited += waited
        self._times.append(self._goodput.stepped(step, waited, compiled, until))

    @contextlib.contextmanager
    def outside(self, kind: str) -> Iterator[None]:
        """Excludes the time inside from every measure, and books it as `kind` (goodput.KINDS)."""
        start = self._now()
        try:
            with self._goodput.spending(kind):
                yield
        finally:
            self._away += self._now() - start

    def lap(self, step: int) -> dict[str, float]:
        """The metrics of the steps since the last lap (at least one). Starts the next lap.

        scenes_per_s. step_time_ms, the mean, and step_time_p50_ms, _p95_ms, _p99_ms, _max_ms. data_wait, a share from 0
        to 1. eta_s, seconds left at the speed of the last laps. goodput, a share of the run's total time.
        """
        now = self._now()
        steps, seconds = step - self._step, max(now - self._since - self._away, 1e-9)
        pace = seconds / steps
        # The first lap compiles and is not representative, so smoothing starts from the second.
        self._pace = pace if self._laps < 2 else 0.7 * self._pace + 0.3 * pace
        self._laps += 1
        waited, times = self._waited, self._times
        self._step, self._since, self._waited, self._away, self._times = step, now, 0.0, 0.0, []
        slowest = zip(SLOWEST, np.percentile(times, list(SLOWEST.values())), strict=True)
        return {
            "scenes_per_s": self._batch / pace,
            "step_time_ms": 1e3 * pace,
            **{f"step_time_{name}_ms": 1e3 * float(value) for name, value in slowest},
            "data_wait": min(waited / seconds, 1.0),
            "eta_s": self._pace * (self._total - step),
            "goodput": self._goodput.share,
        }


def peak_memory() -> dict[str, float]:
    """peak_memory_gib, of this process's fullest device since it began. {} if devices do not report it (CPUs)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
    return {"peak_memory_gib": max(peaks) / 2**30} if peaks else {}


def compilations(jitted: Callable) -> int:
    """The number of shapes for which a step has been compiled. 0 if this JAX does not report it (it is not public)."""
    return getattr(jitted, "_cache_size", int)()


class Compiling:
    """Whether this process has compiled or loaded a program since the last time that it was asked."""

    def __init__(self):
        self._count = self._known = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **more: Any) -> None:
        self._count += event == COMPILED

    def again(self) -> bool:
        """See the class."""
        before, self._known = self._known, self._count
        return self._known > before
