"""Training that starts from weights (config.init_from): a run's, an export's or published ones.

The weights determine the encoder. objective.encoder is set to their values, with a line for each key that changes. The
pretrained predictor is loaded if its architecture matches objective.predictor. Otherwise it is randomly initialised,
because its size is a choice of the experiment. The target starts from the weights' moving average, or from their
encoder if they have no average. If optim.freeze names the encoder, the target starts from the encoder too.

A run records all of this in init_from.json and config.json, and is resumed without the weights.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.configuration import build, catalogue, sizes
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.host import door
from cjepa_jax.loading import pretrained, released
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.objectives import base
from cjepa_jax.runtime import distributed, foreign, trees
from cjepa_jax.runtime.workdir import tuples, write_atomically
from cjepa_jax.types import Params, TrainState
from cjepa_jax.weights import diff, hub, worlds
from cjepa_jax.weights.read import Pretrained, Reading

RECORD = "init_from.json"
FRESH = "predictor: fresh, because"


def prepare(
    config: Any,
    folder: pathlib.Path,
    trust: tuple[str, ...] = (),
    reading: Reading = Reading(),  # noqa: B008 (immutable)
) -> tuple[Pretrained | None, list[str]]:
    """Loads config.init_from, if it is set, and adapts the config to it: (weights, lines to print).

    `reading` is what published weights do not say themselves.

    A folder may name code of this package and of the packages in `trust` only (see foreign.trusted).

    A run in `folder` that has a checkpoint needs no weights, which may be gone. Then the weights are None, the lines
    are those of keys that this command sets to other values, and config.init_from becomes what the run recorded.

    Raises: ConfigError for an objective without an encoder, and for data that the weights' patches do not divide.
      CheckpointError for weights that cannot be read.
    """
    if not config.init_from:
        return None, []
    known = recorded(folder, (*trust, *foreign.named(config)))
    if known and _has_checkpoint(folder) and _same(config.init_from, known):
        config.init_from = known.get("init_from", config.init_from)
        return None, adopt(config, known["encoder"])
    weights = _load(config, known, trust, reading)
    return weights, use(config, weights)


def _load(
    config: Any,
    known: Mapping[str, Any] | None,
    trust: tuple[str, ...],
    reading: Reading = Reading(),  # noqa: B008 (immutable)
) -> Pretrained:
    """config.init_from. A run that was started from an address on the hub keeps the commit and the weights' SHA-256,
    also if its branch has moved. Raises CheckpointError as pretrained.load_weights."""
    encoder = config.objective.get("encoder")
    if hasattr(encoder, "keys") and encoder.get("levels"):
        reading = reading._replace(levels=True)
    if known and _same(config.init_from, known) and hub.is_address(known.get("source")):
        return hub.read(known["source"], digest=known.get("digest", ""), reading=reading)
    return pretrained.load_weights(config.init_from, trust=(*trust, *foreign.named(config)), reading=reading)


def use(config: Any, weights: Pretrained) -> list[str]:
    """Adapts the config to the weights. Returns lines for the user: a summary, the licence, and the changed keys."""
    lines = adopt(config, settings(config, weights))
    return [*weights.summary().splitlines(), *lines, *filter(None, [predictor_line(config, weights)])]


def settings(config: Any, weights: Pretrained) -> dict[str, Any]:
    """The values of objective.encoder that the weights determine, for the config's data. An encoder of images takes
    clips frame by frame."""
    images = {"tubelet": 1} if config.data.frames > 1 and _frames(weights) == 1 else {}
    return {"depth": 0} | weights.encoder | images


def adopt(config: Any, encoder: Mapping[str, Any]) -> list[str]:
    """Sets objective.encoder to these values and checks the config. Returns a line for each key that changes.

    Raises: ConfigError for an objective that exports no encoder, and as configuration.check.
    """
    section, kind = config.objective.get("encoder"), dict(encoder).get("type", "")
    own = section.get("type", "") if hasattr(section, "keys") else ""
    started = "encoder" in base.exports(_objective(config)) or _framewise(config)
    if kind or own:  # another network than models' Encoder
        started = kind == own
    if not started or not hasattr(section, "keys") or "variant" not in section:
        raise ConfigError(
            f"init_from: objective.type = {config.objective.type!r} has no encoder that weights can start"
        )
    lines, known = [], (catalogue.keywords("model", kind or foreign.PARTS["encoder"]) or set()) | {"type"}
    default = build.locate(kind, "objective.encoder.type") if kind else Encoder
    tokenizer = dict(encoder).get("tokenizer")
    if tokenizer and tokenizer["type"] == worlds.CLASS_TOKEN and not _framewise(config):
        raise ConfigError(f"init_from: objective.type = {config.objective.type!r} takes no encoder with a class token")
    with config.unlocked():
        for key, value in tuples(dict(encoder)).items():
            if key not in section and value == config_lib.SINCE["objective.encoder"].get(key):
                continue  # a config from before
            if key not in known:
                raise CheckpointError(f"init_from: {key[:60]!r} is not a key of objective.encoder")
            before = section.get(key, getattr(default, key, None))  # a config may leave keys to their defaults
            if config_lib.resolve({"": before}) != config_lib.resolve({"": value}):
                lines.append(f"objective.encoder.{key} = {value!r} (was {before!r}): the weights' own")
                try:
                    section[key] = value
                except TypeError as error:
                    raise CheckpointError(f"init_from: objective.encoder.{key} cannot be {value!r}"[:200]) from error
    config_lib.check(config)
    return lines


def predictor_line(config: Any, weights: Pretrained) -> str:
    """Whether the weights' predictor is loaded, and the reason if not. "" for an objective that has none."""
    section = config.objective.get("predictor")
    if section is None:
        return ""
    if weights.world and config.objective.type == weights.world.objective:
        return _world_line(config, weights.world)
    if weights.world:
        return f"{FRESH} that of {weights.world.name} is for {weights.world.objective}"
    if weights.predictor is None or "predictor" not in weights.params:
        return f"{FRESH} the weights have none"
    if "predictor" not in base.exports(_objective(config)):
        return f"{FRESH} that of {config.objective.type} is another network"
    wanted = config_lib.resolve(weights.predictor)
    # A config may leave keys to their defaults.
    asked = config_lib.resolve({key: section.get(key, getattr(Predictor, key, None)) for key in wanted})
    other = [f"objective.predictor.{key} = {asked[key]!r} (theirs: {wanted[key]!r})" for key in wanted]
    other = [text for text, key in zip(other, wanted, strict=True) if asked[key] != wanted[key]]
    return f"{FRESH} {', '.join(other)}" if other else "predictor: taken"


