"""The inner loop of training: steps, log lines, monitors and checkpoints, until the last step or a signal."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from cjepa_jax import sharding
from cjepa_jax.experiment import Experiment
from cjepa_jax.host import memory
from cjepa_jax.monitors.schedule import Monitors, Scheduled
from cjepa_jax.reports import summary
from cjepa_jax.runtime import distributed
from cjepa_jax.runtime.accumulator import Window
from cjepa_jax.runtime.checkpoint import Checkpoints, size_in_bytes
from cjepa_jax.runtime.goodput import Goodput
from cjepa_jax.runtime.in_flight import MOST, Done, InFlight
from cjepa_jax.runtime.preemption import Signals, Stopped
from cjepa_jax.runtime.run_manifest import Entry
from cjepa_jax.runtime.timing import Clock, Compiling, compilations, peak_memory
from cjepa_jax.runtime.watchdog import Watchdog
from cjepa_jax.runtime.workdir import Workdir
from cjepa_jax.runtime.writers import Console, Writers, format_progress
from cjepa_jax.types import Batch, TrainState


@dataclasses.dataclass(kw_only=True)
class Loop:
    """The parts that a run has when its first step begins. `train` uses them once.

    Attributes:
      config, workdir, run: the config, the run's folder, and the objects built from the config.
      state: after `step` steps. `train` advances both. No other object may hold a reference to the state, because the
        step reuses its memory.
      logged: log lines from before `step`.
      monitors: what is called at chosen steps. The online probe is one of them.
      checkpoints, writers, window, console, goodput: where scores, states, metrics and times go.
      signals, watchdog: what may end the loop from outside.
      entry: the run manifest's entry of this process. It is closed here if the loop fails.
    """

    config: Any
    workdir: Workdir
    run: Experiment
    step: int
    state: TrainState
    logged: list[dict[str, Any]]
    monitors: Monitors
    checkpoints: Checkpoints
    writers: Writers
    window: Window
    console: Console
    goodput: Goodput
    signals: Signals
    watchdog: Watchdog
    entry: Entry

    def __post_init__(self):
        self.start = self.step

    def train(self) -> bool:
        """Steps until the last step or a signal, then saves the state. Returns whether it was a signal."""
        self._clock = Clock(self.goodput, self.step, self.run.steps, self.config.train.batch)
        self._batches = self.run.loader.iterate(self.step, self.run.steps)
        self._flight = InFlight(self._stepped)
        with contextlib.ExitStack() as stack:
            stack.push(self._failed)
            stack.enter_context(contextlib.closing(self.checkpoints))
            stack.enter_context(contextlib.closing(self._batches))
            stack.enter_context(contextlib.closing(self._flight))
            whole = self._steps()
            with self.goodput.spending("checkpoint"):
                self.checkpoints.wait()
            stopped = self.step < self.run.steps or not whole
            if stopped:
                self.signals.leave_soon()
        return stopped

    def _steps(self) -> bool:
        """Returns whether the last monitor was not interrupted by a signal."""
        start, steps, run = self.start, self.run.steps, self.run
        compiling = Compiling()
        arrays: Any
        scores: dict[str, float] | None = {}
        stop = start == steps
        if start and (missed := self.monitors.missed(start, steps, self.logged)):
            scores = self._watch(missed, None, {})
        arrays, batch, stop = (None, None, stop) if stop else self._fetch()  # stops if the probe was interrupted
        self.goodput.spent("init")
        while not stop:
            self.step += 1
            compiled = compilations(run.step)
            with self.signals.nothing_to_save() if self.step == start + 1 else contextlib.nullcontext():
                self.state, metrics = run.step(self.state, batch)
            self.window.add(self.step, arrays, metrics)
            # The next batch is fetched while the step runs. Only the time after the step's end counts as waiting.
            fresh = self.step == start + 1 or compilations(run.step) > compiled
            self._flight.started(self.step, metrics["loss"], fresh)
            seen = batch if self.monitors.want_batches else None
            arrays, batch, asked = self._fetch()
            if arrays:
                self._flight.arrived()
            self.checkpoints.check_for_errors()

            stop = asked or self.step == steps  # a signal after this point stops the next step
            if self.step % self.config.log.every == 0 or stop:
                self._log(seen)
            scores = {}
            if due := self.monitors.due(self.step, steps):
                self._flight.settle(0)
                with self._clock.outside("probe"):
                    memory.release()
                    scores = self._watch(due, seen, metrics)
                    (stopping,) = distributed.agree(self.signals.received is not None)
                stop = stop or bool(stopping)
            seen = None
            # Also after a probe, because the state may be the best so far. Also after the first step, so that a run
            # that is killed repeatedly still makes progress.
            if self.step % self.config.checkpoint.every == 0 or scores or self.step == start + 1 or stop:
                self._save(scores)
            if compiling.again():  # the step, or a monitor
                memory.set_aside()
            self.watchdog.beat()
        # The last batch is released here, because it is in the data workers' shared memory.
        return scores is not None

    def _fetch(self) -> tuple[Any, Batch | None, bool]:
        """The next batch on the host and on the devices, None at the end, and whether any process got a signal."""
        arrays = self.signals.unless_stopped(lambda: next(self._batches, None))
        shape = self.run.loader.shape_of(arrays) if arrays else 0
        asked, shape = distributed.agree(self.signals.received is not None, shape)
        if asked or arrays is None:
            return None, None, bool(asked)
        arrays = self.run.loader.at_shape(arrays, shape)
        self._flight.settle(MOST - 1)  # so that the devices hold the batch of one step, and the next one
        return arrays, sharding.put_batch(self.run.mesh, arrays), False

    def _watch(self, due: list[Scheduled], batch: Batch | None, metrics: Mapping[str, Any]) -> dict[str, float] | None:
        """Calls monitors and writes what they return.

        Returns: the metrics of the monitors that a signal may interrupt, such as the probe's scores. None on all
        processes if one was interrupted. The next start then repeats the evaluation. The step's checkpoint has no
        scores, so it is never the best one.
        """
        found: dict[str, float] = {}
        metrics = {"step": self.step, **metrics}
        for each in due:
            if not each.interruptible:
                if values := each(self.state, batch, metrics):
                    self.writers.write(self.step, values)
                continue
            own = {name: distributed.local(getattr(self.state, name)) for name in each.local}
            state = dataclasses.replace(self.state, **own)
            scores = self.signals.unless_stopped(functools.partial(each, state, batch, metrics))
            (broken_off,) = distributed.agree(scores is None)
            if broken_off or scores is None:
                return None
            self.writers.write(self.step, scores)
            found |= scores
            if text := summary.probes(scores, each.name):
                self.console.print(f"{each.name} at step {self.step}: {text}")
        return found

    def _stepped(self, done: Done) -> None:
        self._clock.stepped(*done)
        self.watchdog.beat()

    def _log(self, batch: Batch | None) -> None:
        """Writes a log line of the steps since the last one. Raises NumericsError, DataError: see Window and Alarms."""
        self._flight.settle(0)
        compiled = {"compilations": compilations(self.run.step)}
        metrics = self.window.flush() | self._clock.lap(self.step) | peak_memory() | compiled
        self.writers.write(self.step, metrics)
        self.window.check_budgets()
        with self._clock.outside("probe"):
            self._watch(self.monitors.at_log_lines(), batch, metrics)
        self.console.progress(format_progress(self.step, self.run.steps, metrics))
        if distributed.first():
            self.goodput.save()

    def _save(self, scores: Mapping[str, float] | None) -> None:
        self._flight.settle(0)
        with self._clock.outside("checkpoint"):
            memory.release()
            if distributed.first():
                self.workdir.require_space(size_in_bytes(self.state))
            self.checkpoints.save(self.step, self.state, scores)

    def _failed(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Records in the manifest what ended the loop."""
        if kind is not None:
            stopped = kind is Stopped and self.signals.received
            self.entry.close(stopped.name if stopped else f"error: {error}", self.step)
