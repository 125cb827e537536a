"""config.json and README of a Hugging Face folder of transformers or timm."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files, licences, safety
from cjepa_jax.weights.published import DINOV2, LAYOUTS, Layout

GELU = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_tanh": "tanh"}
MOST_README = 1 << 20  # bytes that are read


def layout(config: Mapping[str, Any], path: Path) -> Layout:
    """The settings in config.json. Missing ones have transformers' defaults.

    Raises: CheckpointError for another model, and for invalid or unsupported values.
    """
    kind = config.get("model_type")
    if kind not in ("ijepa", "vjepa2", "dinov2"):
        text = "must be 'ijepa', 'vjepa2' or 'dinov2', or \"format\" be 'cjepa_jax'"
        raise CheckpointError(f"{path / 'config.json'}: model_type = {str(kind)[:60]!r}: {text}")

    number = functools.partial(_number, config, path)
    common = {"gelu": _gelu(config, "hidden_act", path)} | _processor(path)
    if kind == "vjepa2":
        return dataclasses.replace(
            LAYOUTS["vjepa2"],
            name="hf-vjepa2",
            frames=number("frames_per_clip", 64),
            size=number("crop_size", 256),
            heads=number("num_attention_heads", 16),
            predictor_heads=number("pred_num_attention_heads", 12),
            epsilon=number("layer_norm_eps", 1e-6, float),
            **common,
        )
    if kind == "dinov2":
        return _dinov2(config, path, **common)
    if isinstance(config.get("image_size"), list):  # not square, so the number of positions does not determine the grid
        height, width = _sides(config["image_size"], path)
        patch = number("patch_size", 16)
        common |= {"grid": (1, height // patch, width // patch), "size": height}
    return dataclasses.replace(
        LAYOUTS["ijepa"],
        name="hf-ijepa",
        heads=number("num_attention_heads", 12),
        epsilon=number("layer_norm_eps", 1e-12, float),
        **common,
    )


def _dinov2(config: Mapping[str, Any], path: Path, **common: Any) -> Layout:
    """As `layout`."""
    if config.get("use_swiglu_ffn", False) is not False:
        text = f"use_swiglu_ffn = {str(config['use_swiglu_ffn'])[:60]!r}: must be False (sizes S, B and L)"
        raise CheckpointError(f"{path / 'config.json'}: {text}")
    heads = _number(config, path, "num_attention_heads", 12)
    epsilon = _number(config, path, "layer_norm_eps", 1e-6, float)
    return dataclasses.replace(DINOV2, heads=heads, epsilon=epsilon, **common)


def timm(config: Mapping[str, Any], path: Path) -> Layout:
    """The settings in the config.json of a timm folder, for a VisionTransformer without class token.

    Raises: CheckpointError for invalid or unsupported values.
    """
    trained, built = (config.get(key) or {} for key in ("pretrained_cfg", "model_args"))
    if not isinstance(trained, dict) or not isinstance(built, dict):
        raise CheckpointError(f"{path / 'config.json'}: pretrained_cfg and model_args: must be tables")
    known = {"heads": _number(built, path, "num_heads", 1)} if "num_heads" in built else {}
    known |= {"licence": licences.canonical(trained["license"])} if isinstance(trained.get("license"), str) else {}
    colours = _colours(trained, ("mean", "std"), path / "config.json") if "mean" in trained else {}
    return dataclasses.replace(LAYOUTS["timm"], gelu=_gelu(built, "act_layer", path), **known, **colours)


def _number(config: Mapping[str, Any], path: Path, key: str, default: float, kind: type = int) -> Any:
    value = config.get(key, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 2**20 or value != kind(value):
        raise CheckpointError(f"{path / 'config.json'}: {key} = {str(value)[:60]!r}: must be a number above 0")
    return kind(value)


def _sides(found: list, path: Path) -> tuple[int, int]:
    if len(found) != 2:
        text = "must be a number, or a height and a width"
        raise CheckpointError(f"{path / 'config.json'}: image_size = {repr(found)[:60]}: {text}")
    return tuple(_number({"image_size": side}, path, "image_size", 0) for side in found)


def _gelu(config: Mapping[str, Any], key: str, path: Path) -> str:
    found = config.get(key, "gelu")
    if not isinstance(found, str) or found not in GELU:
        text = f"must be one of {', '.join(GELU)}"
        raise CheckpointError(f"{path / 'config.json'}: {key} = {str(found)[:60]!r}: {text}")
    return GELU[found]


def _processor(path: Path) -> dict[str, tuple[float, ...]]:
    """mean and std of the folder's processor, if it has one."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (path / name).is_file():
            return _colours(files.json(files.member(path, name), links=True), ("image_mean", "image_std"), path / name)
    return {}


def _colours(config: Mapping[str, Any], keys: tuple[str, str], where: Path) -> dict[str, tuple[float, ...]]:
    for key in keys:
        value = config.get(key)
        numbers = isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)
        if not numbers or not 0 <= min(value) <= max(value) < 2**31 or (key == keys[1] and not min(value)):
            text = f"must be three numbers of 0 to 2^31{', but not 0' if key == keys[1] else ''}"
            raise CheckpointError(f"{where}: {key} = {repr(value)[:60]}: {text}")
    return {name: tuple(map(float, config[key])) for name, key in zip(("mean", "std"), keys, strict=True)}


def licence(folder: Path) -> str:
    """The licence in the front matter of the folder's README.md, "" if there is none."""
    if not (folder / "README.md").is_file():
        return ""
    with safety.regular(files.member(folder, "README.md")) as file:
        return licences.read(file.read(MOST_README).decode("utf-8", "replace"))
