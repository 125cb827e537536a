"""The step, the same for every objective: on a batch as a whole, or slice by slice with the same gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.base import PerScene
from cjepa_jax.types import Array, Batch, TrainState


def init_state(objective, optimizer: optax.GradientTransformation, seed: int, batch: Batch) -> TrainState:
    """The state before step 0, from the seed alone; of `batch` only the shapes matter."""
    params, target, extra = objective.init(jax.random.key(seed), batch)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, target, extra, optimizer.init(params), zero)


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
      optimizer: unscaled updates; the step multiplies them by -learning_rate(step).
      learning_rate: a function of the step.
      microbatches: k slices that a batch is taken in, one after the other, in the memory of one. The batch is laid out
        for S x k shards, microbatch-minor: rows [S k, R, L], and each of the S data shards holds its k microbatches'
        scenes one after the other, so that no scene leaves its device.
      axis: the mapped axis, whose every device is given its part of the batch (with rows [k, R, L]) and the whole
        state. New states are the same on all devices, and so are scalar metrics; "per_scene" is of the device's own
        scenes.
    A step whose loss or gradient is not finite, on whichever slice, changes nothing but `step` and `skipped`.
    Raises: ConfigError for slices of an objective that does not allow them.
    """
    loss_and_grad = jax.value_and_grad(objective.loss, has_aux=True)
    if microbatches > 1 or axis is not None:
        _require_divisible(objective, microbatches)
        loss_and_grad = functools.partial(_by_slices, objective, microbatches, axis)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
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


def _require_divisible(objective, microbatches: int) -> None:
    key = f"train.accumulate = {microbatches}: must be 1" if microbatches > 1 else "sharding.mode = 'pmap': must be jit"
    why = getattr(objective, "indivisible", "")
    if getattr(type(objective), "loss", None) is not PerScene.loss:
        why = "its loss needs"
    if why:
        raise ConfigError(f"{key} with objective.type = {type(objective).__name__}: {why} the batch as a whole")


def _by_slices(objective: PerScene, microbatches: int, axis: str | None, params, target, extra, batch, key, step):
    """What value_and_grad of objective.loss returns, from k microbatches on each device of `axis`.

    The loss is L = C(s_1, ..., s_n), where s_i = f(params, slice i) is what the scenes of a slice give. By the chain
    rule dL/dparams is the sum over slices of (ds_i/dparams)^T dL/ds_i, and dL/ds_i is of the whole batch: the one
    SIGReg and the numbers of valid scenes are in it. So a first pass finds every s_i and keeps nothing else; C, which
    is small, is differentiated once; and a second pass differentiates one slice after the other against its dL/ds_i.
    Nothing is approximated. (Published as a gradient cache: arXiv 2101.06983.)

    XLA leaves out of the first pass what dL/ds does not depend on: with Jepa, whose other terms are means, all but the
    context encoder. One microbatch needs no first pass. SIGReg reads singular values alone, here as elsewhere: with
    the vectors its gradient would not be finite where two values are equal.
    """
    place = 0 if axis is None else lax.axis_index(axis)
    parts = place * microbatches + jnp.arange(microbatches), _split(batch, microbatches)

    def scenes(params, part):
        number, some = part
        return objective.scenes(params, target, extra, some, jax.random.fold_in(key, number))

    def combine(learned, known):
        return objective.combine(learned, known, extra, key, step)

    def slopes(learned, known):
        """C of everything, and dL/ds of this device's slices."""
        everything = _gather(learned, axis), _gather(known, axis)
        out, slope = jax.value_and_grad(combine, has_aux=True)(*everything)
        return out, jax.tree.map(lambda x, own: x.reshape(-1, *own.shape)[place], slope, learned)

    def add(gradient, part):
        part, slope = part
        learned, pull_back, known = jax.vjp(lambda params: scenes(params, part), params, has_aux=True)
        return jax.tree.map(jnp.add, gradient, *pull_back(slope)), (learned, known)

    if microbatches == 1:
        part = jax.tree.map(lambda x: x[0], parts)
        learned, pull_back, known = jax.vjp(lambda params: scenes(params, part), params, has_aux=True)
        learned, known = jax.tree.map(lambda x: x[None], (learned, known))
        (loss, (metrics, following)), slope = slopes(learned, known)
        (gradient,) = pull_back(jax.tree.map(lambda x: x[0], slope))
    else:
        _, slope = slopes(*lax.map(functools.partial(scenes, params), parts))
        gradient, found = lax.scan(add, jax.tree.map(jnp.zeros_like, params), (parts, slope))
        loss, (metrics, following) = combine(*(_gather(half, axis) for half in found))
    if axis is not None:
        gradient = lax.psum(gradient, axis)
    if "per_scene" in metrics:
        own = metrics["per_scene"].reshape(-1, batch.valid.size)[place]
        metrics = metrics | {"per_scene": _merge(own, batch, microbatches)}
    return (loss, (metrics, following)), gradient


def _gather(tree, axis: str | None):
    """[k, x, ...] of this device's slices -> [k x, ...] of all devices' on `axis`."""
    everywhere = tree if axis is None else lax.all_gather(tree, axis)
    return jax.tree.map(lambda x, own: x.reshape(-1, *own.shape[2:]), everywhere, tree)


def _shards(batch: Batch, microbatches: int) -> int:
    """S, the data shards for which the batch is laid out: its scenes are S k runs, the microbatch varying fastest."""
    return 1 if batch.rows is None else batch.rows.index.shape[0] // microbatches


def _split(batch: Batch, microbatches: int) -> Batch:
    """[B, ...] -> [k, B/k, ...] and rows [S k, R, L] -> [k, S, R, L], without moving a scene between shards."""
    shards = _shards(batch, microbatches)

    def split(x):
        return x.reshape(shards, microbatches, -1, *x.shape[1:]).swapaxes(0, 1).reshape(microbatches, -1, *x.shape[1:])

    return jax.tree.map(split, batch)


def _merge(values: Array, batch: Batch, microbatches: int) -> Array:
    """Scenes' values, one microbatch after the other, in the batch's order: [B] -> [B]."""
    return values.reshape(microbatches, _shards(batch, microbatches), -1).swapaxes(0, 1).reshape(-1)
