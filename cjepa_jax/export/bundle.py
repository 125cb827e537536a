"""A model as a folder: weights, settings, model card and the PyTorch code that reads them.

model.safetensors           float32: encoder.*, target.* and predictor.*, if the model has them (weights/canonical.py)
model.safetensors.sha256    as `sha256sum -c` reads it
config.json                 the fields of weights.read.Pretrained without the arrays
modeling_cjepa.py           encode, features and intervene in plain PyTorch
README.md                   the model card
LICENSE                     the terms of the weights
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from cjepa_jax.configuration.check import CHANNELS, SINCE, resolve
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.runtime.ending import storage_error
from cjepa_jax.weights import canonical, hub
from cjepa_jax.weights.published import MEAN, STD
from cjepa_jax.weights.read import Pretrained, foresees

FORMAT, VERSION = "cjepa_jax", 1
WEIGHTS, SUM, CONFIG, CARD = "model.safetensors", "model.safetensors.sha256", "config.json", "README.md"
CODE = pathlib.Path(__file__).parent / "modeling_cjepa.py"
GRAPH = "encoder.onnx"
OWN_OPTIONS = {"tokenizer": None, "causal": "none", "levels": (), "class_token": False, "layer_scale": 0.0}
PROCESSORS = {"preprocessor_config.json", "video_preprocessor_config.json"}  # of folders for transformers
OWN = {WEIGHTS, SUM, CONFIG, CARD, CODE.name, "LICENSE", GRAPH, f"{GRAPH}.data", "__pycache__"} | PROCESSORS


def write(folder: pathlib.Path, model: Pretrained, card: str) -> None:
    """Everything but the card's text is derived from the model. Raises OSError."""
    write_weights(folder, tensors(model))
    write_json(folder / CONFIG, description(model))
    shutil.copyfile(CODE, folder / CODE.name)
    write_texts(folder, model, card)


def exportable(model: Pretrained) -> Pretrained:
    """The model without the encoder's options that no other code has. Raises ConfigError where one is on."""
    encoder = dict(model.encoder)
    for key, off in OWN_OPTIONS.items():
        value = encoder.pop(key, off)
        if (tuple(value) if key == "levels" else value) != off:
            raise ConfigError(f"objective.encoder.{key} = {value!r}: such an encoder cannot be exported")
    return dataclasses.replace(model, encoder=encoder)


def tensors(model: Pretrained) -> dict[str, np.ndarray]:
    """Every array under its canonical name, with the prefix "encoder.", "target." or "predictor."."""
    patch, tubelet = parse(model.encoder["variant"]).patch, model.encoder["tubelet"]
    sizes = patch, tubelet, model.encoder.get("channels", CHANNELS)
    parts = {part: canonical.to_canonical(params, *sizes) for part, params in model.params.items()}
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def description(model: Pretrained) -> dict[str, Any]:
    """Contents of config.json, plain values only. Raises ConfigError for the control that names visible objects."""
    if (model.predictor or {}).get("name_context"):
        raise ConfigError("objective.predictor.name_context = True: a model of this control cannot be exported")
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    del fields["params"], fields["layout"]
    for name in ("encoder", "predictor"):  # settings that do not change the results
        part = fields[name]
        same = ("remat", "dtype", "name_context")
        fields[name] = part and {key: value for key, value in part.items() if key not in same}
    fields["source"], fields["about"] = hub.public(model.source), _without_folders(model.about)
    usual = SINCE["objective.encoder"]  # left out, as before these options
    fields["encoder"] = {"mean": MEAN, "std": STD} | {
        key: value for key, value in fields["encoder"].items() if key not in usual or usual[key] != value
    }
    fields["input"] = {"encoder_input": "context"} | model.input | {"change": foresees(model)}
    return plain({"format": FORMAT, "version": VERSION, **fields})


def _without_folders(about: Any, key: str = "") -> Any:
    """Paths cut down to their last name, so that folders of this disk are not published."""
    if hasattr(about, "items"):
        return {name: _without_folders(value, name) for name, value in about.items()}
    is_path = key in ("path", "source", "init_from") and isinstance(about, str)
    return hub.public(about) if is_path else about


def scene_shape(model: Pretrained) -> tuple[int, ...]:
    """Shape of one scene of the training: (size, size, C), or (frames, size, size, C) for clips."""
    size, frames, channels = model.input["size"], model.input["frames"], model.encoder.get("channels", CHANNELS)
    return (size, size, channels) if frames == 1 else (frames, size, size, channels)


def write_weights(
    folder: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """model.safetensors, with texts in its header, and its SHA-256. The same arrays always give the same bytes. Raises
    OSError."""
    file = folder / WEIGHTS
    plain_arrays = {name: np.ascontiguousarray(arrays[name], np.float32) for name in sorted(arrays)}
    safetensors.save_file(plain_arrays, file, metadata and dict(metadata))
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    (folder / SUM).write_text(f"{found}  {WEIGHTS}\n")


def write_json(file: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Raises OSError."""
    file.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_texts(folder: pathlib.Path, model: Pretrained, card: str) -> None:
    """The card, and a note on the weights' licence. Raises OSError."""
    (folder / CARD).write_text(card, encoding="utf-8")
    terms = f"These weights: {model.licence}.\nThey come from: {hub.public(model.source)} (SHA-256 {model.digest}).\n"
    if model.licence == "unspecified":
        terms += "Whoever trained them has not said under which licence they may be used.\n"
    if (folder / CODE.name).exists():
        terms += f"\n{CODE.name}: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0\n"
    (folder / "LICENSE").write_text(terms, encoding="utf-8")


def plain(value: Any) -> Any:
    """As JSON: no tuples, no arrays' numbers, no NaN (null)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in resolve(value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def require_free(out: pathlib.Path, overwrite: bool) -> None:
    """Raises ConfigError unless `out` is free, an empty folder, or an export to overwrite."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"--out={out}: exists and is not a folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / SUM).is_file():
            raise ConfigError(f"--out={out}: is not empty, and no export")
        if not overwrite:
            raise ConfigError(f"--out={out}: holds an export already: give --overwrite to replace it")
        if foreign := sorted({file.name for file in out.iterdir()} - OWN):
            raise ConfigError(f"--out={out}: holds {foreign[0]!r}, which is not part of an export and would be deleted")


@contextlib.contextmanager
def whole(out: pathlib.Path, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """A folder next to `out` that is renamed to `out` if the block succeeds, and deleted otherwise. So `out` never
    holds a half-written export.

    Raises: ConfigError as `require_free`, or if no folder can be made. OSError.
    """
    require_free(out, overwrite)
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        if storage_error(error):
            raise
        raise ConfigError(f"--out={out}: cannot be made ({error.strerror})") from error
    try:
        made = beside / "new"
        made.mkdir()
        yield made
        require_free(out, overwrite)  # check that it is still free
        if out.exists():
            os.replace(out, beside / "old")
        try:
            os.replace(made, out)
        except OSError:
            if (beside / "old").exists():
                os.replace(beside / "old", out)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
