"""Whether an objective keeps the contract of objectives/base.py. An error is one line that names objective.type."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError, described, reporting
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.types import Batch

NUMBERS = {"patch": 1, "tubelet": 1, "max_removed": 0}  # attributes and their least values
FUNCTIONS = ("init", "loss", "next_target", "encode")
ALL = "an objective has patch, tubelet, max_removed, init, loss, next_target and encode (cjepa_jax/objectives/base.py)"


def members(objective: Any, path: str) -> None:
    """Raises ConfigError for an attribute or a function that is missing. `path` is objective.type."""
    where = f"objective.type = {path!r}"
    for name, least in NUMBERS.items():
        if not hasattr(objective, name):
            raise ConfigError(f"{where}: has no {name}: {ALL}")
        value = getattr(objective, name)
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
            raise ConfigError(f"{where}: {name} = {value!r}: must be a whole number, at least {least}")
    own = type(objective)
    per_example = ("per_example_terms", "reduce") if getattr(own, "loss", None) is PerExample.loss else ()
    for name in (*FUNCTIONS, *per_example):
        if not callable(getattr(objective, name, None)) or (
            per_example and getattr(own, name, None) is getattr(PerExample, name, 0) and name != "loss"
        ):
            raise ConfigError(f"{where}: has no {name}: {ALL}")


def masks(objective: Any, path: str, batch: Batch, mask: str) -> None:
    """Raises ConfigError for scenes with two masks of mask.type that the objective would train on with the first."""
    if batch.second_context is not None and not getattr(objective, "second_mask", False):
        raise ConfigError(f"mask.type = {mask!r}: draws two masks, objective.type = {path!r} takes one")


def results(objective: Any, path: str, batch: Batch) -> None:
    """Raises ConfigError for a function that returns something else than the contract says, or raises anything.

    Nothing is computed: the functions are traced, which takes a second or so. So this is for code of other packages.

    Args:
      batch: the shapes of a batch, as ShapeDtypeStructs.
    """
    where, file = f"objective.type = {path!r}", inspect.getsourcefile(type(objective))
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    count, step = batch.scene.shape[0], jax.ShapeDtypeStruct((), jnp.int32)

    with reporting(f"{where}: init", file):
        state = jax.eval_shape(objective.init, key, batch)
    if not isinstance(state, tuple | list) or len(state) != 3:
        raise ConfigError(f"{where}: init returned {_kind(state)}: must return (params, target, extra)")
    params, target, extra = state
    if isinstance(params, Mapping) and isinstance(extra, Mapping) and (shared := params.keys() & extra.keys()):
        raise ConfigError(f"{where}: init: params and extra both have {', '.join(sorted(shared))}")

    with reporting(f"{where}: loss", file):
        found = jax.eval_shape(objective.loss, *state, batch, key, step)
    if not _is_pair(found) or not _is_pair(found[1]) or not isinstance(found[1][0], Mapping):
        raise ConfigError(f"{where}: loss returned {_kind(found)}: must return (loss, (diagnostics, extra))")
    total, (diagnostics, following) = found
    if getattr(total, "shape", None) != () or not jnp.issubdtype(total.dtype, jnp.floating):
        raise ConfigError(f"{where}: loss returned a loss of {described(total)}: must be a float scalar")
    if "loss" not in diagnostics:
        raise ConfigError(f"{where}: loss: the diagnostics have no 'loss', only {', '.join(sorted(diagnostics))}")
    for name, value in diagnostics.items():
        shape = (count,) if name == "per_scene" else ()
        if getattr(value, "shape", None) != shape:
            raise ConfigError(f"{where}: loss: the diagnostic {name!r} is {described(value)}: must be {list(shape)}")
    _same(f"{where}: loss: extra", following, extra)

    with reporting(f"{where}: next_target", file):
        _same(f"{where}: next_target", jax.eval_shape(objective.next_target, params, target, step), target)
    with reporting(f"{where}: encode", file):
        tokens = jax.eval_shape(objective.encode, params | extra, batch.observation)
    if getattr(tokens, "ndim", 0) != 3 or tokens.shape[0] != count:
        raise ConfigError(f"{where}: encode returned {described(tokens)}: must be [B, N, D], here [{count}, N, D]")


def _same(where: str, found: Any, wanted: Any) -> None:
    """Raises ConfigError unless two trees have the same structure and shapes."""
    one, other = (
        [(path, leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)] for tree in (found, wanted)
    )
    if one != other:
        raise ConfigError(f"{where}: must keep the structure and the shapes that init gave")


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _kind(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, tuple | list) else described(value)
