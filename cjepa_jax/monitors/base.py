"""What a monitor is: a function of state, batch and metrics that the training loop calls at chosen steps."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.experiment import Experiment
from cjepa_jax.types import Batch, TrainState


class Monitor:
    """A monitor that needs more than one call: the run, the log lines from before a restart, or memory.

    A plain function with the arguments of `__call__` and its options is a monitor too.

    Attributes:
      interruptible: whether a stop signal may break off a call, if the config says `every`. The next start repeats the
        call, with batch None and no metrics. The parts of the state in `local` are local to the process then, because
        the call must not talk to other processes.
      local: names of such parts.
    """

    interruptible: ClassVar[bool] = False
    local: ClassVar[tuple[str, ...]] = ("params", "extra")

    def begin(self, run: Experiment, state: TrainState) -> None:
        """Called once in each process before the first step. `state` is the run's random initialisation. It must not
        be kept, because its memory is reused."""

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Called after `begin` with the lines of metrics.jsonl up to the step that the run resumes from, or none."""

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Numbers by name, or arrays of at most MOST numbers. They are logged as "monitor/name". None: nothing.

        Args:
          state: after the step. It must not be kept, because the next step reuses its memory.
          batch: of the step.
          metrics: with "step", its number. Without `every` in the config: the log line, so means since the last one.
            Otherwise the metrics of this step.
        """
        raise NotImplementedError

    def pictures(self, state: TrainState) -> Mapping[str, np.ndarray]:
        """Pictures for the report by title, uint8 [H, W, 3] each. Called once, after the last step, in each process.
        The state is local to the process. Only objectives that hide a part of each scene (objectives.base.Masking)
        have pictures in their reports."""
        return {}
