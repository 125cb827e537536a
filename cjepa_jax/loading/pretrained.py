"""Trained weights as plain arrays: of a run, of an export, or published ones.

    weights = pretrained.load_weights("tiny")                comes with the package (weights/shipped)
    weights = pretrained.load_weights("runs/tiny")           the newest checkpoint that is readable
    weights = pretrained.load_weights("runs/tiny", step=500, strict=True)
    weights = pretrained.load_weights("exported")            or published weights: see weights.read
    weights = pretrained.load_weights("hf://owner/name@revision")     from the Hugging Face Hub's cache: see weights.hub

Only the run's folder is needed, not its training data, nor the code of its source or masks. The folder may come from
another person: the code that it names must be of this package, or of a package in `trust` (see foreign).
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cjepa_jax import optim, train_step
from cjepa_jax.configuration import build, catalogue, sizes
from cjepa_jax.errors import CheckpointError, ConfigError, did_you_mean
from cjepa_jax.host import door
from cjepa_jax.masks.naming import names_objects
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.objectives import base
from cjepa_jax.runtime import foreign, trees
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.runtime.workdir import Workdir, run_folder
from cjepa_jax.types import Batch, Rows, TrainState
from cjepa_jax.weights import export_format, hub, levels, read, shipped
from cjepa_jax.weights.read import Pretrained
from cjepa_jax.weights.safety import short

MODULES = {"encoder": Encoder, "predictor": Predictor}  # the parts that an objective can export (objectives.base)
MASKS = "cjepa_jax.masks."
OFF = {  # newer options
    "tokenizer": None,
    "causal": "none",
    "levels": (),
    "class_token": False,
    "layer_scale": 0.0,
    "embed_units": 0,
    "scene_code": False,
}
LOADED = (levels.TOKENIZER,)  # tokenizers of this package whose encoders are loaded
NOT_OF_IT = ("parent", "name", "dtype", "out", "remat")  # fields of a module that do not affect its weights


def load_weights(
    path: str | os.PathLike,
    step: int | None = None,
    strict: bool = False,
    trust: str | Iterable[str] = (),
    reading: read.Reading = read.Reading(),  # noqa: B008 (immutable)
) -> Pretrained:
    """The weights of a run's folder (or of its checkpoints' folder), of an export, or published ones.

    Of a run the newest readable checkpoint is loaded. Damaged ones are passed over with a warning. `about` then has the
    step, the objective's type, the scores of the last probe up to that step ("metrics"), the config ("training"), and
    the record of the weights that the run was started from, if any ("init_from").

    Args:
      path: a run has a folder "checkpoints". Every other path is read by weights.read, an address by weights.hub. A
        name of weights/shipped is that export, unless a file or folder has this name.
      step: loads this checkpoint of the run and no other.
      strict: a damaged newest checkpoint is refused.
      trust: your packages or modules that the run's config may name for its mask, source, objective or protocols
        ("mine", or several with commas between, or a sequence). Other code from outside this package is refused.
      reading: what published weights do not say themselves.
    Raises: ConfigError if there is nothing at `path`, or no such step. CheckpointError for damaged weights, and for an
      objective that exports no encoder.
    """
    if hub.is_address(path):
        if step is not None:
            raise ConfigError(f"step = {step}: {short(path)} has no folder of checkpoints to choose from")
        return hub.read(str(path), reading=reading)
    try:
        path = pathlib.Path(shipped.find(path)).expanduser()
        folder, exists = run_folder(path), path.exists()
    except (OSError, RuntimeError) as error:  # too long, not readable, or an unknown home
        raise ConfigError(f"{short(path)}: {getattr(error, 'strerror', None) or error}") from error
    if folder:
        read.require_published(path, reading)
        return _run(folder.absolute(), step, strict, foreign.trusted(trust))
    if step is not None:
        raise ConfigError(f"step = {step}: {path} has no folder of checkpoints to choose from")
    if not exists:
        raise ConfigError(f"{path}: there is no such file or folder{did_you_mean(str(path), shipped.names())}")
    return read.read(path, **reading._asdict())


def _run(folder: pathlib.Path, step: int | None, strict: bool, trust: tuple[str, ...]) -> Pretrained:
    started = foreign.record(folder / "init_from.json", trust) if (folder / "init_from.json").exists() else {}
    config = foreign.read(folder / "config.json", trust)
    kind = config.objective.type
    parts = _exported(folder / "config.json", kind)
    abstract, fields = _model(folder / "config.json", config, parts, trust)
    step, state = restore(folder, abstract, step, strict)
    params = {"encoder": state.params["encoder"], "target": state.target.get("encoder", state.target)}
    params |= {part: state.params[part] for part in parts}
    about = {"step": step, "objective": kind, "metrics": _metrics(folder, step), "training": config.to_dict()}
    if started:  # without where it lay on this disk, which is for resuming and not for exports
        about["init_from"] = {key: value for key, value in started.items() if key != "path"}
    return Pretrained(
        layout="cjepa_jax",
        source=str(folder),
        digest=trees.digest((state.params, state.extra, state.target)),
        licence=started.get("licence", "unspecified"),
        params={name: jax.tree.map(np.asarray, tree) for name, tree in params.items() if tree},
        about=about,
        **fields,
    )


def _exported(file: pathlib.Path, kind: str) -> tuple[str, ...]:
    """The parts that the objective of a config exports. Its name has passed the guard. Raises CheckpointError."""
    try:
        parts = base.exports(build.locate(kind, "objective.type"))
    except ConfigError as error:  # a trusted package that is not installed here
        raise CheckpointError(f"{file}: {error}") from error
    if "encoder" not in parts or not set(parts) <= MODULES.keys():
        text = f"exports = {parts}: must be 'encoder', and may be 'predictor' too, for its weights to be loaded"
        raise CheckpointError(f"{file}: objective.type = {kind!r}: {text}")
    return parts


def _part(section: ConfigDict, part: str) -> Any:
    """The module of models/ that a part of an objective is. Raises ConfigError for keys and sizes that are refused."""
    known = catalogue.keywords("model", foreign.PARTS[part]) or set()
    for key in section[part]:
        if key not in known:
            raise ConfigError(f"objective.{part}.{key}: unknown key{did_you_mean(key, known)}")
    tokenizer = section[part].get("tokenizer")
    if tokenizer is not None and tokenizer.get("type") not in LOADED:
        raise ConfigError(f"objective.{part}.tokenizer: an encoder with a tokenizer of its own is not loaded")
    module: Any = MODULES[part](**build.plain(section[part]))
    foreign.few(module.position_grid)
    return module


def _model(
    file: pathlib.Path, config: ConfigDict, parts: tuple[str, ...], trust: tuple[str, ...]
) -> tuple[TrainState, dict[str, Any]]:
    """The shapes of a run's state, and the fields of Pretrained that its config decides."""
    section, data = config.objective, config.data
    try:
        encoder = _part(section, "encoder")
        predictor = _part(section, "predictor") if "predictor" in parts else None
        objective, optimizer = build.build(section, "objective", steps=1, dtype="float32"), optim.make(config.optim)
        batch = _made_up(objective, data.frames, encoder.channels)
        state = jax.eval_shape(lambda batch: train_step.init_state(objective, optimizer, 0, batch), batch)
        anchor = config.mask.get("anchor", 0)
        seen = {"size": data.size, "frames": data.frames, "anchor": anchor}
        times = 1 if data.frames == 1 else min(data.frames // encoder.tubelet, anchor + 2)
        side = min(data.size // encoder.patch, 16)  # the answer does not depend on the grid
        seen["encoder_input"] = section.get("encoder_input", "context")
        seen["change"] = bool(section.get("causal_weight", 0.0))  # whether the residual head was trained
        known = config.mask.type.startswith(MASKS) or foreign.is_there(config.mask.type, trust)
        # Without the mask's code it is assumed that masks name their objects.
        seen["names_objects"] = names_objects(config.mask, (times, side, side)) if known else True
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:  # any value that cannot be used
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: is not usable as a run's config: {text}") from error
    settings = _settings(encoder)
    if encoder.depth:  # a custom size
        size = sizes.parse(encoder.variant)
        settings["variant"] = f"{size.width}x{encoder.depth}x{size.heads}x{size.hidden}/{size.patch}"
        settings["depth"] = 0
    return state, {"encoder": settings, "predictor": predictor and _settings(predictor), "input": seen}


def _settings(module: Encoder | Predictor) -> dict[str, Any]:
    """Constructor kwargs that reproduce the module."""
    found = {
        field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name not in NOT_OF_IT
    }
    return {name: value for name, value in found.items() if name not in OFF or value != OFF[name]}


def _made_up(objective: Any, frames: int, channels: int) -> Batch:
    """The shapes of one scene of four patches. Parameters do not depend on the size of the scenes."""
    frames, side = (1 if frames == 1 else objective.tubelet), 2 * objective.patch
    of = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
    tokens, flag = of(bool, 1, 4), of(bool, 1)
    number, video, rows = of(jnp.int32, 1), of(jnp.uint8, 1, frames, *(side, side, channels)), of(jnp.int32, 1, 1, 4)
    return Batch(
        scene=number,
        epoch=number,
        video=video,
        object_patches=of(bool, 1, 1, 4),
        object_valid=of(bool, 1, 1),
        removed=of(bool, 1, 1),
        context=tokens,
        rows=Rows(rows, rows),
        valid=flag,
    )


def restore(
    folder: pathlib.Path, abstract: TrainState, step: int | None = None, strict: bool = False
) -> tuple[int, TrainState]:
    """(step, state) of a run's folder, which is only read. See `load_weights` for the choice of the checkpoint."""
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    try:
        steps = checkpoints.steps()
        # What was not written to its end Orbax may not even list.
        there = set(door.steps(checkpoints.folder)) | set(steps)
        if not there:
            raise ConfigError(f"{folder}: there is no checkpoint in {checkpoints.folder}")
        if step is not None and step not in there:
            raise ConfigError(
                f"step = {step}: {folder} has checkpoints of the steps {', '.join(map(str, sorted(there)))}"
            )
        if strict or step is not None:
            step = max(there) if step is None else step
            return step, checkpoints.read(step, abstract)
        found = checkpoints.restore(abstract)
    finally:
        checkpoints.close()
    if found is None:
        raise CheckpointError(f"{folder}: no checkpoint is complete")
    return found


def _metrics(folder: pathlib.Path, step: int) -> dict[str, float]:
    """The scores of the last probe up to a step, without "probe/". Empty if none can be read."""
    try:
        entries = Workdir(folder).read_metrics()
    except OSError:
        return {}
    probes = [entry for entry in entries if entry["step"] <= step and "probe/rankme" in entry]
    last = probes[-1] if probes else {}
    scores = {name.removeprefix("probe/"): value for name, value in last.items() if name.startswith("probe/")}
    return {name: value for name, value in scores.items() if export_format.is_score(name, value)}
