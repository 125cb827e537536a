"""Gradient accumulation and jax.pmap with the exact gradient of the whole batch, for objectives that are `PerExample`.

A batch is taken in slices: k microbatches one after the other, in the memory of one, on each device of a mapped axis.
It is laid out for S x k shards, microbatch-minor: rows [S k, R, L], and each of the S data shards holds its k
microbatches' scenes one after the other, so that no scene leaves its device. Under jax.pmap each device has its part of
the batch, with rows [k, R, L].
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.base import Objective, PerExample
from cjepa_jax.types import Array, Batch


def loss_and_grad(objective: Objective, microbatches: int = 1, axis: str | None = None) -> Callable[..., Any]:
    """jax.value_and_grad(objective.loss, has_aux=True), computed slice by slice where that is asked for.

    Args:
      microbatches: slices of the batch, or of a device's part of it, one after the other.
      axis: the axis that jax.pmap maps. Loss, gradient and scalar metrics are then those of the batch of all devices.
        "per_scene" is of the device's own scenes.
    Raises: ConfigError for slices of an objective that does not allow them.
    """
    if microbatches == 1 and axis is None:
        return jax.value_and_grad(objective.loss, has_aux=True)
    _require_divisible(objective, microbatches)
    return functools.partial(sliced, cast(PerExample, objective), microbatches, axis)


def _require_divisible(objective, microbatches: int) -> None:
    key = f"train.accumulate = {microbatches}: must be 1" if microbatches > 1 else "sharding.mode = 'pmap': must be jit"
    why = getattr(objective, "indivisible", "")
    if getattr(type(objective), "loss", None) is not PerExample.loss:
        why = "its loss needs"
    if why:
        raise ConfigError(f"{key} with objective.type = {type(objective).__name__}: {why} the batch as a whole")


def sliced(objective: PerExample, microbatches: int, axis: str | None, params, target, extra, batch, key, step):
    """What value_and_grad of objective.loss returns, from k microbatches on each device of `axis`.

    The loss is L = R(t_1, ..., t_n), where t_i = f(params, slice i) are the per-example terms of a slice and R is
    `reduce`. By the chain rule dL/dparams is the sum over slices of (dt_i/dparams)^T dL/dt_i. Each dL/dt_i depends on
    the whole batch, through SIGReg and the number of valid scenes. So a first pass computes every t_i and keeps nothing
    else. R, which is small, is differentiated once. A second pass differentiates one slice after the other against its
    dL/dt_i. Nothing is approximated. (Published as a gradient cache: arXiv 2101.06983.)

    XLA leaves out of the first pass what dL/dt does not depend on: with Jepa, whose other terms are means, everything
    but the context encoder. One microbatch needs no first pass. SIGReg uses singular values alone, here as elsewhere:
    with the vectors its gradient would not be finite where two values are equal.
    """
    shards, scenes = _shards(batch, microbatches), batch.valid.size // microbatches
    place = 0 if axis is None else lax.axis_index(axis)
    parts = place * microbatches + jnp.arange(microbatches), split(batch, microbatches)

    def per_example_terms(params, part):
        number, some = part
        return objective.per_example_terms(params, target, extra, some, jax.random.fold_in(key, number))

    def gather(tree):
        """[k, x, ...] of this device's slices -> [k x, ...] of all devices', scenes in the batch's order."""
        own = jax.tree.map(lambda x: _merge(x, shards if x.shape[1] == scenes else 1), tree)
        return own if axis is None else lax.all_gather(own, axis, tiled=True)

    def reduce(terms, stats):
        return objective.reduce(terms, stats, extra, key, step)

    def slopes(terms, stats):
        """R of everything, and dL/dt of this device's slices."""
        out, slope = jax.value_and_grad(reduce, has_aux=True)(gather(terms), gather(stats))

        def own(slope, term):
            here = slope.reshape(-1, term.shape[0] * term.shape[1], *slope.shape[1:])[place]
            return _split(here, len(term), shards if term.shape[1] == scenes else 1)

        return out, jax.tree.map(own, slope, terms)

    def add(gradient, part):
        part, slope = part
        terms, pull_back, stats = jax.vjp(lambda params: per_example_terms(params, part), params, has_aux=True)
        return jax.tree.map(jnp.add, gradient, *pull_back(slope)), (terms, stats)

    if microbatches == 1:
        part = jax.tree.map(lambda x: x[0], parts)
        terms, pull_back, stats = jax.vjp(lambda params: per_example_terms(params, part), params, has_aux=True)
        terms, stats = jax.tree.map(lambda x: x[None], (terms, stats))
        (loss, (metrics, following)), slope = slopes(terms, stats)
        (gradient,) = pull_back(jax.tree.map(lambda x: x[0], slope))
    else:
        _, slope = slopes(*lax.map(functools.partial(per_example_terms, params), parts))
        gradient, found = lax.scan(add, jax.tree.map(jnp.zeros_like, params), (parts, slope))
        loss, (metrics, following) = reduce(*map(gather, found))
    if axis is not None:
        gradient = lax.psum(gradient, axis)
    if "per_scene" in metrics:
        metrics = metrics | {"per_scene": metrics["per_scene"].reshape(-1, batch.valid.size)[place]}
    return (loss, (metrics, following)), gradient


def _shards(batch: Batch, microbatches: int) -> int:
    """S, the data shards for which the batch is laid out: its scenes are S k runs, the microbatch varying fastest."""
    return 1 if batch.rows is None else batch.rows.index.shape[0] // microbatches


def split(batch: Batch, microbatches: int) -> Batch:
    """[B, ...] -> [k, B/k, ...] and rows [S k, R, L] -> [k, S, R, L], without moving a scene between shards."""
    return jax.tree.map(lambda x: _split(x, microbatches, _shards(batch, microbatches)), batch)


def _split(x: Array, microbatches: int, shards: int) -> Array:
    return x.reshape(shards, microbatches, -1, *x.shape[1:]).swapaxes(0, 1).reshape(microbatches, -1, *x.shape[1:])


def _merge(x: Array, shards: int) -> Array:
    """[k, x, ...] of k microbatches -> [k x, ...], the inverse of `_split`. No row leaves its shard."""
    return x.reshape(x.shape[0], shards, -1, *x.shape[2:]).swapaxes(0, 1).reshape(-1, *x.shape[2:])
