"""An image encoder under the parameter names of timm's VisionTransformer, or of I-JEPA's checkpoints.

Both have no class token, a stored table of positions, a final norm, LayerNorms of epsilon 1e-6 and biases everywhere,
and take normalised images [B, 3, H, W].
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax import positions
from cjepa_jax.configuration.check import SINCE
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.weights import canonical
from cjepa_jax.weights.published import MEAN, STD
from cjepa_jax.weights.read import Pretrained, frames

PREDICTOR = {  # canonical -> I-JEPA's
    "embed": "predictor_embed",
    "mask_token": "mask_token",
    "pos_embed": "predictor_pos_embed",
    "blocks": "predictor_blocks",
    "norm": "predictor_norm",
    "prediction": "predictor_proj",
}
TIMM = """\
With timm (its keys and shapes are held to by tests; it has not been run here):

```python
import timm

model = timm.create_model("local-dir:{folder}", num_classes=0).eval()
tokens = model.forward_features(x)   # [B, {tokens}, {width}]; their mean is the feature
```

or, for another version of it, `timm.models.vision_transformer.VisionTransformer({arguments})` and
`load_state_dict`, strict. It needs `class_token=False` (there is none), `global_pool="avg"` with `fc_norm=False` (the
norm stands before the pooling) and `img_size={size}` (`pos_embed` is stored for {rows} x {cols} patches).
`x` is [B, 3, {size}, {size}], RGB in 0..1 less the mean {mean} divided by {std}.{activation}
"""
IJEPA = """\
The names are those of I-JEPA's published checkpoints, one dot for each level of its dictionaries: `encoder.*`,
{parts} each with `module.` before the names of the network's own.

```python
from safetensors.torch import load_file

state = load_file("{folder}/model.safetensors")
own = "encoder.module."
encoder = {{name.removeprefix(own): array for name, array in state.items() if name.startswith(own)}}
```

are the keys of its VisionTransformer(img_size={size}, patch_size={patch}, embed_dim={width}, depth={depth},
num_heads={heads}, mlp_ratio={ratio!r}). It takes [B, 3, {size}, {size}], RGB in 0..1 less the mean {mean} divided by
{std}.{activation}{predictor}
"""


def timm(model: Pretrained, part: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays by timm's names, timm's config.json) of the encoder or the target.

    Raises: ConfigError for weights that timm's VisionTransformer cannot hold.
    """
    require_images(model, "timm")
    size = parse(model.encoder["variant"])
    pixels = grid(model)[1] * size.patch
    architecture = {
        "img_size": pixels,
        "patch_size": size.patch,
        "embed_dim": size.width,
        "depth": model.encoder.get("depth") or size.depth,
        "num_heads": size.heads,
        "mlp_ratio": mlp_ratio(size.width, size.hidden),
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
    }
    if model.encoder.get("gelu") == "tanh":
        architecture["act_layer"] = "gelu_tanh"
    cfg = {
        "input_size": [3, pixels, pixels],
        "mean": list(model.encoder.get("mean", MEAN)),
        "std": list(model.encoder.get("std", STD)),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": model.licence,
    }
    config = {
        "architecture": "vit_base_patch16_224",  # any VisionTransformer's name: model_args says which one
        "num_classes": 0,
        "num_features": size.width,
        "global_pool": "avg",
        "model_args": architecture,
        "pretrained_cfg": cfg,
    }
    return encoder(model, part), config


