"""Converts published encoders and predictors in canonical names to keyword arguments and parameters of ours."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax import positions
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import canonical, diff, dinov2, levels, shapes
from cjepa_jax.weights.files import Tensors
from cjepa_jax.weights.name_maps import derived

PATCHES, BIAS = f"{canonical.PATCHES}.weight", f"{canonical.PATCHES}.bias"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, with which all of them were trained
UNUSED = re.compile(r"(head|fc_norm|classifier|pooler)\.|mask_token$")  # classifiers, and the token of masked pixels
LAST_LEVEL = "of its four levels the last"
REMOVED = 3  # rows of the object embedding that a published predictor gets
NON_COMMERCIAL = "CC-BY-NC-4.0"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Properties of a layout that its arrays do not show.

    Attributes: name, licence, epsilon, gelu, mean, std. rotary: the positions if none are stored ("" if they are).
    reference: pixels to whose grid rotations are scaled (0: they are not). frames and size of the training's input
    (frames 0: unknown, size 0: from the stored positions). grid of the stored positions, () to infer it. heads of the
    encoder (0: by its width) and of the predictor (0: the encoder's).
    """

    name: str
    licence: str = "unknown"
    rotary: str = ""
    reference: int = 0
    frames: int = 0
    size: int = 0
    grid: tuple[int, ...] = ()
    heads: int = 0
    predictor_heads: int = 0
    epsilon: float = 1e-6
    gelu: str = "exact"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("ijepa", NON_COMMERCIAL, frames=1),
        Layout("vjepa", NON_COMMERCIAL, frames=16),
        Layout("vjepa2", "MIT", "rope_tile", frames=64, size=256, predictor_heads=12),
        Layout("vjepa2.1", "MIT", "rope", 256, frames=64, size=384, predictor_heads=12),
        Layout("timm"),
    )
}
DINOV2 = Layout("hf-dinov2", "Apache-2.0", frames=1)


def recognised(parts: Mapping[str, Tensors], tensors: Tensors) -> Layout:
    """The layout of the parts of a checkpoint (see name_maps.raw) with these arrays.

    Raises: CheckpointError if it cannot be inferred.
    """
    encoder = next((view for part, view in parts.items() if part != "predictor"), {})
    if PATCHES not in encoder:
        huggingface = any("embeddings.patch_embeddings." in name for name in tensors)
        text = "transformers' names: give the folder, with its config.json" if huggingface else "no name of one"
        raise CheckpointError(f"{tensors.source}: no encoder of I-JEPA, V-JEPA or timm found: {text}")
    if any(name.startswith(("norms_block.", "patch_embed_img.")) for name in encoder):
        return LAYOUTS["vjepa2.1"]
    if len(encoder.shapes[PATCHES]) == 4:
        return LAYOUTS["timm" if "" in parts else "ijepa"]
    # V-JEPA 2's files may still hold the positions of V-JEPA, which it does not use.
    predictor = parts.get("predictor", ())
    several = sum(name.startswith("mask_tokens.") for name in predictor) > 2
    if "pos_embed" not in encoder or shapes.size(encoder.shapes, PATCHES) == 1408:
        return LAYOUTS["vjepa2"]
    if not predictor:
        text = (
            "an encoder of clips alone does not tell whether its stored positions are used: give layout='vjepa2' if not"
        )
        raise CheckpointError(
            f"{tensors.source}: {text}, else layout='vjepa', or 'timm' for neither (commands: --from-layout)"
        )
    return LAYOUTS["vjepa2" if several or "pos_embed" not in predictor else "vjepa"]


