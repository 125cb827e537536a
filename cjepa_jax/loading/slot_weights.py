"""Published state dicts of the masked slot predictor: as a network that is evaluated, and of a run."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cjepa_jax.configuration import build
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.loading.model import Restored
from cjepa_jax.objectives.slots import Slots
from cjepa_jax.runtime import foreign, run_manifest, trees
from cjepa_jax.runtime.workdir import run_folder
from cjepa_jax.types import Params
from cjepa_jax.weights import files, slots

NAME = "time_pos_embed"  # an array of every such state dict, and of no encoder
LAYOUT = "published slot predictor"


def of(config: Any, checkpoint: str, trust: tuple[str, ...] = ()) -> Restored | None:
    """The network of a state dict's file. None for every other checkpoint.

    The file's depth, width and frames are set in `config`: objective.history stays, objective.future is the rest. Its
    heads are those of objective.slot_predictor, because a state dict does not say them. The block is the published one.

    Raises: ConfigError for a config of another objective than Slots, and for lengths or heads that do not fit the file.
      CheckpointError for a damaged file, and for one of slots of another width than the data's.
    """
    path = _located(checkpoint)
    if path is None:
        return None
    if build.locate(config.objective.type, "objective.type") is not Slots:
        text = f"is a slot predictor, and needs objective.type = {Slots.__module__}:Slots, not {config.objective.type}"
        raise ConfigError(
            f"--checkpoint={checkpoint}: {text}: --training=configs/slots/clevrer.py --config.data.path=DIR"
        )
    found = slots.read(path)
    notes = _adopt(config, found, path)
    fresh = Restored.of(config, "random", trust)
    _compare(fresh.state.params, found.params, path)
    state = dataclasses.replace(fresh.state, params=jax.tree.map(jnp.asarray, found.params))
    about = fresh.about | {
        "checkpoint": str(path),
        "digest": trees.digest((state.params, state.extra, state.target)),
        "seed": None,
        "weights": {"layout": LAYOUT, "digest": run_manifest.sha256(path), "licence": ""},
    }
    return dataclasses.replace(fresh, state=state, about=about, notes=notes)


def published(run: str, trust: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The published state dict (weights.slots.state_dict) of a run's newest checkpoint. One scene of its data is read.

    Raises: CheckpointError for a model that the published one cannot be: a pre-norm block, gates. ConfigError for a
      path that is not a run's, and for a run of another objective.
    """
    folder = run_folder(pathlib.Path(run).expanduser())
    if folder is None:
        raise ConfigError(f"{run}: must be a run's folder")
    config = foreign.read(folder / "config.json", trust)
    if not issubclass(build.locate(config.objective.type, "objective.type"), Slots):
        raise ConfigError(f"{folder}: objective.type = {config.objective.type!r}: must be a predictor of slots")
    return slots.state_dict(Restored.of(config, str(folder), trust).state.params)


def _adopt(config: Any, found: slots.SlotWeights, path: pathlib.Path) -> tuple[str, ...]:
    """Sets the file's sizes in the config. Returns lines for the user. Raises ConfigError for what does not fit."""
    history, heads = config.objective.history, config.objective.slot_predictor.get("heads", 0)
    if not 0 < history < found.frames:
        raise ConfigError(f"objective.history = {history}: {path}: must be below its {found.frames} frames")
    if not isinstance(heads, int) or heads < 1 or found.width % heads:
        text = f"objective.slot_predictor.heads = {heads!r}"
        raise ConfigError(f"{text}: {path}: must divide its width {found.width}. A state dict does not say it")
    auxiliary = tuple(name for name in ("proprio", "action") if name in found.params)
    if auxiliary != tuple(config.objective.auxiliary):
        text = f"objective.auxiliary = {tuple(config.objective.auxiliary)}"
        raise ConfigError(f"{text}: {path}: has {auxiliary}")
    with config.unlocked():
        own = dict(depth=found.depth, units=found.units, heads=heads, norm_attention=False, dropout=0.0)
        config.objective.slot_predictor = ConfigDict(own)
        config.objective.future = found.frames - history
        config.mask.history, config.data.frames = history, found.frames
    return (f"{path}: {LAYOUT} of {found.depth} blocks, {history} frames given, {found.frames - history} predicted",)


def _compare(wanted: Params, given: Params, path: pathlib.Path) -> None:
    """Raises CheckpointError if the file's arrays are not those of the network for the data's slots."""
    shapes = [
        {jax.tree_util.keystr(place, simple=True, separator="/"): np.shape(leaf) for place, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(tree) for tree in (wanted, given))
    ]
    for name in sorted({*shapes[0], *shapes[1]}):
        here, there = (known.get(name) for known in shapes)
        if here != there:
            text = f"{name} is {list(there) if there else 'missing'}, slots of the data need {list(here or ())}"
            raise CheckpointError(f"{path}: {text}")


def _located(checkpoint: str) -> pathlib.Path | None:
    """The path of such a state dict. None for all else."""
    try:
        path = pathlib.Path(checkpoint).expanduser()
        known = path.is_file() and any(name.split(".")[-1] == NAME for name in files.tensors(path))
    except (OSError, RuntimeError, CheckpointError):  # reported by what reads other weights. RuntimeError: of "~nobody"
        return None
    return path if known else None
