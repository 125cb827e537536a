"""The step, the same for every objective: on a batch as a whole, or slice by slice with the same gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cjepa_jax import microbatch
from cjepa_jax.types import Array, Batch, TrainState


def init_state(objective, optimizer: optax.GradientTransformation, seed: int, batch: Batch) -> TrainState:
    """The state before step 0, from the seed alone. Only the shapes of `batch` matter."""
    params, target, extra = objective.init(jax.random.key(seed), batch)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero, params=params, target=target, extra=extra, opt_state=optimizer.init(params), skipped=zero
    )


def make(
    objective,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable,
    seed: int,
    microbatches: int = 1,
    axis: str | None = None,
) -> Callable:
    """The function (state, batch) -> (state, metrics), to be jitted, or with `axis` to be mapped by jax.pmap.

    Args:
      objective: see objectives.base.Objective.
      optimizer: unscaled updates. The step multiplies them by -learning_rate(step).
      learning_rate: a function of the step.
      microbatches, axis: the slices of a batch: see `microbatch`. With `axis` every device is given its part of the
        batch and the whole state. New states and scalar metrics are the same on all devices.
    A step whose loss or gradient is not finite, on whichever slice, changes nothing but `step` and `skipped`.
    Raises: ConfigError for slices of an objective that does not allow them.
    """
    loss_and_grad = microbatch.loss_and_grad(objective, microbatches, axis)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, (metrics, extra)), gradient = loss_and_grad(
            state.params, state.target, state.extra, batch, key=key, step=state.step
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
