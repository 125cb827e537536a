"""An encoder as a folder that transformers loads: IJepaModel of images, VJEPA2Model of clips (with its predictor).

The folder has the names, shapes and settings that transformers' own `save_pretrained` writes. Every array is float32.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.configuration.sizes import Size, parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.export import other_layouts
from cjepa_jax.export.other_layouts import mlp_ratio
from cjepa_jax.weights import canonical, name_maps
from cjepa_jax.weights.published import MEAN, STD
from cjepa_jax.weights.read import Pretrained, frames

METADATA = {"format": "pt"}  # without it transformers 4 refuses a safetensors file
PROCESSORS = {"ijepa": "preprocessor_config.json", "vjepa2": "video_preprocessor_config.json"}
GELU = {"exact": "gelu", "tanh": "gelu_pytorch_tanh"}
LEFT_OUT = ("object_embedding", "residual.weight", "residual.bias")  # of the predictor: VJEPA2Model has none of them
IMAGES = """\
With transformers:

```python
from transformers import IJepaModel

model = IJepaModel.from_pretrained("{folder}").eval()
tokens = model(pixel_values).last_hidden_state   # [B, {tokens}, {width}]; their mean is the feature
```

`pixel_values` is [B, 3, {height}, {wide}], RGB in 0..1 less the mean {mean} divided by {std}.
`AutoImageProcessor.from_pretrained("{folder}")` computes it. It stretches the whole image to this size. The training
cut a square out of it first. Positions are stored for {rows} x {cols} patches. `interpolate_pos_encoding=True` resizes
them for other square images.
"""
CLIPS = """\
With transformers:

```python
from transformers import VJEPA2Model

model = VJEPA2Model.from_pretrained("{folder}").eval()
tokens = model(pixel_values_videos, skip_predictor=True).last_hidden_state   # [B, N, {width}]
```

`pixel_values_videos` is [B, T, 3, {size}, {size}], RGB in 0..1 less the mean {mean} divided by {std}, T a multiple
of {tubelet}. Other sizes need another `crop_size` in config.json, because transformers counts rows and columns by it.
"""
PREDICTOR = """
The predictor is in the folder: `model(pixel_values_videos, context_mask=[...], target_mask=[...])`. transformers
encodes the whole clip and then chooses the context's tokens. In training, the encoder saw the context only. Its object
embedding (unused) and its residual head are left out, because VJEPA2Model has none.
"""
ALONE = """
There is no predictor in the folder. transformers initialises `predictor.*` at random and says so: pass
`skip_predictor=True`.
"""


@dataclasses.dataclass(frozen=True)
class Folder:
    """What is written: arrays by transformers' names, config.json, the processor's file and its contents.

    model: the weights that are written, for the card.
    """

    model: Pretrained
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    processor: tuple[str, dict[str, Any]]


def folder(model: Pretrained, part: str = "") -> Folder:
    """The encoder and, of clips, its predictor. `part`: that encoder ("encoder", "target") alone.

    Raises: ConfigError naming the setting that transformers' IJepaModel and VJEPA2Model cannot express, or the part
      that the weights lack.
    """
    kind = _architecture(model)
    chosen = part or "encoder"
    if chosen not in model.params:
        raise ConfigError(f"--part={part}: these weights have {', '.join(model.params)}")
    params = {"encoder": model.params[chosen]}
    if kind == "vjepa2" and not part and "predictor" in model.params:
        if reason := other_predictor(model):
            text = "VJEPA2Model cannot hold this predictor: give --part=encoder for the encoder alone"
            raise ConfigError(f"--layout=transformers: {reason}: {text}")
        params["predictor"] = model.params["predictor"]
    model = dataclasses.replace(model, params=params)
    arrays, config = (_of_clips if kind == "vjepa2" else _of_images)(model)
    return Folder(model, arrays, config, (PROCESSORS[kind], _processor(model, config)))


def _architecture(model: Pretrained) -> str:
    """ "ijepa" or "vjepa2". Raises ConfigError for an encoder that is neither."""
    other_layouts.require_rgb(model, "transformers")
    kind, grid = model.encoder.get("positions", "sincos"), tuple(model.encoder.get("position_grid", ()))
    where, clips = f"--layout=transformers: encoder.positions = {kind!r}", frames(model) > 1
    if kind == "rope_tile":
        if grid:
            text = f"encoder.position_grid = {grid}: must be (), VJEPA2Model does not scale its positions"
            raise ConfigError(f"--layout=transformers: {text}")
        return "vjepa2"
    if kind not in ("sincos", "table"):
        raise ConfigError(f"{where}: must be 'rope_tile' (VJEPA2Model), or 'sincos' or 'table' (IJepaModel, images)")
    if clips or model.input.get("frames", 1) > 1:
        raise ConfigError(f"{where}: must be 'rope_tile' (VJEPA2Model) for clips. IJepaModel takes images only")
    return "ijepa"


def other_predictor(model: Pretrained) -> str:
    """The setting of the predictor that VJEPA2Model has no place for, with its value. "" if there is none."""
    options, encoder = model.predictor or {}, model.encoder
    if model.input.get("names_objects", True):
        return "input.names_objects = True (object embeddings)"
    for key, default, wanted in (
        ("attention", "joint", "joint"),
        ("positions", "sincos", "rope_tile"),
        ("position_grid", (), ()),
        ("gelu", "exact", encoder.get("gelu", "exact")),
        ("epsilon", 1e-6, encoder.get("epsilon", 1e-6)),
    ):
        found = options.get(key, default)
        found = tuple(found) if key == "position_grid" else found
        if found != wanted:
            return f"predictor.{key} = {found!r}, not {wanted!r}"
    return ""


def _size(model: Pretrained) -> tuple[Size, dict[str, Any]]:
    """The encoder's size, and the keys that both configs have."""
    size = parse(model.encoder["variant"])
    return size, {
        "dtype": "float32",
        "hidden_size": size.width,
        "num_hidden_layers": model.encoder.get("depth") or size.depth,
        "num_attention_heads": size.heads,
        "patch_size": size.patch,
        "hidden_act": GELU[model.encoder.get("gelu", "exact")],
        "layer_norm_eps": model.encoder.get("epsilon", 1e-6),
        "qkv_bias": True,
    }


