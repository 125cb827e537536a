"""Warns once where most scenes have no object to remove, so that causal training quietly becomes I-JEPA."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from cjepa_jax.monitors.base import Monitor
from cjepa_jax.runtime import fallbacks
from cjepa_jax.types import Batch, TrainState


@dataclasses.dataclass
class Fallbacks(Monitor):
    """See runtime/fallbacks.py. It logs nothing.

    batch: scenes of a step. expected: whether no scene removes an object on purpose; then it is silent.
    """

    batch: int
    expected: bool

    def __post_init__(self):
        self._before, self._warned = 0, self.expected

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The next line counts from the last one before."""
        self._before = max((row["step"] for row in rows if "fallback_scenes" in row), default=0)

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> None:
        """One warning a process, at the first log line with too many such scenes."""
        step = int(metrics["step"])
        found = fallbacks.share({**metrics, "step": step}, self._before, self.batch)
        self._before = step
        if found > fallbacks.MOST and not self._warned:
            logging.warning(fallbacks.sign(found, step))
            self._warned = True
