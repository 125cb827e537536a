"""The contract of planners, and what they share: bounds of actions, and costs that are not numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError

Cost = Callable[[jax.Array], jax.Array]  # candidates [S,H,A] -> costs [S]. Lower is better
Limit = float | tuple[float, ...] | None  # the same for all dimensions of an action, one for each, or none


class Plan(NamedTuple):
    """The result of one search. S candidates, horizon H, A numbers per action, I iterations."""

    actions: jax.Array  # [H,A] what to do
    mean: jax.Array  # [H,A] of the last distribution
    std: jax.Array  # [H,A] of the last distribution
    costs: jax.Array  # [I] the lowest cost of each iteration


class Planner(Protocol):
    """A frozen dataclass. `plan` is a pure function that can be compiled."""

    def plan(self, cost: Cost, key: jax.Array, mean: jax.Array) -> Plan:
        """Searches around `mean` [H,A]. All random draws derive from `key`."""


class Sampler(Planner, Protocol):
    """A planner that only needs the costs of candidates, so that a simulator on the host can give them."""

    @property
    def iterations(self) -> int:
        """Number of updates, I."""

    def start(self, mean: jax.Array) -> Any:
        """The state before the first iteration, a pytree."""

    def ask(self, state: Any, key: jax.Array, step: jax.Array) -> jax.Array:
        """The candidates [S,H,A] of an iteration."""

    def tell(self, state: Any, candidates: jax.Array, costs: jax.Array) -> tuple[Any, jax.Array]:
        """The next state, and the lowest cost. Costs [S] are not NaN."""

    def result(self, state: Any, costs: jax.Array) -> Plan:
        """The plan after the last iteration. costs: [I]."""


def search(planner: Sampler, cost: Cost, key: jax.Array, mean: jax.Array) -> Plan:
    """All iterations of a sampler, under lax.scan. Iteration i draws from fold_in(key, i)."""

    def iterate(state, step):
        candidates = planner.ask(state, jax.random.fold_in(key, step), step)
        return planner.tell(state, candidates, finite(cost(candidates)))

    state, costs = jax.lax.scan(iterate, planner.start(mean), jnp.arange(planner.iterations))
    return planner.result(state, costs)


def bounded(actions: jax.Array, low: Limit, high: Limit) -> jax.Array:
    """`actions` [..., A] within the limits."""
    if low is None and high is None:
        return actions
    limits = [None if limit is None else jnp.asarray(limit, actions.dtype) for limit in (low, high)]
    return jnp.clip(actions, *limits)


def finite(costs: jax.Array) -> jax.Array:
    """Costs [S] in which NaN, of a prediction that overflowed, is infinity: no such candidate is chosen."""
    return jnp.where(jnp.isnan(costs), jnp.inf, costs)


def check(planner: Any, **least: float) -> None:
    """Raises ConfigError unless each named field of the planner is a number of at least its limit."""
    for name, limit in least.items():
        value = getattr(planner, name)
        wanted = "an integer" if isinstance(limit, int) else "a number"
        kind = int if isinstance(limit, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not value >= limit:
            raise ConfigError(f"planner.{name} is {value!r}: must be {wanted} of at least {limit}")


def check_elites(planner: Any) -> None:
    """Raises ConfigError if `elites` is more than `samples`."""
    if planner.elites > planner.samples:
        raise ConfigError(f"planner.elites is {planner.elites}: must be at most planner.samples = {planner.samples}")
