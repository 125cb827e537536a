"""Planning by gradient descent on the actions, from several starts. The cost must be differentiable."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from cjepa_jax.planning.base import Cost, Limit, Plan, bounded, check, finite


@dataclasses.dataclass(frozen=True)
class Gradient:
    """Adam on the actions of all starts at once. The start with the lowest cost at the end wins.

    Args:
      samples: number of starts, S. The first one is the given mean.
      iterations: steps of Adam, I.
      rate: learning rate.
      std: of the starts around the mean.
      low, high: limits, applied after each step.
    """

    samples: int = 16
    iterations: int = 30
    rate: float = 0.1
    std: float = 0.5
    low: Limit = None
    high: Limit = None

    def __post_init__(self):
        check(self, samples=1, iterations=1, rate=0.0, std=0.0)

    def plan(self, cost: Cost, key: jax.Array, mean: jax.Array) -> Plan:
        """Searches around `mean` [H,A]. A start whose gradient is not finite stays where it is in that step."""
        optimiser = optax.adam(self.rate)
        noise = jax.random.normal(key, (self.samples, *mean.shape)).at[0].set(0)
        start = bounded(mean + self.std * noise, self.low, self.high)

        def total(actions):
            costs = cost(actions)
            return jnp.where(jnp.isfinite(costs), costs, 0).sum(), costs

        def iterate(carry, _):
            actions, state = carry
            (_, costs), slope = jax.value_and_grad(total, has_aux=True)(actions)
            steps, state = optimiser.update(jnp.where(jnp.isfinite(slope), slope, 0), state)
            return (bounded(actions + steps, self.low, self.high), state), finite(costs).min()

        (actions, _), costs = jax.lax.scan(iterate, (start, optimiser.init(start)), length=self.iterations)
        best = actions[jnp.argmin(finite(cost(actions)))]
        spread = actions.std(0, ddof=1) if self.samples > 1 else jnp.zeros_like(mean)
        return Plan(best, actions.mean(0), spread, costs)