def _world_line(config: Any, world: worlds.World) -> str:
    """As predictor_line, of a published world model, whose projectors belong to it."""
    objective = build.build(config.objective, "objective", steps=1, dtype="float32")
    asked = config_lib.resolve({key: objective.setting(key) for key in world.settings})
    wanted = config_lib.resolve(dict(world.settings))
    other = [f"objective.{k} = {asked[k]!r} ({world.name}: {wanted[k]!r})" for k in wanted if asked[k] != wanted[k]]
    if not other:
        return f"predictor: taken, {world.name}'s"
    return f"{FRESH} {', '.join(other)}" + "; the projectors too" * ("projector" in world.params)


def start(
    config: Any,
    state: TrainState,
    weights: Pretrained | None,
    folder: pathlib.Path | None = None,
    trust: tuple[str, ...] = (),
    reading: Reading = Reading(),  # noqa: B008 (immutable)
) -> TrainState:
    """Returns `state` with parameters and target replaced by the weights', and writes init_from.json into the folder.

    Without config.init_from and weights the state is returned unchanged. Weights that are not given are loaded, with
    `reading` for what they do not say themselves.

    Raises: CheckpointError that lists the arrays that do not fit.
    """
    if weights is None and not config.init_from:
        return state
    if weights is None:  # of a run whose checkpoints are gone
        known = recorded(folder, (*trust, *foreign.named(config))) if folder else None
        weights = _load(config, known, trust, reading)
        if adopt(config, settings(config, weights)):
            raise CheckpointError(f"{config.init_from}: is not what the run was started from")
    if folder is not None and distributed.first():
        write_atomically(folder / RECORD, json.dumps(record(config, weights), indent=1) + "\n")
    where, encoder = weights.source, _on_frames(config, weights, "encoder")
    params = state.params | {"encoder": _placed(state.params["encoder"], encoder, f"{where}: the encoder")}
    target, extra, taken = state.target, state.extra, not predictor_line(config, weights).startswith(FRESH)
    world = weights.world if weights.world and config.objective.type == weights.world.objective else None
    if taken and world:
        for name, found in world.params.items():
            params[name] = _placed(params[name], found, f"{where}: the {name}")
    elif taken and "predictor" in base.exports(_objective(config)):
        found = weights.params["predictor"]
        params["predictor"] = _placed(params["predictor"], found, f"{where}: the predictor")
    if world and world.extra and (taken or world.of_encoder):
        extra = _placed(extra, world.extra, f"{where}: running statistics")
    if jax.tree.leaves(target):
        own = "target" in weights.params and "encoder" not in config.optim.freeze
        part = getattr(_objective(config), "averaged", "")
        average = _on_frames(config, weights, "target") if own else encoder[part] if part else encoder
        inner = target.get("encoder", target)
        inner = _placed(inner, average, f"{where}: the target")
        target = target | {"encoder": inner} if "encoder" in target else inner
        if "projector" in target and params["projector"] is not state.params["projector"]:
            target = target | {"projector": jax.tree.map(jnp.copy, params["projector"])}
    return dataclasses.replace(state, params=params, target=target, extra=extra)


