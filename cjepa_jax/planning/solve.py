"""All environments in one compiled program: a planner's search, mapped over environments."""

from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax.planning.base import Plan, Planner


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
