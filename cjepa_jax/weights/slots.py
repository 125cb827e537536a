"""State dicts of the published masked slot predictor (arXiv 2602.11389): to our parameters and back, to the bit.

    found = slots.read("clevrer_videosaur_3_epoch_30_object.ckpt")
    found.frames, found.depth, found.width                    the heads are not stored: 16 in every published run
    SlotPredictor(frames=found.frames, ...).apply({"params": found.params["predictor"]}, ...)
    arrays = slots.state_dict(found.params)                   under the published names again

A file of a Push-T run also has `action_encoder` and `proprio_encoder`, convolutions of kernel 1, which are linear maps.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files
from cjepa_jax.weights.safety import short

PREFIX = re.compile(r"(?:module\.|model\.|state_dict\.)*(?:predictor\.)?")
ARRAYS = {"mask_token": ("mask_token",), "time_pos_embed": ("positions",)}  # [1, 1, D] and [1, T, 1, D]
LAYERS = {"id_projector": ("anchor",), "transformer.norm": ("norm",), "to_out": ("prediction",)}
BLOCK = {  # the published name within transformer.layers.i -> ours within a block
    "0.in_proj_": ("qkv",),
    "0.out_proj.": ("out",),
    "1.0.": ("norm2",),
    "1.1.": ("up",),
    "1.4.": ("down",),
}
LAYER = re.compile(r"transformer\.layers\.(\d{1,3})\.", re.ASCII)
NORMS = ("norm", "norm2")
AUXILIARY = {"action_encoder": "action", "proprio_encoder": "proprio"}  # of the Push-T model


@dataclasses.dataclass(frozen=True)
class SlotWeights:
    """What a state dict holds. `params` is as that of objectives.slots.Slots: "predictor", and perhaps "action" and
    "proprio". frames, depth, width, units: attributes of models.slot_predictor.SlotPredictor, the width the slots'."""

    params: dict[str, Any]
    frames: int
    depth: int
    width: int
    units: int


def read(path: str | os.PathLike) -> SlotWeights:
    """The weights of a file, PyTorch's or safetensors. Raises CheckpointError as weights.files and `from_state`."""
    return from_state(files.tensors(path), str(path))


def from_state(state: Mapping[str, np.ndarray], source: str = "state dict") -> SlotWeights:
    """The weights of a state dict: published names, which may begin with "module." or "predictor.".

    Raises: CheckpointError for a name that is missing or unknown, and for shapes that do not fit together.
    """
    arrays = {PREFIX.sub("", name, count=1): np.asarray(state[name], np.float32) for name in state}
    if len(arrays) < len(state):
        raise CheckpointError(f"{source}: two arrays have the same name without their prefixes")
    if "time_pos_embed" not in arrays or arrays["time_pos_embed"].ndim != 4:
        raise CheckpointError(f"{source}: has no time_pos_embed [1, T, 1, D]: it is not a masked slot predictor")
    width, frames = arrays["time_pos_embed"].shape[-1], arrays["time_pos_embed"].shape[1]
    layers = [found for found in map(LAYER.match, arrays) if found]
    depth = 1 + max((int(found[1]) for found in layers), default=-1)
    first = arrays.get("transformer.layers.0.1.1.weight", np.zeros((0, width)))
    sizes = {"width": width, "frames": frames, "units": len(first)}
    auxiliary = {ours: name for name, ours in AUXILIARY.items() if f"{name}.patch_embed.weight" in arrays}
    wanted = _shapes(depth, sizes)
    for name in auxiliary.values():
        taken = arrays[f"{name}.patch_embed.weight"].shape[1:2]
        wanted |= {f"{name}.patch_embed.weight": (width, *taken, 1), f"{name}.patch_embed.bias": (width,)}
    compare(source, arrays, wanted, "of the masked slot predictor")
    params: dict[str, Any] = {"predictor": {}}
    for name in _shapes(depth, sizes):
        *place, leaf = _ours(name)
        into = params["predictor"]
        for part in place:
            into = into.setdefault(part, {})
        into[leaf] = turned(arrays[name], leaf)
    for ours, name in auxiliary.items():
        kernel = arrays[f"{name}.patch_embed.weight"][..., 0].T
        params[ours] = {"kernel": np.ascontiguousarray(kernel), "bias": arrays[f"{name}.patch_embed.bias"]}
    return SlotWeights(params, frames, depth, width, len(first))


