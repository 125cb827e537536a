"""Our parameters under the names that PyTorch code of this family uses (I-JEPA's and timm's, without prefix), and back.

An encoder: `patch_embed.proj` (a convolution, [D, C, p, p] of images, [D, C, t, p, p] of clips), `pos_embed` [1, N, D]
if positions are stored, `class_token` [D], `blocks.i.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}`, with
`blocks.i.{ls1,ls2}.gamma` [D] for LayerScale, and `norm`. A predictor: `embed`,
`mask_token` [W], `object_embedding` [M, W], `pos_embed`, `blocks.i` (with `norm_cross`, `cross.{q,kv,proj}` where it
attends across), `norm`, `prediction`, `residual`. Each layer has `weight` [out, in] and `bias`.
"""

import re
from collections.abc import Mapping

import numpy as np

from cjepa_jax.errors import CheckpointError

PATCHES = "patch_embed.proj"
LAYERS = {  # name of a layer -> its place in our tree
    PATCHES: "tokenizer.projection",
    "patch_embed_img.proj": "tokenizer.image_projection",
    "embed_up": "embed_up",
    "embed": "embed",
    "norm": "stack.norm",
    "prediction": "prediction",
    "residual": "residual",
}
BLOCK = {  # the same within a block
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm_cross": "norm_cross",
    "cross.q": "cross.q",
    "cross.kv": "cross.kv",
    "cross.proj": "cross.out",
    "norm2": "norm2",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
LAYERS |= {f"norms_block.{i}": f"stack.norm{i}" for i in range(8)}  # of several levels
CONVOLUTIONS = (PATCHES, "patch_embed_img.proj")
SCALES = {"ls1.gamma": "scale1", "ls2.gamma": "scale2"}  # a block's arrays
CLASS = "class_token"
ARRAYS = ("mask_token", "object_embedding", "clip_code", "image_code", CLASS)  # the same on both sides
BLOCKS = "stack.blocks."


def to_canonical(part: Mapping, patch: int, tubelet: int, channels: int = 3) -> dict[str, np.ndarray]:
    """The nested parameters of an `Encoder` or `Predictor` as one flat dict of float32 arrays.

    patch is in pixels, tubelet in frames. A predictor has neither, nor channels, so any value is accepted.

    Raises: CheckpointError for an unknown parameter, or boxes of another size.
    """
    places = {place: name for name, place in LAYERS.items()}
    inner = {place: name for name, place in BLOCK.items()}
    scales = {place: name for name, place in SCALES.items()}
    tensors = {}
    for path, array in _flatten(part):
        place, _, leaf = path.rpartition(".")
        array = np.asarray(array, np.float32)
        if path.removeprefix("tokenizer.") == "positions":
            tensors["pos_embed"] = array[None]
        elif path.removeprefix("tokenizer.") in ARRAYS:
            tensors[path.removeprefix("tokenizer.")] = array
        elif places.get(place) in CONVOLUTIONS and leaf == "kernel":
            tensors[f"{places[place]}.weight"] = _convolution(array, patch, tubelet, channels)
        elif place in places:
            tensors[f"{places[place]}.{_theirs(leaf)}"] = _turned(array, leaf)
        elif place.removeprefix(BLOCKS) in inner and place.startswith(BLOCKS):
            name = f"{inner[place.removeprefix(BLOCKS)]}.{_theirs(leaf)}"
            tensors |= {f"blocks.{i}.{name}": _turned(layer, leaf) for i, layer in enumerate(array)}
        elif f"{place}." == BLOCKS and leaf in scales:
            tensors |= {f"blocks.{i}.{scales[leaf]}": np.ascontiguousarray(layer) for i, layer in enumerate(array)}
        else:
            raise CheckpointError(f"parameter {path!r}: neither of the Vision Transformer nor of its predictor")
    return tensors


def from_canonical(tensors: Mapping[str, np.ndarray], channels: int = 3) -> dict:
    """The nested float32 parameters of flax from the result of `to_canonical`, with blocks stacked by layer.

    Each array is read once, and those of one stacked parameter together.

    Raises: CheckpointError for an unknown name, and for blocks with different shapes.
    """
    tree, blocks = {}, {}
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", layer, re.ASCII)
        if name == "pos_embed":
            place = "tokenizer.positions" if f"{PATCHES}.weight" in tensors else "positions"
            put(tree, place, np.asarray(tensors[name], np.float32)[0])
        elif name in ARRAYS:
            place = f"tokenizer.{name}" if f"{PATCHES}.weight" in tensors and name != CLASS else name
            put(tree, place, np.asarray(tensors[name], np.float32))
        elif layer in CONVOLUTIONS and leaf == "weight":
            put(tree, f"{LAYERS[layer]}.kernel", _boxes(np.asarray(tensors[name], np.float32), channels))
        elif layer in LAYERS and leaf in ("weight", "bias"):
            put(tree, f"{LAYERS[layer]}.{_ours(layer, leaf)}", _read(tensors, name))
        elif block and block[2] in BLOCK and leaf in ("weight", "bias"):
            blocks.setdefault(f"{BLOCKS}{BLOCK[block[2]]}.{_ours(layer, leaf)}", {})[int(block[1])] = name
        elif block and f"{block[2]}.{leaf}" in SCALES:
            blocks.setdefault(f"{BLOCKS}{SCALES[f'{block[2]}.{leaf}']}", {})[int(block[1])] = name
        else:
            raise CheckpointError(f"tensor {name!r}: neither of the Vision Transformer nor of its predictor")
    depth = max((max(layers) + 1 for layers in blocks.values()), default=0)
    for place, layers in blocks.items():
        put(tree, place, _stacked(tensors, layers, depth))
    return tree


def _convolution(kernel: np.ndarray, patch: int, tubelet: int, channels: int) -> np.ndarray:
    """[t p p C, D], boxes flattened as (frame, row, column, channel) -> [D, C, t, p, p], of images without t."""
    frames = kernel.shape[0] // (patch * patch * channels)
    if frames not in (1, tubelet) or kernel.shape[0] % (patch * patch * channels):
        boxes = f"boxes of {patch} x {patch} pixels and 1 or {tubelet} frames"
        raise CheckpointError(f"tokenizer.projection.kernel has {kernel.shape[0]} rows, which are not {boxes}")
    weight = kernel.reshape(frames, patch, patch, channels, -1).transpose(4, 3, 0, 1, 2)
    return np.ascontiguousarray(weight[:, :, 0] if frames == 1 else weight)


def _boxes(weight: np.ndarray, channels: int) -> np.ndarray:
    """The inverse: [D, C, (t,) p, p] -> [t p p C, D]."""
    if (
        weight.ndim not in (4, 5)
        or weight.shape[1] != channels
        or weight.shape[-1] != weight.shape[-2]
        or not weight.size
    ):
        text = f"must be [D, {channels}, p, p], or [D, {channels}, t, p, p] of clips"
        raise CheckpointError(f"{PATCHES}.weight has the shape {list(weight.shape)}: {text}")
    return np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])


