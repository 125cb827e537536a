"""Model predictive path integral control (Williams et al. 2017): candidates are weighted by their costs."""

import dataclasses

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.base import Cost, Limit, Plan, bounded, check, check_elites, search


@dataclasses.dataclass(frozen=True)
class MPPI:
    """The mean of the candidates with weights exp(-(cost - lowest) / temperature), again and again.

    Args:
      samples: candidates per iteration, S.
      elites: only this number of best candidates has weights. 0: all.
      iterations: number of updates, I.
      temperature: in units of the cost. Small values choose the best candidate, large ones average all.
      std: of the candidates, one number or one per dimension of an action.
      adapt: whether the standard deviation follows the weighted candidates, at least `least_std` (as TD-MPC does).
      low, high: limits of the candidates.
    """

    samples: int = 200
    elites: int = 20
    iterations: int = 20
    temperature: float = 0.5
    std: float | tuple[float, ...] = 1.0
    adapt: bool = True
    least_std: float = 0.05
    low: Limit = None
    high: Limit = None

    def __post_init__(self):
        check(self, samples=2, elites=0, iterations=1, temperature=0.0, least_std=0.0)
        check_elites(self)
        if not self.temperature > 0:
            raise ConfigError(f"planner.temperature is {self.temperature!r}: must be above 0")

    def fit(self, std: jax.Array, candidates: jax.Array, costs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The weighted mean and standard deviation [H,A]. Costs must hold a finite one."""
        if self.elites:
            order = jax.lax.top_k(-costs, self.elites)[1]
            candidates, costs = candidates[order], costs[order]
        weights = jax.nn.softmax(-(costs - costs.min()) / self.temperature)[:, None, None]
        mean = (weights * candidates).sum(0)
        spread = jnp.sqrt((weights * (candidates - mean) ** 2).sum(0))
        return mean, jnp.maximum(spread, self.least_std) if self.adapt else std

    def start(self, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation."""
        return mean, jnp.broadcast_to(jnp.asarray(self.std, mean.dtype), mean.shape)

    def ask(self, state: tuple[jax.Array, jax.Array], key: jax.Array, step: jax.Array) -> jax.Array:
        """See base.Sampler."""
        mean, std = state
        noise = jax.random.normal(key, (self.samples, *mean.shape))
        return bounded(mean + std * noise, self.low, self.high).at[0].set(mean)

    def tell(self, state, candidates: jax.Array, costs: jax.Array):
        """See base.Sampler."""
        return self.fit(state[1], candidates, costs), costs.min()

    def result(self, state: tuple[jax.Array, jax.Array], costs: jax.Array) -> Plan:
        """See base.Sampler."""
        return Plan(state[0], *state, costs)

    def plan(self, cost: Cost, key: jax.Array, mean: jax.Array) -> Plan:
        """Searches around `mean` [H,A]."""
        return search(self, cost, key, mean)
