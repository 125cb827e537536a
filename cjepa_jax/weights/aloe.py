"""State dicts of SlotFormer's ALOE for CLEVRER: to the parameters of models.aloe.Aloe and back, to the bit.

    found = aloe.read("clevrer_vqa.pth")
    Aloe(**found.sizes, heads=8, head_width=18).apply({"params": found.params}, slots, words, choice, 20)
    arrays = aloe.state_dict(found.params)          under the published names again

The number of heads is not stored: 8 in the published model.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files
from cjepa_jax.weights.slots import compare, turned

PREFIX = re.compile(r"(?:module\.|state_dict\.)*(?:transformer_model\.)?")
CONSTANTS = {  # not learned: what a token is
    "text_token": (1.0, 0.0),
    "vision_token": (0.0, 1.0),
    "cls_token": (0.0, 1.0),
    "mc_question_token": (1.0, 0.0),
    "mc_choice_token": (0.0, 1.0),
}
ARRAYS = {"CLS": ("cls",), "transformer_encoder.pos_embedding": ("positions",), "q_embedding.weight": ("words",)}
LAYERS = {
    "q_in_proj": ("text",),
    "vision_in_proj": ("vision",),
    "cls_answer_mlp.0": ("answer_up",),
    "cls_answer_mlp.2": ("answer_down",),
    "mc_answer_mlp.0": ("choice_up",),
    "mc_answer_mlp.2": ("choice_down",),
}
BLOCK = {  # the published name within transformer_encoder.layers.i -> ours within a block
    "self_attn.in_proj_": ("qkv",),
    "self_attn.out_proj.": ("out",),
    "linear1.": ("up",),
    "linear2.": ("down",),
    "norm1.": ("norm1",),
    "norm2.": ("norm2",),
}
LAYER = re.compile(r"transformer_encoder\.layers\.(\d{1,3})\.(.+?)(weight|bias)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class AloeWeights:
    """params of models.aloe.Aloe, and its attributes `sizes` but heads and head_width. width: heads x head_width."""

    params: dict[str, Any]
    sizes: dict[str, int]
    width: int


def read(path: str | os.PathLike) -> AloeWeights:
    """The weights of a file, PyTorch's or safetensors. Raises CheckpointError as weights.files and `from_state`."""
    return from_state(files.tensors(path), str(path))


def from_state(state: Mapping[str, np.ndarray], source: str = "state dict") -> AloeWeights:
    """The weights of a state dict: published names, which may begin with "transformer_model.".

    Raises: CheckpointError for a name that is missing or unknown, for shapes that do not fit together, and for
      constants that are not the published ones.
    """
    arrays = {PREFIX.sub("", name, count=1): np.asarray(array, np.float32) for name, array in state.items()}
    if len(arrays) < len(state):
        raise CheckpointError(f"{source}: two arrays have the same name without their prefixes")
    depth = 1 + max((int(found[1]) for found in map(LAYER.match, arrays) if found), default=-1)

    def axes(name: str, count: int) -> tuple[int, ...]:
        """The shape of the array. Zeros where it is missing, which `compare` refuses."""
        shape = arrays[name].shape if name in arrays else (0,) * count
        if len(shape) != count:
            raise CheckpointError(f"{source}: {name} has shape {list(shape)}: must have {count} axes")
        return shape

    words, embed = axes("q_embedding.weight", 2)
    answers, hidden = axes("cls_answer_mlp.2.weight", 2)
    _, length, width = axes("transformer_encoder.pos_embedding", 3)
    sizes = {
        "words": words,
        "answers": answers,
        "depth": depth,
        "units": axes("transformer_encoder.layers.0.linear1.weight", 2)[0],
        "embed": embed,
        "hidden": hidden,
    }
    wanted = _shapes(sizes, width, length, axes("vision_in_proj.weight", 2)[1])
    compare(source, arrays, wanted, "of ALOE")
    for name, value in CONSTANTS.items():
        if not np.array_equal(arrays[name], np.array(value, np.float32)):
            raise CheckpointError(f"{source}: {name} = {arrays[name].tolist()}: must be {list(value)}")
    params: dict[str, Any] = {}
    for name in wanted:
        if name not in CONSTANTS:
            *place, leaf = _ours(name)
            into = params
            for part in place:
                into = into.setdefault(part, {})
            into[leaf] = turned(arrays[name], leaf, ("cls", "positions"))
    return AloeWeights(params, sizes, width)


def state_dict(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The published state dict, float32, with its constants."""
    width = len(params["cls"])
    sizes = {
        "words": len(params["words"]),
        "answers": len(params["answer_down"]["bias"]),
        "depth": sum(name.startswith("block") for name in params),
        "units": len(params["block0"]["up"]["bias"]),
        "embed": np.shape(params["words"])[1],
        "hidden": len(params["answer_up"]["bias"]),
    }
    shapes = _shapes(sizes, width, len(params["positions"]), len(params["vision"]["kernel"]))
    found = {}
    for name, shape in shapes.items():
        if name in CONSTANTS:
            found[name] = np.array(CONSTANTS[name], np.float32)
            continue
        *place, leaf = _ours(name)
        array: Any = params
        for part in place:
            array = array[part]
        found[name] = turned(np.asarray(array[leaf], np.float32), leaf, ()).reshape(shape)
    return found


def _shapes(sizes: Mapping[str, int], width: int, length: int, seen: int) -> dict[str, tuple[int, ...]]:
    """The published names and their shapes. seen: inputs of the vision layer, the slots' width and 2 constants."""
    units, hidden = sizes["units"], sizes["hidden"]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(CONSTANTS, (2,))
    shapes |= {"CLS": (1, 1, width), "transformer_encoder.pos_embedding": (1, length, width)}
    linear = {}
    for i in range(sizes["depth"]):
        of = f"transformer_encoder.layers.{i}"
        shapes |= {f"{of}.self_attn.in_proj_weight": (3 * width, width), f"{of}.self_attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{of}.norm{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
        linear[f"{of}.self_attn.out_proj"] = (width, width)
        linear |= {f"{of}.linear1": (units, width), f"{of}.linear2": (width, units)}
    linear |= {"q_in_proj": (width, sizes["embed"] + 4), "vision_in_proj": (width, seen)}
    for head, outputs in (("cls", sizes["answers"]), ("mc", 1)):
        linear |= {f"{head}_answer_mlp.0": (hidden, width), f"{head}_answer_mlp.2": (outputs, hidden)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | {"q_embedding.weight": (sizes["words"], sizes["embed"])}


def _ours(name: str) -> tuple[str, ...]:
    """The place of a published name in the tree of models.aloe.Aloe."""
    if name in ARRAYS:
        return ARRAYS[name]
    place: tuple[str, ...]
    if block := LAYER.fullmatch(name):
        place, leaf = (f"block{block[1]}", *BLOCK[block[2]]), block[3]
    else:
        layer, _, leaf = name.rpartition(".")
        place = LAYERS[layer]
    if leaf == "weight":
        leaf = "scale" if place[-1] in ("norm1", "norm2") else "kernel"
    return (*place, leaf)