def _stacked(tensors: Mapping[str, np.ndarray], layers: dict[int, str], depth: int) -> np.ndarray:
    """[depth, ...] of one parameter, `layers` its name in each block."""
    name = next(iter(layers.values()))
    absent = next((i for i in range(depth) if i not in layers), None)
    if absent is not None:
        missing = re.sub(r"^blocks\.\d+", f"blocks.{absent}", name)
        raise CheckpointError(f"tensor {missing!r} is missing: there are {depth} blocks, and {name!r}")
    arrays = [_read(tensors, layers[i]) for i in range(depth)]
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise CheckpointError(f"tensor {layers[i]!r}: its shape is not that of {layers[0]!r}")
    return np.stack(arrays)


def _read(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    layer, _, leaf = name.rpartition(".")
    return _turned(np.asarray(tensors[name], np.float32), _ours(layer, leaf))


def _theirs(leaf: str) -> str:
    return "bias" if leaf == "bias" else "weight"


def _ours(layer: str, leaf: str) -> str:
    return "bias" if leaf == "bias" else "scale" if "norm" in layer else "kernel"


def _turned(array: np.ndarray, leaf: str) -> np.ndarray:
    """A Dense kernel is the transpose of PyTorch's weight."""
    return np.ascontiguousarray(array.T if leaf == "kernel" else array)


def _flatten(tree: Mapping, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def put(tree: dict, path: str, array: np.ndarray) -> None:
    """Puts an array at a path with dots into nested dicts, which are made."""
    *places, leaf = path.split(".")
    for place in places:
        tree = tree.setdefault(place, {})
    tree[leaf] = array