def encoder(
    view: Tensors, layout: Layout, images: bool = False, every_level: bool = False
) -> tuple[dict[str, Any], dict, list[str]]:
    """Returns (keyword arguments of Encoder, its parameters, notes of what was left out).

    Args:
      view: an encoder in canonical names (see name_maps).
      images: a clip's tokeniser becomes an image tokeniser, as for clips of one repeated frame.
      every_level: all levels and both tokenisers of V-JEPA 2.1, not its last level as a plain encoder.

    Raises: CheckpointError naming all missing, unexpected or mis-shaped arrays, or a value that cannot be inferred.
    """
    where, notes, stored = str(view.source), [], view
    if every_level and images:
        raise CheckpointError(f"{where}: images = True with levels = True: such an encoder takes unchanged images")
    shape = view.shapes.get(PATCHES, ())
    if len(shape) not in (4, 5) or shape[1] != 3 or shape[-1] != shape[-2] or 0 in shape:
        text = "must be [D, 3, p, p], or [D, 3, t, p, p] of clips"
        raise CheckpointError(f"{where}: {PATCHES} has the shape {list(shape)}: {text}")
    width, patch, tubelet = shape[0], shape[-1], shape[2] if len(shape) == 5 else 1
    view = _plain(view, layout, images and len(shape) == 5, notes)
    view, extra, own = dinov2.parts(view, width) if layout.name == DINOV2.name else (view, {}, {})
    depth, hidden = shapes.depth(view), shapes.size(view.shapes, "blocks.0.mlp.fc1.bias", default=4 * width)
    heads = shapes.heads(layout.heads, width, bool(layout.rotary), where)
    wanted = shapes.stack(width, depth, hidden) | {PATCHES: (width, *view.shapes[PATCHES][1:]), BIAS: (width,)} | extra
    times = 1 if len(shape) == 4 else layout.frames // tubelet
    places, view = _positions(view, layout, (patch, width), (times, layout.grid), wanted)
    diff.compare(view.shapes, wanted, where)
    options = {
        "variant": shapes.variant(width, depth, heads, hidden=hidden, patch=patch, where=where),
        "tubelet": 1 if images else tubelet,
        "gelu": layout.gelu,
        **places,
        "epsilon": layout.epsilon,
        "mean": layout.mean,
        "std": layout.std,
        "depth": 0,
        **own,
    }
    if every_level and layout.name == "vjepa2.1":
        unused = [name for name in stored if UNUSED.match(name)]
        whole = derived(stored, unused, _no_biases(stored))
        return *levels.encoder(whole, options), [note for note in notes if note != LAST_LEVEL]
    return options, canonical.from_canonical(view), notes


def predictor(
    view: Tensors, layout: Layout, encoder: Mapping[str, Any], mask_token: int | None = None
) -> tuple[dict[str, Any] | None, dict | None, list[str]]:
    """Returns (keyword arguments of Predictor without `out`, its parameters, notes), or (None, None, notes) if its form
    differs from ours.

    It has no object embeddings and no residual head. Ours are then zero and untrained.

    Args:
      encoder: the keyword arguments of its encoder.
      mask_token: index of the mask token, if there are several (one for each kind of mask in training). None: number 1,
        as in the original code and transformers. If that was never trained (it is 0), the first that is not 0.
    """
    where, size = f"{view.source}: the predictor", parse(encoder["variant"])
    view, notes = _one_mask_token(view, mask_token)
    view = derived(view, ["pos_embed"] if layout.rotary else [], _no_biases(view))
    if encoder.get("levels"):
        view = levels.predictor(view, size.width) or view
    width, depth = shapes.size(view.shapes, "embed.weight"), shapes.depth(view)
    heads = layout.predictor_heads or size.heads
    wanted = shapes.stack(width, depth, 4 * width) | {"mask_token": (width,)}
    out, units, own = size.width, 0, {}
    if "embed_up.bias" in view:
        out, units = size.width * len(encoder["levels"]), shapes.size(view.shapes, "embed_up.bias")
        wanted |= {"embed_up.weight": (units, out), "embed_up.bias": (units,)}
        wanted |= {"clip_code": (width,), "image_code": (width,)}
        wanted |= {"residual.weight": (out, width), "residual.bias": (out,)}
        own = {"embed_units": units, "scene_code": True}
    wanted |= {"embed.weight": (width, units or out), "embed.bias": (width,)}
    wanted |= {"prediction.weight": (out, width), "prediction.bias": (out,)}
    other = _other_form(view, width, heads, out, {*wanted, "pos_embed"})
    if other:
        return None, None, [f"the predictor is left out: {other}"]
    grid = tuple(encoder["position_grid"]) if encoder["positions"] == "table" else layout.grid
    places, view = _positions(view, layout, (size.patch, width), (grid[0] if grid else 0, grid), wanted)
    diff.compare(view.shapes, wanted, where)
    zeros: dict[str, tuple[int, ...]] = {"object_embedding": (REMOVED, width)}
    if not units:
        zeros |= {"residual.weight": (out, width), "residual.bias": (out,)}
    view = derived(view, added={name: (shape, lambda shape=shape: np.zeros(shape)) for name, shape in zeros.items()})
    options = {"depth": depth, "width": width, "heads": heads, "attention": "joint", "max_objects": REMOVED}
    options |= {"gelu": layout.gelu, **places, "epsilon": layout.epsilon, **own}
    heads_too = "" if units else " and residual head"
    untrained = f"the predictor's object embedding{heads_too} {'is' if units else 'are'} zeros, untrained"
    return options, canonical.from_canonical(view), [*notes, untrained]


