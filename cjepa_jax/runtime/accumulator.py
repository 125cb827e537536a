"""The steps since the last log line: their mean metrics, and the budgets of failures."""

import logging

import jax
import numpy as np

from cjepa_jax.errors import DataError, NumericsError
from cjepa_jax.types import TrainState


class Window:
    """Collects steps with `add`. Call `flush` at a log line, then `check_budgets`.

    Skipped updates are counted since step 0. Drawn and replaced scenes are counted since this process began, so the
    budget of replaced scenes restarts when a run is resumed.

    Args:
      config: train.nonfinite_budget and data.max_replaced.
      scenes: number of scenes of the source.
      state: the TrainState that the run starts or resumes from.
    """

    COUNTS = ("skipped", "fallback_scenes")  # added up, not averaged

    def __init__(self, config, scenes: int, state: TrainState):
        self._config, self._scenes, self._steps = config, scenes, []
        self._skipped, self._drawn, self._replaced = int(state.skipped), 0, 0
        self._finite = self._trouble = "none"

    def add(self, step: int, arrays: dict, metrics: dict) -> None:
        """One step's batch, as the loader gave it, and its metrics, still on the device."""
        # A copy, because the loader's array lives in shared memory, with one open file per batch while it is
        # referenced.
        self._steps.append((step, np.array(arrays["scene"]), int(arrays["replaced"].sum()), metrics))

    def flush(self) -> dict[str, float]:
        """The window's metrics. The next window begins."""
        steps, self._steps = self._steps, []
        metrics = [jax.device_get(m) for *_, m in steps]
        for (step, scene, *_), m in zip(steps, metrics, strict=True):
            self._note(step, scene, m)
        replaced = sum(count for _, _, count, _ in steps)
        self._replaced += replaced
        self._drawn += sum(len(scene) for _, scene, _, _ in steps)
        good = [m for m in metrics if not m["skipped"]] or metrics
        scalars = [name for name, value in metrics[0].items() if np.ndim(value) == 0]
        means = {name: float(np.mean([m[name] for m in good])) for name in scalars}
        counts = {name: float(sum(m[name] for m in metrics)) for name in self.COUNTS if name in metrics[0]}
        return means | counts | {"skipped_total": self._skipped, "replaced_scenes": replaced}

    def check_budgets(self) -> None:
        """Raises NumericsError or DataError if a budget of the config is exceeded."""
        budget, share = self._config.train.nonfinite_budget, self._config.data.max_replaced
        if self._skipped > budget:
            raise NumericsError(
                f"{self._skipped} non-finite steps, train.nonfinite_budget = {budget}: {self._trouble}. "
                f"Last finite: {self._finite}"
            )
        # Several processes: each counts the scenes of its share of the source.
        if self._replaced > share * max(self._drawn, self._scenes / jax.process_count()):
            raise DataError(
                f"{self._replaced} of {self._drawn} scenes could not be read: more than data.max_replaced = {share} "
                f"(the warnings name them)"
            )

    def _note(self, step: int, scene: np.ndarray, metrics: dict) -> None:
        if not metrics["skipped"]:
            values = ", ".join(f"{name} {metrics[name]:.4g}" for name in ("loss", "grad_norm", "learning_rate"))
            self._finite = f"step {step}, {values}"
            return
        self._skipped += 1
        culprits = scene
        if "per_scene" in metrics:  # of the global batch, of which this process may have read a part
            mine = jax.process_index() * len(scene) + np.arange(len(scene))
            culprits = scene[~np.isfinite(metrics["per_scene"][mine])]
        named = ", ".join(map(str, (culprits if len(culprits) else scene)[:8]))
        loss, norm = metrics["loss"], metrics["grad_norm"]
        self._trouble = f"step {step}: loss {loss}, gradient norm {norm}. Scenes {named}"
        logging.warning("update skipped (%d so far): %s. Last finite: %s", self._skipped, self._trouble, self._finite)
