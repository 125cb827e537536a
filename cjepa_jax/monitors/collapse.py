"""The collapse alarm as a monitor: `train.collapse` says whether it warns or stops."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from cjepa_jax.experiment import Experiment
from cjepa_jax.monitors.base import Monitor
from cjepa_jax.runtime.collapse_monitor import Alarms
from cjepa_jax.types import Batch, TrainState


@dataclasses.dataclass
class Collapse(Monitor):
    """See `Alarms`. It logs nothing: it warns, or ends the run.

    mode: "warn" or "stop". batch: scenes of a step.
    """

    mode: str
    batch: int

    def __post_init__(self):
        self._grace = 0
        self.resume(())

    def begin(self, run: Experiment, state: TrainState) -> None:
        """An objective may say for how many steps collapse is normal: `grace`."""
        self._grace = int(getattr(getattr(run, "objective", None), "grace", 0))
        self.resume(())

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The run's first log line is what later ones are compared with."""
        self._alarms = Alarms(self.mode, self.batch - 1, rows, self._grace)

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> None:
        """Raises NumericsError for collapsed features if the mode is "stop"."""
        self._alarms.check(int(metrics["step"]), metrics)