def _other_form(view: Tensors, width: int, heads: int, out: int, known: set[str]) -> str:
    """The property of this predictor that ours does not support, "" if there is none."""
    extra = [name for name in view if name not in known]
    found = shapes.size(view.shapes, "prediction.bias", default=out)
    hidden = shapes.size(view.shapes, "blocks.0.mlp.fc1.bias", default=4 * width)
    if extra:
        return f"it has {extra[0]!r}, ours has not"
    if not width:
        return "it has no 'embed.weight'"
    if width % heads:
        return f"its {heads} heads do not divide its width {width}"
    if hidden != 4 * width:
        return f"its MLPs have {hidden} units, ours {4 * width}"
    return f"it predicts {found} numbers, the encoder has {out}" if found != out else ""


def _plain(view: Tensors, layout: Layout, images: bool, notes: list[str]) -> Tensors:
    """The view as a plain encoder: parts that ours lacks are folded into other arrays, or left out."""
    without, added = [name for name in view if UNUSED.match(name)], {}
    if without:
        notes.append(f"left out: {', '.join(sorted({name.split('.')[0] for name in without}))}")
    if layout.rotary:
        without.append("pos_embed")
    if layout.name == "vjepa2.1":
        gone, added = _modern(view, images)
        without += gone
        notes.append(LAST_LEVEL)
    elif images:
        shape = view.shapes[PATCHES]
        added[PATCHES] = (shape[:2] + shape[3:], lambda: view[PATCHES].sum(2))
        notes.append("it takes an image as a clip that stands still")
    return derived(view, without, added | _no_biases(view))


def _no_biases(view: Tensors) -> dict:
    """Zeros for missing biases of queries, keys and values (see name_maps.derived)."""
    if any(name.endswith("attn.qkv.bias") for name in view):
        return {}
    sizes = {name: view.shapes[name][:1] for name in view if name.endswith("attn.qkv.weight")}
    return {
        name.removesuffix("weight") + "bias": (size, lambda size=size: np.zeros(size, np.float32))
        for name, size in sizes.items()
    }


def _modern(view: Tensors, images: bool) -> tuple[list[str], dict]:
    """V-JEPA 2.1 has a norm for each level, and a tokeniser and a code for each of clips and images.

    Returns: names to remove, and their replacements (see name_maps.derived).
    """
    norms = [name for name in view if name.startswith("norms_block.")]
    last = max((int(name.split(".")[1]) for name in norms if name.split(".")[1].isdecimal()), default=0)
    added = {}
    for leaf in ("weight", "bias"):
        name = f"norms_block.{last}.{leaf}"
        if name in view:
            added[f"norm.{leaf}"] = (view.shapes[name], lambda name=name: view[name])
    own, code = ("patch_embed_img.proj", "img_mod_embed") if images else (canonical.PATCHES, "video_mod_embed")
    if f"{own}.bias" in view and code in view:
        if math.prod(view.shapes[code]) != math.prod(view.shapes[f"{own}.bias"]):
            text = f"{code} has the shape {list(view.shapes[code])}, which is not the encoder's width"
            raise CheckpointError(f"{view.source}: {text}")
        added[BIAS] = (view.shapes[f"{own}.bias"], lambda: view[f"{own}.bias"] + view[code].reshape(-1))
    if images and len(view.shapes.get(f"{own}.weight", ())) == 5:
        shape = view.shapes[f"{own}.weight"]
        added[PATCHES] = (shape[:2] + shape[3:], lambda: view[f"{own}.weight"].sum(2))
    others = ["patch_embed_img.proj.weight", "patch_embed_img.proj.bias", "img_mod_embed", "video_mod_embed"]
    return norms + others, added


