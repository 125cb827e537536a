"""What a folder of transformers' models says beside its weights: config.json, the processor's, and the README."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files, safety
from cjepa_jax.weights.public import LAYOUTS, NON_COMMERCIAL, Layout

GELU = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh"}
LICENCES = {"cc-by-nc-4.0": NON_COMMERCIAL, "mit": "MIT", "apache-2.0": "Apache-2.0"}
MOST_README = 1 << 20  # bytes that are looked at


def layout(config: Mapping[str, Any], path: Path) -> Layout:
    """What config.json says; what it leaves out is transformers' default.

    Raises: CheckpointError for another model, and for values that make no sense or that ours has not.
    """
    kind = config.get("model_type")
    if kind not in ("ijepa", "vjepa2"):
        text = "must be 'ijepa' or 'vjepa2', or \"format\" be 'cjepa_jax'"
        raise CheckpointError(f"{path / 'config.json'}: model_type = {str(kind)[:60]!r}: {text}")

    def number(key: str, default: float, kind: type = int) -> Any:
        value = config.get(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value < 2**20
            or value != kind(value)
        ):
            raise CheckpointError(f"{path / 'config.json'}: {key} = {str(value)[:60]!r}: must be a number above 0")
        return kind(value)

    gelu = config.get("hidden_act", "gelu")
    if gelu not in GELU:
        text = f"must be one of {', '.join(GELU)}"
        raise CheckpointError(f"{path / 'config.json'}: hidden_act = {str(gelu)[:60]!r}: {text}")
    common = {"gelu": GELU[gelu]} | _colours(path)
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
    return dataclasses.replace(
        LAYOUTS["ijepa"],
        name="hf-ijepa",
        heads=number("num_attention_heads", 12),
        epsilon=number("layer_norm_eps", 1e-12, float),
        **common,
    )


def _colours(path: Path) -> dict[str, tuple[float, ...]]:
    """mean and std of the folder's processor, where it has one."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (path / name).is_file():
            config = files.json(files.member(path, name))
            found = {"mean": config.get("image_mean"), "std": config.get("image_std")}
            for key, value in found.items():
                numbers = isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)
                if not numbers or (key == "std" and min(value) <= 0):
                    raise CheckpointError(f"{path / name}: image_{key} = {str(value)[:60]}: must be three numbers")
            return {key: tuple(map(float, value)) for key, value in found.items()}
    return {}


def licence(folder: Path) -> str:
    """The licence in the front matter of the folder's README.md, "" where there is none."""
    if not (folder / "README.md").is_file():
        return ""
    with safety.regular(files.member(folder, "README.md")) as file:
        text = file.read(MOST_README).decode("utf-8", "replace")
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = front and re.search(r"^license:[ \t]*[\"']?([\w.+-]{1,64})[\"']?[ \t]*$", front[1], re.MULTILINE | re.ASCII)
    return LICENCES.get(found[1].lower(), found[1]) if found else ""
