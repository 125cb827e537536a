"""The monitors of a run: which there are, when each is called, and what it may return."""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from cjepa_jax.configuration import build
from cjepa_jax.errors import CjepaError, ConfigError, printable, raised
from cjepa_jax.experiment import Experiment
from cjepa_jax.monitors.base import Monitor
from cjepa_jax.monitors.collapse import Collapse
from cjepa_jax.monitors.fallbacks import Fallbacks
from cjepa_jax.monitors.online_probe import OnlineProbe
from cjepa_jax.runtime import fallbacks
from cjepa_jax.runtime.ending import known_error
from cjepa_jax.types import Batch, TrainState

MOST = 64  # numbers of an array that a monitor returns
KEY = re.compile(r"[A-Za-z]\w{0,63}(/\w{1,64}){0,3}", re.ASCII)
LIMIT = f"must be a finite number, or an array of at most {MOST}"


class Scheduled:
    """A monitor with its name and its steps.

    Args:
      name: its metrics are "name/...".
      every: called each time after this number of steps, and at the last one. 0: at each log line.
      monitor: a Monitor, or a function (state, batch, metrics) -> numbers by name.
      target: what the config names, for errors. None: this package's own, whose mistakes keep their traceback.
      final: with every = 0: called at the last step instead of at log lines.
    """

    def __init__(self, name: str, every: int, monitor: Callable, target: Any = None, final: bool = False):
        self.name, self.monitor, self.target = name, monitor, target
        self._every, self._final = every, final or every > 0
        self.interruptible = self._final and bool(getattr(monitor, "interruptible", False))
        self.local = getattr(monitor, "local", Monitor.local)  # parts of the state

    @property
    def at_log_lines(self) -> bool:
        """Whether it is called at each log line."""
        return not self._final

    def due(self, step: int, steps: int) -> bool:
        """Whether it is called after this step, not counting log lines."""
        return self._final and (step == steps or bool(self._every and step % self._every == 0))

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a log line holds its metrics."""
        return any(name.startswith(f"{self.name}/") for name in row)

    def begin(self, run: Experiment, state: TrainState) -> None:
        """See Monitor.begin."""
        if hasattr(self.monitor, "begin"):
            with self._named("before the first step"):
                self.monitor.begin(run, state)

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """See Monitor.resume."""
        if hasattr(self.monitor, "resume"):
            with self._named("before the first step"):
                self.monitor.resume(rows)

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Its metrics, "name/..." each. Raises ConfigError, one line, if a monitor of the user's fails or returns
        anything but finite numbers."""
        if self.target and self.has(metrics):
            raise ConfigError(f"monitors.{self.name}: the run's own metrics have this name. Choose another one")
        with self._named(f"at step {metrics['step']}"):
            found = self.monitor(state, batch, metrics)
        return {} if found is None else dict(self._numbers(found))

    def pictures(self, state: TrainState) -> dict[str, np.ndarray]:
        """See Monitor.pictures. Raises ConfigError, one line, for anything but pictures."""
        if not hasattr(self.monitor, "pictures"):
            return {}
        with self._named("after the last step"):
            found = self.monitor.pictures(state)
        for title, array in dict(found).items():
            if not isinstance(title, str) or getattr(array, "dtype", None) != np.uint8 or np.shape(array)[2:] != (3,):
                text = "must be uint8 arrays [H, W, 3] by title"
                raise ConfigError(f"monitors.{self.name}: pictures returned {_shown(title)}: {text}")
        return dict(found)

    def _numbers(self, found: Any) -> Iterator[tuple[str, float]]:
        if not isinstance(found, Mapping):
            raise ConfigError(f"monitors.{self.name}: returned {_shown(found)}: must be numbers by name, or None")
        for key, value in found.items():
            if not isinstance(key, str) or not KEY.fullmatch(key):
                raise ConfigError(f"monitors.{self.name}: returned the name {_shown(key)}: must be letters and digits")
            numbers = _array(value)
            if numbers is None or not np.isfinite(numbers).all():
                raise ConfigError(f"monitors.{self.name}: {key} = {_shown(value)}: {LIMIT}")
            parts = [f"_{i}" for i in range(numbers.size)] if numbers.ndim else [""]
            yield from zip((f"{self.name}/{key}{part}" for part in parts), numbers.ravel().tolist(), strict=True)

    @contextlib.contextmanager
    def _named(self, when: str) -> Iterator[None]:
        try:
            yield
        except CjepaError:
            raise
        except Exception as error:  # a monitor is a program of the user's: anything that it raises is one line
            if self.target is None or known_error(error):
                raise
            said = raised(error, inspect.getsourcefile(self.target))
            raise ConfigError(f"monitors.{self.name} {when}: {said}") from error


class Monitors:
    """The alarms of collapse and of missing objects, those of `config.monitors`, and the online probe.

    Raises ConfigError for a monitor that cannot be built.
    """

    def __init__(self, config: Any):
        own = [_own(name, section) for name, section in (config.get("monitors") or {}).items()]
        sizes = {name: config.probe[name] for name in ("train", "test", "batch")}
        self.want_batches = bool(own)
        self._all = [
            Scheduled("collapse", 0, Collapse(config.train.collapse, config.train.batch)),
            Scheduled("fallbacks", 0, Fallbacks(config.train.batch, fallbacks.expected(config.to_dict()))),
            *own,
            Scheduled("probe", config.probe.every, OnlineProbe(**sizes), final=True),
        ]

    def pictures(self, state: TrainState) -> dict[str, np.ndarray]:
        """What all of them show in the report, by title."""
        return {title: array for each in self._all for title, array in each.pictures(state).items()}

    def begin(self, run: Experiment, state: TrainState) -> None:
        """Hands each the run and its random initialisation."""
        for each in self._all:
            each.begin(run, state)

    def resume(self, rows: list[dict[str, Any]]) -> None:
        """Hands each the log lines from before."""
        for each in self._all:
            each.resume(rows)

    def at_log_lines(self) -> list[Scheduled]:
        """Those that each log line calls."""
        return [each for each in self._all if each.at_log_lines]

    def due(self, step: int, steps: int) -> list[Scheduled]:
        """The others that are called after this step. Those that a signal may break off come last."""
        return sorted((each for each in self._all if each.due(step, steps)), key=lambda each: each.interruptible)

    def missed(self, step: int, steps: int, rows: list[dict[str, Any]]) -> list[Scheduled]:
        """Those that a signal broke off after this step, at which the run resumes."""
        here = [row for row in rows if row["step"] == step]
        return [each for each in self.due(step, steps) if each.interruptible and not any(map(each.has, here))]


def _own(name: str, section: Any) -> Scheduled:
    options = {key: value for key, value in section.items() if key != "every"}
    where = f"monitors.{name}"
    target = build.locate(options["type"], f"{where}.type")
    if isinstance(target, type):
        try:
            monitor = build.build(options, where)
        except ConfigError as error:  # a monitor does not know the name of its section
            raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from error
        if not callable(monitor):
            raise ConfigError(f"monitors.{name}.type = {options['type']!r}: must have __call__(state, batch, metrics)")
    else:
        monitor = build.bind(options, where, ("state", "batch", "metrics"))
    return Scheduled(name, section.get("every", 0), monitor, target)


def _array(value: Any) -> np.ndarray | None:
    """A number or an array of few as float64; None for anything else."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "OUSMmc" or array.size > MOST:
            return None
        return array.astype(np.float64)
    except (TypeError, ValueError):
        return None


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