def _of_images(model: Pretrained) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    size, common = _size(model)
    arrays = canonical.to_canonical(model.params["encoder"], size.patch, model.encoder["tubelet"])
    stored = tuple(model.encoder.get("position_grid", ()))
    oblong = model.encoder.get("positions") == "table" and stored[0] == 1
    grid = stored if oblong else other_layouts.grid(model)
    arrays = other_layouts.with_table(arrays, model.encoder, grid, size.width)
    sides = [side * size.patch for side in grid[1:]]
    return name_maps.for_huggingface(arrays, "encoder", video=False), {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        **common,
        "intermediate_size": size.hidden,
        "image_size": sides[0] if sides[0] == sides[1] else sides,
        "num_channels": 3,
    }


def _of_clips(model: Pretrained) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    size, common = _size(model)
    tubelet, options = frames(model), model.predictor if "predictor" in model.params else None
    arrays = canonical.to_canonical(model.params["encoder"], size.patch, model.encoder["tubelet"])
    kernel = f"{canonical.PATCHES}.weight"
    if tubelet == 1:
        arrays[kernel] = arrays[kernel][:, :, None]
    found = name_maps.for_huggingface(arrays, "encoder", video=True)
    if options:
        arrays = canonical.to_canonical(model.params["predictor"], 1, 1)
        token = arrays.pop("mask_token")
        arrays = {name: array for name, array in arrays.items() if name not in LEFT_OUT}
        arrays["mask_tokens"] = token.reshape(1, 1, 1, -1)
        found |= name_maps.for_huggingface(arrays, "predictor", video=True)
    return found, {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        **common,
        "mlp_ratio": mlp_ratio(size.width, size.hidden),
        "crop_size": model.input["size"],
        "frames_per_clip": model.input["frames"],
        "tubelet_size": tubelet,
        "in_chans": 3,
        "pred_hidden_size": options["width"] if options else size.width,
        "pred_num_attention_heads": options["heads"] if options else size.heads,
        "pred_num_hidden_layers": _layers(model) if options else 0,  # fewest parameters that are drawn at random
        "pred_num_mask_tokens": 1,
        "pred_mlp_ratio": 4.0,
    }


def _layers(model: Pretrained) -> int:
    return len(model.params["predictor"]["stack"]["blocks"]["norm1"]["bias"])


def _processor(model: Pretrained, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of transformers' ViTImageProcessor or VJEPA2VideoProcessor."""
    common = {
        "do_resize": True,
        "resample": 2,  # bilinear, as published
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.encoder.get("mean", MEAN)),
        "image_std": list(model.encoder.get("std", STD)),
    }
    if config["model_type"] == "ijepa":
        height, width = _sides(config)
        return {"image_processor_type": "ViTImageProcessor", **common, "size": {"height": height, "width": width}}
    side = config["crop_size"]
    crop = {"do_center_crop": True, "crop_size": {"height": side, "width": side}}
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        **common,
        **crop,
        "size": {"shortest_edge": side * 256 // 224},
    }


def _sides(config: Mapping[str, Any]) -> tuple[int, int]:
    sides = config["image_size"]
    return tuple(sides) if isinstance(sides, list) else (sides, sides)


def use(found: Folder, name: str, part: str) -> str:
    """How to load the folder `name`, for its card."""
    config, processor = found.config, found.processor[1]
    common = {"folder": name, "width": config["hidden_size"]}
    common |= {"mean": tuple(processor["image_mean"]), "std": tuple(processor["image_std"])}
    if config["model_type"] == "ijepa":
        height, wide = _sides(config)
        rows, cols = height // config["patch_size"], wide // config["patch_size"]
        text = IMAGES.format(**common, tokens=rows * cols, height=height, wide=wide, rows=rows, cols=cols)
    else:
        text = CLIPS.format(**common, size=config["crop_size"], tubelet=config["tubelet_size"])
        text += PREDICTOR if "predictor" in found.model.params else ALONE
    return text + ("\nThese are the weights of the EMA copy (`--part=target`).\n" if part == "target" else "")