def record(config: Any, weights: Pretrained) -> dict[str, Any]:
    """What a run records of the weights that it was started from, as JSON."""
    return config_lib.resolve(
        {
            "init_from": config.init_from,
            "path": _absolute(config.init_from),  # equal for the same command from another working directory
            **{name: getattr(weights, name) for name in ("source", "layout", "digest", "licence")},
            "encoder": settings(config, weights),
            "predictor": predictor_line(config, weights).removeprefix("predictor: "),
        }
    )


def recorded(folder: pathlib.Path, trust: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """A run's init_from.json, or None without one. Raises CheckpointError for a damaged one, or one that names code of
    another package than those in `trust`."""
    file = pathlib.Path(folder) / RECORD
    if not file.exists():
        return None
    content = foreign.record(file, trust)
    if not isinstance(content.get("encoder"), dict):
        raise CheckpointError(f"{file}: encoder: must be an object")
    return content


def _same(path: str, known: Mapping[str, Any]) -> bool:
    """Whether a run was started from this path, relative or absolute."""
    return path == known.get("init_from") or _absolute(path) == known.get("path")


def _absolute(path: str) -> str:
    return path if hub.is_address(path) else os.path.abspath(os.path.expanduser(path))


def _has_checkpoint(folder: pathlib.Path) -> bool:
    return bool(door.steps(pathlib.Path(folder) / "checkpoints"))


def _frames(weights: Pretrained) -> int:
    """Frames of the boxes (frames x rows x columns of pixels) that the weights' first layer takes."""
    if "projection" not in weights.params["encoder"]["tokenizer"]:
        return 1  # no images
    box = weights.encoder.get("channels", config_lib.CHANNELS) * sizes.parse(weights.encoder["variant"]).patch ** 2
    return weights.params["encoder"]["tokenizer"]["projection"]["kernel"].shape[0] // box


def _on_frames(config: Any, weights: Pretrained, part: str) -> Params:
    """An encoder's parameters for the config's data. For images, the first layer of a clip's encoder is summed over its
    frames: the result is that of a clip of repeated images."""
    params, frames = weights.params[part], _frames(weights)
    if frames == 1 or "image_projection" in params["tokenizer"] or (config.data.frames > 1 and not _framewise(config)):
        return params
    return released.still(params, frames)


def _objective(config: Any) -> Any:
    return build.locate(config.objective.type, "objective.type")


def _framewise(config: Any) -> bool:
    """Whether the objective encodes each frame of a clip as an image. See objectives.base.Objective."""
    return bool(getattr(_objective(config), "framewise", False))


def _placed(home: Params, found: Params, where: str) -> Params:
    """`found` on the devices, each array with the sharding of its counterpart in `home`."""

    def named(tree: Params) -> dict[str, Any]:
        return {trees.name_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}

    own, given = named(home), named(found)
    diff.compare({n: a.shape for n, a in given.items()}, {n: a.shape for n, a in own.items()}, where)

    def place(path: tuple, leaf: jax.Array) -> jax.Array:
        array = np.asarray(given[trees.name_of(path)], leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])

    return jax.tree_util.tree_map_with_path(place, home)
