"""A user's objective, going wrong."""

import dataclasses

import jax.numpy as jnp

from cjepa_jax.objectives.jepa import Jepa


@dataclasses.dataclass(frozen=True)
class NanAt(Jepa):
    """A Jepa whose loss and gradient are not finite at the steps `at`, counted from 1. Scene 1 is blamed."""

    at: tuple = ()

    def loss(self, params, target, extra, batch, key, step):
        total, (metrics, extra) = super().loss(params, target, extra, batch, key, step)
        poison = jnp.where(jnp.isin(step + 1, jnp.array(self.at)), jnp.nan, 1.0)
        metrics["per_scene"] = metrics["per_scene"].at[1].multiply(poison)
        return total * poison, (metrics | {"loss": total * poison}, extra)
