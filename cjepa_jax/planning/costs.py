"""Costs of predicted states: how far a rollout is from a goal, in the latent space of a world model."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cjepa_jax.errors import ConfigError

ENUMERATED = 5  # slots, of which there are 120 assignments
Distance = Callable[[jax.Array, jax.Array], jax.Array]  # predicted [..., *latent], goal [*latent] -> [...]
Predict = Callable[[Any, jax.Array], jax.Array]  # context of one environment, actions [S,H,A] -> [S,H,*latent]


def squared_error(predicted: jax.Array, goal: jax.Array) -> jax.Array:
    """The mean of squared differences over the latent's axes."""
    return jnp.square(predicted - goal).mean(tuple(range(predicted.ndim - goal.ndim, predicted.ndim)))


def absolute_error(predicted: jax.Array, goal: jax.Array) -> jax.Array:
    """The mean of absolute differences over the latent's axes."""
    return jnp.abs(predicted - goal).mean(tuple(range(predicted.ndim - goal.ndim, predicted.ndim)))


def matched(slots: int) -> Distance:
    """The squared error of sets of slots, [..., S, D] and [S, D]: of the assignment of the first `slots` rows that has
    the least, a mean over them. Rows after them, such as a token of the agent, keep their places, and each one's error
    is added. So the agent weighs as much as all slots together, as in the published planning (arXiv 2602.11389).

    A row of zeros is an absent slot. It is assigned to absent slots as far as there are any.

    Up to ENUMERATED slots all assignments are compared, beyond it is the Hungarian algorithm's (optax).
    """

    def distance(predicted: jax.Array, goal: jax.Array) -> jax.Array:
        pairs = jnp.square(predicted[..., :slots, None, :] - goal[:slots]).mean(-1)  # [..., K, K]
        absent = [(x[..., :slots, :] == 0).all(-1) for x in (predicted, goal)]
        # One pair of an absent slot and another one outweighs all errors. It decides, and is not added to the cost.
        heavy = 1 + slots * pairs.max((-2, -1), keepdims=True)
        unlike = pairs + heavy * (absent[0][..., :, None] != absent[1])
        rest = jnp.square(predicted[..., slots:, :] - goal[slots:]).mean(-1).sum(-1)
        if slots <= ENUMERATED:
            orders = jnp.array(list(itertools.permutations(range(slots))))
            each, chosen = (x[..., jnp.arange(slots), orders].sum(-1) for x in (pairs, unlike))
            best = jnp.take_along_axis(each, chosen.argmin(-1, keepdims=True), -1)[..., 0]
        else:
            flat, chosen = (x.reshape(-1, slots, slots) for x in (pairs, unlike))
            rows, columns = jax.vmap(optax.assignment.hungarian_algorithm)(jax.lax.stop_gradient(chosen))
            best = jnp.take_along_axis(flat.reshape(len(flat), -1), rows * slots + columns, 1).sum(-1)
            best = best.reshape(pairs.shape[:-2])
        return best / slots + rest

    distance.__name__ = "matched_slots"
    return distance


def to_goal(predict: Predict, distance: Distance = squared_error, over: str = "last"):
    """The cost (context, goal, actions [S,H,A]) -> [S] of candidates in one environment.

    Args:
      predict: the world model. Its outputs after each action have the shape of `goal`.
      distance: between predicted latents and the goal's.
      over: "last" (the distance after the last action, as DINO-WM and V-JEPA 2-AC) or "sum" (over all steps, as
        eb_jepa: reaching the goal early is better).
    Raises: ConfigError for another word in `over`.
    """
    if over not in ("last", "sum"):
        raise ConfigError(f"the cost is over {over!r}: must be last or sum")

    def cost(context: Any, goal: jax.Array, actions: jax.Array) -> jax.Array:
        each = distance(predict(context, actions), goal)
        return each[:, -1] if over == "last" else each.sum(1)

    return cost


def unroll(step: Callable[[Any, jax.Array], Any], read: Callable[[Any], jax.Array] = lambda state: state) -> Predict:
    """`predict` of a one-step model: step(states [S, ...], actions [S,A]) -> states.

    Args:
      read: what of the states the cost compares with the goal.
    """

    def predict(context: Any, actions: jax.Array) -> jax.Array:
        start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(actions), *leaf.shape)), context)

        def advance(states, action):
            states = step(states, action)
            return states, read(states)

        return jnp.moveaxis(jax.lax.scan(advance, start, jnp.moveaxis(actions, 1, 0))[1], 0, 1)

    return predict


def autoregressive(step: Callable[[jax.Array, jax.Array], jax.Array], memory: int) -> Predict:
    """`predict` of a model that sees the last `memory` latents and actions, and whose outputs are appended to them.

    Args:
      step: latents [S,t,*latent] and actions [S,t,A] -> the next latent [S,*latent]. actions[:, i] was taken at
        latents[:, i], and t grows up to `memory`.
    Returns: `predict`, whose context is (latents [t,*latent], past actions [t - 1,A]) with 1 <= t <= memory.
    """

    def predict(context: tuple[jax.Array, jax.Array], actions: jax.Array) -> jax.Array:
        latents, past = (jnp.broadcast_to(leaf, (len(actions), *leaf.shape)) for leaf in context)
        outputs: list[jax.Array] = []
        horizon = actions.shape[1]
        while latents.shape[1] < memory and len(outputs) < horizon:
            past = jnp.concatenate([past, actions[:, len(outputs), None]], 1)
            outputs.append(step(latents, past))
            latents = jnp.concatenate([latents, outputs[-1][:, None]], 1)

        def advance(carry, action):
            latents, past = carry
            past = jnp.concatenate([past, action[:, None]], 1)
            new = step(latents, past)
            return (jnp.concatenate([latents[:, 1:], new[:, None]], 1), past[:, 1:]), new

        rest = jnp.moveaxis(actions[:, len(outputs) :], 1, 0)
        new = jnp.moveaxis(jax.lax.scan(advance, (latents, past), rest)[1], 0, 1) if len(rest) else None
        return jnp.concatenate([*(output[:, None] for output in outputs), *([] if new is None else [new])], 1)

    return predict
