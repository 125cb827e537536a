"""All environments in one compiled program: a planner's search, mapped over environments."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.base import Plan, Planner, Sampler, finite


def solve(
    planner: Planner, cost, key: jax.Array, index: jax.Array, context: Any, goal: Any, mean: jax.Array, batch: int = 0
) -> Plan:
    """Searches in E environments. It is pure: compile it with jax.jit.

    Environment e draws from fold_in(key, index[e]). Its plan depends neither on the other environments nor on `batch`,
    except for the rounding of the compiled sums.

    Args:
      cost: (context, goal, actions [S,H,A]) -> [S] of one environment, such as costs.to_goal.
      index: int32 [E], the environments' numbers.
      context, goal: pytrees whose arrays have a first axis E.
      mean: [E,H,A], where the searches start.
      batch: number of environments that are searched at a time. 0: all. Memory is proportional to it.
    Returns: a Plan whose arrays have a first axis E.
    """

    def one(environment):
        own, context, goal, mean = environment
        return planner.plan(lambda actions: cost(context, goal, actions), jax.random.fold_in(key, own), mean)

    environments = (jnp.asarray(index), context, goal, mean)
    if not batch or batch >= len(mean):
        return jax.vmap(one)(environments)
    return jax.lax.map(one, environments, batch_size=batch)


def solve_on_host(
    planner: Sampler,
    cost: Callable[[np.ndarray], np.ndarray],
    key: jax.Array,
    index: jax.Array,
    mean: jax.Array,
) -> Plan:
    """`solve` with costs that the host computes: candidates [E,S,H,A] -> costs [E,S], in NumPy, such as a simulator's.

    The draws and the updates are those of `solve`. A callback inside a compiled program would be shorter, but on CPUs
    it can wait forever for its own arguments. Raises ConfigError for a planner that needs gradients.
    """
    if not hasattr(planner, "ask"):
        raise ConfigError(f"planner is {type(planner).__name__}. A simulator on the host has no gradients")
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(index))
    ask, tell, result = _parts(cast(Any, planner))  # frozen dataclasses are hashable
    state, lowest = jax.vmap(planner.start)(mean), []
    for step in range(planner.iterations):
        candidates = ask(state, keys, step)
        costs = jnp.asarray(cost(np.asarray(candidates)), candidates.dtype)
        state, least = tell(state, candidates, costs)
        lowest.append(least)
    return result(state, jnp.stack(lowest, 1))


@functools.lru_cache(maxsize=8)
def _parts(planner: Any) -> tuple[Callable, Callable, Callable]:
    """ask, tell and result for all environments, compiled."""

    def ask(state, keys, step):
        return jax.vmap(lambda one, key: planner.ask(one, jax.random.fold_in(key, step), step))(state, keys)

    def tell(state, candidates, costs):
        return jax.vmap(lambda *one: planner.tell(*one))(state, candidates, finite(costs))

    return jax.jit(ask), jax.jit(tell), jax.jit(jax.vmap(planner.result))
