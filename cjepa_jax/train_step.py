"""The step, the same for every objective."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cjepa_jax.types import Array, Batch, TrainState


def init_state(objective, optimizer: optax.GradientTransformation, seed: int, batch: Batch) -> TrainState:
    """The state before step 0, from the seed alone; of `batch` only the shapes matter."""
    params, target, extra = objective.init(jax.random.key(seed), batch)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, target, extra, optimizer.init(params), zero)


def make(objective, optimizer: optax.GradientTransformation, learning_rate: Callable, seed: int) -> Callable:
    """The function (state, batch) -> (state, metrics), to be jitted.

    Args:
      objective: see objectives.base.Objective.
      optimizer: unscaled updates; the step multiplies them by -learning_rate(step).
      learning_rate: a function of the step.
    A step whose loss or gradient is not finite changes nothing but `step` and `skipped`.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss_and_grad = jax.value_and_grad(objective.loss, has_aux=True)
        (loss, (metrics, extra)), gradient = loss_and_grad(
            state.params, state.target, state.extra, batch, key, state.step
        )
        rate = learning_rate(state.step)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: -rate * update, updates)
        params = optax.apply_updates(state.params, updates)
        target = objective.next_target(params, state.target, state.step)

        grad_norm, update_norm = optax.global_norm(gradient), optax.global_norm(updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(update_norm)
        learned = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, target, extra, opt_state),
            (state.params, state.target, state.extra, state.opt_state),
        )
        skipped = jnp.logical_not(finite).astype(jnp.int32)
        metrics = metrics | {
            "learning_rate": rate,
            "grad_norm": grad_norm,
            "update_norm": update_norm,
            "skipped": skipped,
        }
        return TrainState(state.step + 1, *learned, state.skipped + skipped), metrics

    return step
