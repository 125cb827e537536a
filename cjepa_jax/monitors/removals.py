"""Do-contrast as a monitor: does the model know what changes without object k rather than without another object?"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import integer
from cjepa_jax.evals.counterfactual import online
from cjepa_jax.evals.probe import REMOVALS
from cjepa_jax.experiment import Experiment
from cjepa_jax.loading.model import Network
from cjepa_jax.masks.naming import tells_objects
from cjepa_jax.monitors.base import Monitor
from cjepa_jax.types import Batch, TrainState


@dataclasses.dataclass
class Removals(Monitor):
    """Scores pairs of removals in held-out scenes (see online.Removals), and shows some of them in the report.

    It warns and logs nothing for scenes that cannot be simulated without an object, and if too few scenes have two
    objects that can be removed. A model without a trained residual head has no scores.

    Attributes:
      fit, test: numbers of pairs that fit the decoder, and that are scored.
      batch: pairs at a time. seed: of the draw of pairs.
    """

    fit: int = 256
    test: int = 256
    batch: int = 64
    seed: int = 0

    interruptible: ClassVar[bool] = True
    local: ClassVar[tuple[str, ...]] = ("params", "extra", "target")

    def __post_init__(self):
        for name, least in (("fit", 10), ("test", 4), ("batch", 1), ("seed", 0)):
            if not integer(getattr(self, name), least):
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be an integer of at least {least}")

    def begin(self, run: Experiment, state: TrainState) -> None:
        """Draws and simulates the pairs, and scores the random initialisation."""
        mask: Any = run.scenes.mask
        names = tells_objects(mask.draw, run.scenes.grid)
        self._network = Network(objective=run.objective, state=state, names_objects=names)
        self._pairs, self._first = self._drawn(run.held_out_scenes), {}
        if self._pairs is not None:
            found = self._score(self._pairs, state)
            self._first = {f"{name}_random": found[name] for name in ("do_contrast", "explained") if name in found}

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> dict[str, float] | None:
        """The scores, and do_contrast and explained of the random initialisation ("_random")."""
        found = {} if self._pairs is None else self._score(self._pairs, state)
        return found | self._first if found else None

    def pictures(self, state: TrainState) -> dict[str, np.ndarray]:
        """The first pairs with the true and the predicted difference."""
        shown = None if self._pairs is None else self._pairs.picture(self._model(state))
        return {} if shown is None else {online.TITLE: shown}

    def _score(self, pairs: online.Removals, state: TrainState) -> dict[str, float]:
        return {name: value for name, value in pairs.score(self._model(state)).items() if np.isfinite(value)}

    def _model(self, state: TrainState):
        return self._network.functions(self.batch, state=state)

    def _drawn(self, scenes: SceneMap) -> online.Removals | None:
        if not getattr(scenes.source, "can_rerender", False):
            logging.warning("no do-contrast: %s cannot simulate removals", type(scenes.source).__name__)
            return None
        mask: Any = scenes.mask
        anchor, scenes = mask.anchor, dataclasses.replace(scenes, mask=REMOVALS, max_removed=0)
        try:
            return online.Removals(scenes, self.fit, self.test, anchor=anchor, seed=self.seed, batch=self.batch)
        except DataError as error:
            logging.warning("no do-contrast: %s", error)
            return None
