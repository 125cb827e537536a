"""Slot predictors of runs and of published state dicts, as functions of slots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.configuration import build
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.extract import checkpoint
from cjepa_jax.models.slot_predictor import SlotPredictor
from cjepa_jax.objectives.slots import Slots
from cjepa_jax.runtime import foreign
from cjepa_jax.types import Batch, Rows
from cjepa_jax.weights import slots

HISTORY, HEADS, SKIP = 6, 16, 2  # as published for CLEVRER


class Found(NamedTuple):
    """predict(slots [B, history, K, D]) -> the next frames, float32 [B, T_p, K, D]. All are `skip` frames apart."""

    history: int
    skip: int
    predict: Callable[[np.ndarray], np.ndarray]


def of(source: str, shape: tuple[int, ...], *, history: int, heads: int, skip: int, trust: str) -> Found:
    """The predictor, for slots of this shape (K, D). history, heads, skip: 0 if they are not given.

    Raises: ConfigError for a flag or a run that does not belong to it. CheckpointError for unusable weights.
    """
    path, folder = checkpoint.located(source)
    if folder:
        if history or heads:
            raise ConfigError("--history, --heads: a run says them itself")
        return _run(folder, shape, skip, foreign.trusted(trust))
    found, history = slots.read(path), history or HISTORY
    if set(found.params) > {"predictor"}:
        raise ConfigError(f"{path}: has tokens of actions or proprioception, whose future is not known")
    if found.frames <= history or found.width % (heads or HEADS):
        text = f"must be below its {found.frames} frames, and divide its width {found.width}"
        raise ConfigError(f"--history={history}, --heads={heads or HEADS}: {path}: {text}")
    if found.width != shape[1]:
        raise CheckpointError(f"{path}: takes slots of width {found.width}: the files have {shape[1]}")
    model = SlotPredictor(found.frames, found.depth, heads or HEADS, units=found.units)
    return Found(history, skip or SKIP, _predict(model, found.params["predictor"], history))


def _predict(model: SlotPredictor, params: Any, history: int) -> Callable[[np.ndarray], np.ndarray]:
    @jax.jit
    def predict(known):
        future = jnp.zeros((known.shape[0], model.frames - history, *known.shape[2:]))
        clip = jnp.concatenate([known, future], 1)
        visible = jnp.broadcast_to(jnp.arange(model.frames)[:, None] < history, clip.shape[:3])
        return model.apply({"params": params}, clip, visible)[0][:, history:]

    return lambda known: np.asarray(predict(known))


def _run(folder: Path, shape: tuple[int, ...], skip: int, trust: tuple[str, ...]) -> Found:
    config = foreign.read(folder / "config.json", trust)
    kind = config.objective.type
    if not issubclass(build.locate(kind, "objective.type"), Slots):
        raise ConfigError(f"{folder}: objective.type = {kind!r}: must be a predictor of slots")
    own = config.data.options.get("skip", 1)
    if isinstance(own, bool) or not isinstance(own, int) or own < 1:
        raise ConfigError(f"{folder}: data.options.skip = {own!r}: must be a whole number, at least 1")
    if skip not in (0, own):
        raise ConfigError(f"--skip={skip}: {folder} was trained with data.options.skip = {own}")
    objective = checkpoint.built(config)
    if objective.auxiliary:
        text = "has tokens whose future is not known"
        raise ConfigError(f"{folder}: objective.auxiliary = {tuple(objective.auxiliary)}: {text}")
    if getattr(objective, "graph", "") == "gates":
        raise ConfigError(f"{folder}: objective.graph = 'gates': its gates are not rolled out")
    batch = _shapes(objective.history + objective.future, *shape)
    _, state = checkpoint.restored(folder, config, objective, batch)
    predict = _predict(objective.model, state.params["predictor"], objective.history)
    return Found(objective.history, own, predict)


def _shapes(frames: int, count: int, width: int) -> Batch:
    """The shapes of a scene of slots."""
    of = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
    tokens, row = frames * count, of(jnp.int32, 1, 1, frames * count)
    return Batch(
        scene=of(jnp.int32, 1),
        epoch=of(jnp.int32, 1),
        video=of(jnp.float32, 1, frames, *(1, count, width)),
        object_patches=of(bool, 1, count, tokens),
        object_valid=of(bool, 1, count),
        removed=of(bool, 1, count),
        context=of(bool, 1, tokens),
        rows=Rows(row, row),
        valid=of(bool, 1),
        hidden=of(bool, 1, tokens),
        graph=of(bool, 1, count, count),
    )