def ijepa(model: Pretrained) -> dict[str, np.ndarray]:
    """Arrays by the names of I-JEPA's checkpoints: encoder, target_encoder and, if its form allows, predictor.

    Raises: ConfigError for weights that I-JEPA's networks cannot hold.
    """
    require_images(model, "ijepa")
    parts = {"encoder": encoder(model, "encoder")}
    if "target" in model.params:
        parts["target_encoder"] = encoder(model, "target")
    if not other_predictor(model):
        parts["predictor"] = predictor(model)
    return {f"{part}.module.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def encoder(model: Pretrained, part: str) -> dict[str, np.ndarray]:
    """The encoder ("encoder", or its EMA copy, "target") in canonical names, its positions as a stored table."""
    size = parse(model.encoder["variant"])
    if part not in model.params:
        raise ConfigError(f"--part={part}: these weights have {', '.join(model.params)}")
    arrays = canonical.to_canonical(model.params[part], size.patch, model.encoder["tubelet"])
    return with_table(arrays, model.encoder, grid(model), size.width)


def predictor(model: Pretrained) -> dict[str, np.ndarray]:
    """The predictor in I-JEPA's names, without object embedding and residual head, which I-JEPA's lacks."""
    arrays = canonical.to_canonical(model.params["predictor"], 1, 1)
    width = model.predictor["width"]
    arrays = with_table(arrays, model.predictor or {}, grid(model), width) | {
        "mask_token": arrays["mask_token"].reshape(1, 1, width)
    }
    named = ((name.partition("."), array) for name, array in arrays.items())
    return {f"{PREDICTOR[head]}{dot}{rest}": array for (head, dot, rest), array in named if head in PREDICTOR}


def other_predictor(model: Pretrained) -> str:
    """The reason why the predictor is not of I-JEPA's form (no object embeddings, full self-attention), "" if it is."""
    options = model.predictor
    if not options or "predictor" not in model.params:
        return "these weights have none"
    if model.input.get("names_objects", True):
        return "it was told which objects are hidden, for which I-JEPA's has no place"
    heads = parse(model.encoder["variant"]).heads
    if options["heads"] != heads:
        return f"it has {options['heads']} heads, I-JEPA's as many as its encoder, {heads}"
    if options.get("gelu", "exact") != model.encoder.get("gelu", "exact") or options.get("epsilon", 1e-6) != 1e-6:
        return "its GELU or the epsilon of its norms is not the encoder's"
    if options.get("attention", "joint") != "joint":
        return f"its attention is {options['attention']}, I-JEPA's is joint"
    if options.get("positions", "sincos") not in ("sincos", "table"):
        return f"its positions are {options['positions']}, I-JEPA's are a table"
    return ""


def require_rgb(model: Pretrained, layout: str) -> None:
    """Raises ConfigError unless the encoder takes RGB in 0..255, as the image processors of other libraries make it."""
    for key, usual in SINCE["objective.encoder"].items():
        if (value := model.encoder.get(key, usual)) != usual:
            text = f"holds encoders of RGB pixels; these weights have {key} = {value:g}: export them with"
            raise ConfigError(f"--layout={layout}: {text} --layout=cjepa_jax")


def require_images(model: Pretrained, layout: str) -> None:
    """Raises ConfigError unless the encoder is one of images with added positions."""
    require_rgb(model, layout)
    kind = model.encoder.get("positions", "sincos")
    if frames(model) > 1 or model.input.get("frames", 1) > 1:
        raise ConfigError(f"--layout={layout}: holds encoders of images, these weights take clips")
    if kind not in ("sincos", "table"):
        raise ConfigError(f"--layout={layout}: holds positions as a table, those of these weights are {kind}")
    if model.encoder.get("epsilon", 1e-6) != 1e-6:
        raise ConfigError(f"--layout={layout}: has LayerNorms of epsilon 1e-6, here it is {model.encoder['epsilon']}")


def grid(model: Pretrained) -> tuple[int, int, int]:
    """(1, rows, cols) of the stored positions: the table's, if it is of square images, or the training's."""
    stored = tuple(model.encoder.get("position_grid", ()))
    if model.encoder.get("positions", "sincos") == "table" and stored == (1, stored[-1], stored[-1]):
        return stored
    side = model.input["size"] // parse(model.encoder["variant"]).patch
    return 1, side, side


def use(model: Pretrained, layout: str, folder: str, part: str, config: Mapping[str, Any]) -> str:
    """How to load an export of this layout, for its card."""
    size, (_, rows, cols) = parse(model.encoder["variant"]), grid(model)
    tanh = model.encoder.get("gelu") == "tanh"
    common = {
        "folder": folder,
        "size": rows * size.patch,
        "width": size.width,
        "mean": tuple(model.encoder.get("mean", MEAN)),
        "std": tuple(model.encoder.get("std", STD)),
        "activation": " The MLPs use GELU's tanh form." if tanh else "",
    }
    if layout == "timm":
        arguments = ", ".join(f"{name}={value!r}" for name, value in config["model_args"].items()) + ", num_classes=0"
        which = "" if part == "encoder" else f"\nThese are the weights of the EMA copy (`--part={part}`).\n"
        return TIMM.format(**common, tokens=rows * cols, rows=rows, cols=cols, arguments=arguments) + which
    other = other_predictor(model)
    parts = ["`target_encoder.*` (its EMA copy)"] * ("target" in model.params) + ["`predictor.*`"] * (not other)
    left = "its object embedding (unused) and its residual head, which I-JEPA's has not"
    return IJEPA.format(
        **common,
        parts=", ".join(parts) + "," if parts else "",
        patch=size.patch,
        depth=model.encoder.get("depth") or size.depth,
        heads=size.heads,
        ratio=mlp_ratio(size.width, size.hidden),
        predictor=f"\n\nThe predictor is left out: {other}." if other else f"\n\nOf the predictor are left out {left}.",
    )


def mlp_ratio(width: int, hidden: int) -> float:
    """The ratio r for which int(width * r), as PyTorch code computes it, is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def with_table(
    arrays: dict[str, np.ndarray], options: Mapping[str, Any], grid: tuple[int, int, int], width: int
) -> dict[str, np.ndarray]:
    """With positions as a table for `grid`: computed, or the stored one, resized as the network would."""
    if "pos_embed" not in arrays:
        return arrays | {"pos_embed": positions.sincos(grid, width)[None]}
    stored, table = tuple(options["position_grid"]), arrays["pos_embed"]
    if stored != grid:
        t, r, c = positions.resizing(stored, grid)
        table = np.einsum("ta,rb,cd,abdk->trck", t, r, c, table.reshape(*stored, width)).reshape(1, -1, width)
    return arrays | {"pos_embed": table}
