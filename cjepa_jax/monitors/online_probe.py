"""The online probe as a monitor: `probe.every` and the section's other keys."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from cjepa_jax.evals.probe import Probe
from cjepa_jax.experiment import Experiment
from cjepa_jax.monitors.base import Monitor
from cjepa_jax.runtime import distributed
from cjepa_jax.types import Batch, TrainState


@dataclasses.dataclass
class OnlineProbe(Monitor):
    """See `Probe`. train, test: held-out scenes to fit on and to score. batch: scenes encoded at a time."""

    train: int
    test: int
    batch: int

    interruptible: ClassVar[bool] = True

    def begin(self, run: Experiment, state: TrainState) -> None:
        """Reads the held-out scenes and scores the random initialisation."""
        params = distributed.local(state.params | state.extra)
        sizes = dataclasses.asdict(self)
        self._probe = Probe(run.objective.encode, params, run.held_out_scenes, run.held_out.label_names, **sizes)

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The scores, each also of the random initialisation and of pixels."""
        scores = self._probe.run(state.params | state.extra)
        return {name.removeprefix("probe/"): value for name, value in scores.items()}