def state_dict(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The published state dict, float32, of `params` as in SlotWeights.

    Raises: CheckpointError for parameters that the published model does not have (a pre-norm block, gates).
    """
    predictor = params["predictor"]
    depth = sum(name.startswith("block") for name in predictor)
    frames, width = np.shape(predictor["positions"])
    sizes = {"width": width, "frames": frames, "units": np.shape(predictor["block0"]["up"]["bias"])[0]}
    found, shapes = {}, _shapes(depth, sizes)
    for name, shape in shapes.items():
        *place, leaf = _ours(name)
        array = predictor
        for part in place:
            array = array[part]
        found[name] = turned(np.asarray(array[leaf], np.float32), leaf).reshape(shape)
    if "norm1" in predictor.get("block0", {}):
        raise CheckpointError("predictor/block0/norm1: the published block has no norm before its attention")
    if others := set(params) - {"predictor", *AUXILIARY.values()}:
        raise CheckpointError(f"{min(others)}: the published model has no such part")
    for name, ours in AUXILIARY.items():
        if ours in params:
            found[f"{name}.patch_embed.weight"] = np.asarray(params[ours]["kernel"], np.float32).T[..., None]
            found[f"{name}.patch_embed.bias"] = np.asarray(params[ours]["bias"], np.float32)
    return found


def _shapes(depth: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The published names and their shapes."""
    width, units = sizes["width"], sizes["units"]
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, width), "time_pos_embed": (1, sizes["frames"], 1, width)}
    linear = {"id_projector": (width, width), "to_out": (width, width)}
    for i in range(depth):
        of = f"transformer.layers.{i}"
        shapes |= {f"{of}.0.in_proj_weight": (3 * width, width), f"{of}.0.in_proj_bias": (3 * width,)}
        shapes |= {f"{of}.1.0.weight": (width,), f"{of}.1.0.bias": (width,)}
        linear |= {f"{of}.0.out_proj": (width, width), f"{of}.1.1": (units, width), f"{of}.1.4": (width, units)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | {"transformer.norm.weight": (width,), "transformer.norm.bias": (width,)}


def _ours(name: str) -> tuple[str, ...]:
    """The place of a published name in our predictor's tree."""
    if name in ARRAYS:
        return ARRAYS[name]
    place: tuple[str, ...]
    block = re.fullmatch(r"transformer\.layers\.(\d+)\.(.+?)(weight|bias)", name)
    if block:
        place = (f"block{block[1]}", *BLOCK[block[2]])
        leaf = block[3]
    else:
        layer, _, leaf = name.rpartition(".")
        place = LAYERS[layer]
    if leaf == "weight":
        leaf = "scale" if place[-1] in NORMS else "kernel"
    return (*place, leaf)


def turned(array: np.ndarray, leaf: str, flat: tuple[str, ...] = ("mask_token", "positions")) -> np.ndarray:
    """A kernel between [out, in] and [in, out]. Arrays of the leaves `flat` lose their axes of length 1."""
    if leaf == "kernel":
        return np.ascontiguousarray(array.T)
    return array.reshape([n for n in array.shape if n != 1]) if leaf in flat else array


def compare(source: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], model: str) -> None:
    """Raises CheckpointError, one line, for the first array that is missing, unknown or of another shape."""
    for name in wanted:
        if name not in arrays:
            raise CheckpointError(f"{source}: has no {name}")
    for name, array in arrays.items():
        if name not in wanted:
            raise CheckpointError(f"{source}: {short(name)} is not an array {model}")
        if array.shape != wanted[name]:
            raise CheckpointError(
                f"{source}: {short(name)} has shape {list(array.shape)}: must be {list(wanted[name])}"
            )
