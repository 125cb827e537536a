"""How much of what a JEPA predicts follows from a token's place alone, as a monitor."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError
from cjepa_jax.experiment import Experiment
from cjepa_jax.monitors.base import Monitor
from cjepa_jax.objectives.jepa import Jepa, explained, layer_norm, moments
from cjepa_jax.types import Array, Batch, Params, TrainState


class Place(Monitor):
    """The share of the hidden targets' variance that the mean of the batch's other scenes at the same place explains.

    It is a floor of `explained/prediction`, because target features mostly encode token position. With n
    scenes that hide a place the floor is too low by (1 - share) / (n - 1). Places that one scene hides do not count.
    """

    def begin(self, run: Experiment, state: TrainState) -> None:
        """Raises ConfigError for an objective that is not a JEPA of patches."""
        if not isinstance(run.objective, Jepa):
            raise ConfigError(f"{type(run.objective).__name__} does not predict the tokens of hidden patches")
        self._share = jax.jit(functools.partial(share, run.objective))

    def __call__(self, state: TrainState, batch: Batch | None, metrics: Mapping[str, Any]) -> dict[str, float]:
        """{"explained": the share}."""
        return {"explained": float(self._share(state.target, batch))}


def share(objective: Jepa, target: Params, batch: Batch) -> Array:
    """See Place. Of the targets of a batch."""
    full, _ = objective.targets(target, batch)
    wanted = layer_norm(full) if objective.target_norm == "layer_norm" else full
    mask = (~batch.context if batch.hidden is None else batch.hidden) & batch.valid[:, None]
    mask &= mask.sum(0) > 1
    return explained(moments(of_others(wanted, mask), wanted, mask, batch.valid))


def of_others(target: Array, mask: Array) -> Array:
    """At each masked token, the mean target of the other scenes that mask its place: [B, N, D], [B, N] -> [B, N, D]."""
    counts = mask[..., None]
    total = jnp.where(counts, target, 0).sum(0)
    return jnp.where(counts, total - target, 0) / jnp.maximum(counts.sum(0) - 1, 1)