def _one_mask_token(view: Tensors, index: int | None) -> tuple[Tensors, list[str]]:
    """The view with one `mask_token` [W], the index-th of several. Raises: CheckpointError if there is none of it."""
    several = sorted(name for name in view if name.startswith("mask_tokens."))  # [1, 1, W] each
    together = view.shapes.get("mask_tokens", ())  # [M, 1, 1, W]
    count = together[0] if together else len(several)
    if not count:
        if "mask_token" not in view:
            return view, []
        size = (math.prod(view.shapes["mask_token"]),)
        return derived(view, added={"mask_token": (size, lambda: view["mask_token"].reshape(-1))}), []
    tokens = list(view["mask_tokens"]) if together else [view[name] for name in sorted(several, key=_number)]
    norms = [float(np.linalg.norm(token)) for token in tokens]
    if index is None:
        index = next((k for k in (1, *range(count)) if k < count and norms[k] > 0), min(1, count - 1))
    if not 0 <= index < count:
        raise CheckpointError(f"{view.source}: mask_token = {index}: the predictor has {count}, from 0")
    read, size = (lambda: tokens[index].reshape(-1)), (tokens[index].size,)
    shown = ", ".join(f"{norm:.3g}" for norm in norms)
    notes = [f"the predictor's mask token is number {index} of 0..{count - 1}, of norms {shown}"] if count > 1 else []
    return derived(view, ["mask_tokens", *several], {"mask_token": (size, read)}), notes


def _number(name: str) -> tuple[int, str]:
    last = name.rpartition(".")[2]
    return (int(last) if last.isdecimal() and len(last) < 6 else 10**6, name)


def _positions(
    view: Tensors, layout: Layout, size: tuple[int, int], known: tuple[int, tuple[int, ...]], wanted: dict
) -> tuple[dict[str, Any], Tensors]:
    """Sets `positions` and `position_grid`. Stored positions go into `wanted`, or out of the view if they equal our
    formula.

    Args:
      size: (patch, width). known: (times, grid) of the stored positions, 0 and () to infer them.
    """
    (patch, width), (times, grid) = size, known
    if layout.rotary:
        side = layout.reference // patch
        return {"positions": layout.rotary, "position_grid": (1, side, side) if side else ()}, view
    count = math.prod(view.shapes.get("pos_embed", (1,))[:-1])
    wanted["pos_embed"] = (1, count, width)
    if view.shapes.get("pos_embed") != wanted["pos_embed"]:
        return {}, view  # the comparison of shapes reports it
    grids = [grid] if grid else shapes.squares(count)
    table = view["pos_embed"][0]
    if any(np.array_equal(table, positions.sincos(each, width)) for each in grids if math.prod(each) == count):
        del wanted["pos_embed"]
        return {"positions": "sincos", "position_grid": ()}, derived(view, ["pos_embed"])
    found = next((each for each in grids if math.prod(each) == count and (grid or each[0] == times)), None)
    if not found:
        text = f"square grid{f' of {times} times' if times else ''}: give the clips' length, frames=..."
        text = f"grid of {grid}" if grid else text
        raise CheckpointError(f"{view.source}: pos_embed has {count} places, which are not a {text}")
    return {"positions": "table", "position_grid": found}, view
