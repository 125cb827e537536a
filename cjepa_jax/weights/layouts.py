"""Our parameters under the names that PyTorch code of this family uses (I-JEPA's and timm's, without prefix), and back.

An encoder: `patch_embed.proj` (a convolution, [D, 3, p, p] of images, [D, 3, t, p, p] of clips), `pos_embed` [1, N, D]
where positions are stored, `blocks.i.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}`, `norm`. A predictor: `embed`,
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
ARRAYS = ("mask_token", "object_embedding")  # the same on both sides
BLOCKS = "stack.blocks."


def to_canonical(part: Mapping, patch: int, tubelet: int) -> dict[str, np.ndarray]:
    """The nested parameters of an `Encoder` or `Predictor` as one flat dict of float32 arrays.

    patch in pixels; tubelet in frames. A predictor has neither, and any will do.

    Raises: CheckpointError for a parameter that neither network has, or boxes of another size.
    """
    places = {place: name for name, place in LAYERS.items()}
    inner = {place: name for name, place in BLOCK.items()}
    tensors = {}
    for path, array in _flatten(part):
        place, _, leaf = path.rpartition(".")
        array = np.asarray(array, np.float32)
        if path.removeprefix("tokenizer.") == "positions":
            tensors["pos_embed"] = array[None]
        elif path in ARRAYS:
            tensors[path] = array
        elif place == LAYERS[PATCHES] and leaf == "kernel":
            tensors[f"{PATCHES}.weight"] = _convolution(array, patch, tubelet)
        elif place in places:
            tensors[f"{places[place]}.{_theirs(leaf)}"] = _turned(array, leaf)
        elif place.removeprefix(BLOCKS) in inner and place.startswith(BLOCKS):
            name = f"{inner[place.removeprefix(BLOCKS)]}.{_theirs(leaf)}"
            tensors |= {f"blocks.{i}.{name}": _turned(layer, leaf) for i, layer in enumerate(array)}
        else:
            raise CheckpointError(f"parameter {path!r}: neither of the Vision Transformer nor of its predictor")
    return tensors


def from_canonical(tensors: Mapping[str, np.ndarray]) -> dict:
    """The nested float32 parameters that flax keeps of what `to_canonical` returns, blocks stacked by layer.

    Raises: CheckpointError for a name that neither network has, and for blocks that are not alike.
    """
    tree, blocks = {}, {}
    for name, array in tensors.items():
        array = np.asarray(array, np.float32)
        layer, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", layer, re.ASCII)
        if name == "pos_embed":
            _put(tree, "tokenizer.positions" if f"{PATCHES}.weight" in tensors else "positions", array[0])
        elif name in ARRAYS:
            _put(tree, name, array)
        elif layer == PATCHES and leaf == "weight":
            _put(tree, f"{LAYERS[PATCHES]}.kernel", _boxes(array))
        elif layer in LAYERS and leaf in ("weight", "bias"):
            _put(tree, f"{LAYERS[layer]}.{_ours(leaf, array)}", _turned(array, _ours(leaf, array)))
        elif block and block[2] in BLOCK and leaf in ("weight", "bias"):
            place = f"{BLOCKS}{BLOCK[block[2]]}.{_ours(leaf, array)}"
            blocks.setdefault(place, {})[int(block[1])] = (name, _turned(array, _ours(leaf, array)))
        else:
            raise CheckpointError(f"tensor {name!r}: neither of the Vision Transformer nor of its predictor")
    depth = max((max(layers) + 1 for layers in blocks.values()), default=0)
    for place, layers in blocks.items():
        _put(tree, place, _stacked(layers, depth))
    return tree


def _convolution(kernel: np.ndarray, patch: int, tubelet: int) -> np.ndarray:
    """[t p p 3, D], boxes flattened as (frame, row, column, channel) -> [D, 3, t, p, p], of images without t."""
    frames = kernel.shape[0] // (patch * patch * 3)
    if frames not in (1, tubelet) or kernel.shape[0] % (patch * patch * 3):
        boxes = f"boxes of {patch} x {patch} pixels and 1 or {tubelet} frames"
        raise CheckpointError(f"tokenizer.projection.kernel has {kernel.shape[0]} rows, which are not {boxes}")
    weight = kernel.reshape(frames, patch, patch, 3, -1).transpose(4, 3, 0, 1, 2)
    return np.ascontiguousarray(weight[:, :, 0] if frames == 1 else weight)


def _boxes(weight: np.ndarray) -> np.ndarray:
    """The inverse: [D, 3, (t,) p, p] -> [t p p 3, D]."""
    if weight.ndim not in (4, 5) or weight.shape[1] != 3 or weight.shape[-1] != weight.shape[-2]:
        text = "must be [D, 3, p, p], or [D, 3, t, p, p] of clips"
        raise CheckpointError(f"{PATCHES}.weight has the shape {list(weight.shape)}: {text}")
    return np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])


def _stacked(layers: dict[int, tuple[str, np.ndarray]], depth: int) -> np.ndarray:
    name, first = next(iter(layers.values()))
    for i in range(depth):
        other, array = layers.get(i, (None, None))
        if other is None:
            missing = re.sub(r"^blocks\.\d+", f"blocks.{i}", name)
            raise CheckpointError(f"tensor {missing!r} is missing: there are {depth} blocks, and {name!r}")
        if array.shape != first.shape:
            raise CheckpointError(f"tensor {other!r}: its shape is not that of {name!r}")
    return np.stack([layers[i][1] for i in range(depth)])


def _theirs(leaf: str) -> str:
    return "bias" if leaf == "bias" else "weight"


def _ours(leaf: str, array: np.ndarray) -> str:
    return "bias" if leaf == "bias" else "kernel" if array.ndim == 2 else "scale"


def _turned(array: np.ndarray, leaf: str) -> np.ndarray:
    """A Dense kernel is the transpose of PyTorch's weight."""
    return np.ascontiguousarray(array.T if leaf == "kernel" else array)


def _flatten(tree: Mapping, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _put(tree: dict, path: str, array: np.ndarray) -> None:
    *places, leaf = path.split(".")
    for place in places:
        tree = tree.setdefault(place, {})
    tree[leaf] = array
