"""State dicts of public slot encoders: to our parameters and back, to the bit. SAVi, and what VideoSAUR shares.

found = slot_encoders.savi(files.tensors("stosavi_clevrer_params.pth"))
Savi(**found.sizes).apply({"params": found.params}, video)
arrays = slot_encoders.savi_state(found)                 under the published names again
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.safety import short

SAVI = {  # the published layer -> ours. Numbered layers are in `_savi_names`
    "kernel_dist_layer.0": "kernel",
    "encoder_pos_embedding.dense": "encoder_position/dense",
    "encoder_out_layer.0": "norm_pixels",
    "encoder_out_layer.1": "token_up",
    "encoder_out_layer.3": "token_down",
    "slot_attention.norm_inputs": "corrector/norm_tokens",
    "slot_attention.project_q.0": "corrector/norm_slots",
    "slot_attention.project_q.1": "corrector/q",
    "slot_attention.project_k": "corrector/k",
    "slot_attention.project_v": "corrector/v",
    "slot_attention.mlp.0": "corrector/norm_mlp",
    "slot_attention.mlp.1": "corrector/up",
    "slot_attention.mlp.3": "corrector/down",
    "predictor.ln": "norm_next",
    "predictor.mlp.0": "next_up",
    "predictor.mlp.2": "next_down",
    "decoder_pos_embedding.dense": "decoder_position/dense",
}
BARE = re.compile(r".*(?:to_[qkv]|project_[kv]|project_q\.1)", re.ASCII)  # layers without a bias
GRU = {"ih": "input", "hh": "hidden"}
UNUSED = re.compile(r"prior_slot_layer\.\d\.(?:weight|bias)|(?:encoder|decoder)_pos_embedding\.grid", re.ASCII)
PREFIX = re.compile(r"(?:module\.|model\.|state_dict\.)*")


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
    """What a state dict holds. params: the module's. sizes: keyword arguments of the module that shapes tell. unused:
    arrays of any type, by their published names, that no output depends on."""

    params: dict[str, Any]
    sizes: dict[str, Any]
    unused: dict[str, np.ndarray]


def savi(state: Mapping[str, np.ndarray], source: str = "state dict") -> EncoderWeights:
    """Weights of SlotFormer's StoSAVi (kernel_mlp off, predictor "mlp") for models.slot_encoders.Savi.

    `sizes` lacks strides and iterations, which no array tells: Savi's own are the published ones.

    Raises: CheckpointError for a missing, unknown or misshapen array, and for two of the same name.
    """
    arrays, unused = arrays_of(source, state, lambda name: bool(UNUSED.fullmatch(name)))
    layers = {part: _count(arrays, part) for part in ("encoder", "decoder")}
    names = _savi_names(**layers)
    params = tree(source, arrays, names, "StoSAVi")
    sizes = _savi_sizes(params, layers)
    _check_savi(source, params, sizes)
    return EncoderWeights(params, sizes, unused)


def savi_state(weights: EncoderWeights) -> dict[str, np.ndarray]:
    """The published state dict, float32, of `savi`'s result."""
    layers = {"encoder": len(weights.sizes["channels"]), "decoder": len(weights.sizes["decoder"])}
    return untree(weights, _savi_names(**layers))


def layers_of(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Weights and biases of norms and linear layers."""
    found = {}
    for theirs, ours in names.items():
        norm = "norm" in ours.rpartition("/")[2]
        found[f"{theirs}.weight"] = (f"{ours}/scale", "same") if norm else (f"{ours}/kernel", "linear")
        if not BARE.fullmatch(theirs):
            found[f"{theirs}.bias"] = (f"{ours}/bias", "same")
    return found


def gru(theirs: str) -> dict[str, tuple[str, str]]:
    found = {}
    for side, ours in GRU.items():
        found[f"{theirs}.weight_{side}"] = (f"corrector/gru/{ours}/kernel", "linear")
        found[f"{theirs}.bias_{side}"] = (f"corrector/gru/{ours}/bias", "same")
    return found


def arrays_of(
    source: str, state: Mapping[str, np.ndarray], unused: Callable[[str], bool]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(arrays, unused ones) under the published names, without prefixes. Raises CheckpointError for a name twice."""
    arrays: dict[str, np.ndarray] = {}
    left: dict[str, np.ndarray] = {}
    for theirs, array in state.items():
        name = PREFIX.sub("", theirs, count=1)
        if name in arrays or name in left:
            raise CheckpointError(f"{source}: has {short(name)} twice, with and without a prefix")
        if unused(name):
            left[name] = np.asarray(array)
        else:
            arrays[name] = np.asarray(array, np.float32)
    return arrays, left


def tree(
    source: str, arrays: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, str]], of: str
) -> dict[str, Any]:
    """Our parameters. Raises CheckpointError for a missing, unknown or misshapen array."""
    params: dict[str, Any] = {}
    for name, (place, kind) in names.items():
        if name not in arrays:
            raise CheckpointError(f"{source}: has no {name}")
        into = params
        *folders, leaf = place.split("/")
        for folder in folders:
            into = into.setdefault(folder, {})
        into[leaf] = _ours(source, name, arrays[name], kind)
    for name in arrays:
        if name not in names:
            raise CheckpointError(f"{source}: {short(name)} is not an array of {of}")
    return params


def untree(weights: EncoderWeights, names: Mapping[str, tuple[str, str]]) -> dict[str, np.ndarray]:
    """The public arrays of our parameters, and the unused ones."""
    found = {}
    for name, (place, kind) in names.items():
        array: Any = weights.params
        for part in place.split("/"):
            array = array[part]
        found[name] = _theirs(np.asarray(array, np.float32), kind)
    return found | weights.unused


def _savi_names(encoder: int, decoder: int) -> dict[str, tuple[str, str]]:
    """The published name of every array -> (our place, what is turned)."""
    found = {"init_latents": ("latents", "first")}
    found |= layers_of(SAVI) | gru("slot_attention.gru")
    layers = [(f"encoder.{i}.0", f"convolutions_{i}", "convolution") for i in range(encoder)]
    layers += [(f"decoder.{i}.0", f"transposed_{i}", "transposed") for i in range(decoder)]
    for theirs, ours, kind in [*layers, (f"decoder.{decoder}", "out", "convolution")]:
        found[f"{theirs}.weight"] = (f"{ours}/kernel", kind)
        found[f"{theirs}.bias"] = (f"{ours}/bias", "same")
    return found


def _ours(source: str, name: str, array: np.ndarray, kind: str) -> np.ndarray:
    """An array as our module has it. Raises CheckpointError for another number of axes."""
    axes = {"linear": 2, "convolution": 4, "transposed": 4, "same": 1, "first": 3, "second": 4}[kind]
    ones = {"first": 1, "second": 2}.get(kind, 0)  # axes at the start that the public code broadcasts
    if array.ndim != axes or 0 in array.shape or array.shape[:ones] != (1,) * ones:
        start = ", the first of length 1" if ones == 1 else ", the first two of length 1"
        text = f"{axes} axes" + (start if ones and array.ndim == axes else "")
        raise CheckpointError(f"{source}: {short(name)} has shape {list(array.shape)}: must have {text}")
    if kind == "linear":
        array = array.T
    elif kind == "convolution":  # [out, in, h, w]
        array = array.transpose(2, 3, 1, 0)
    elif kind == "transposed":  # [in, out, h, w], and flipped
        array = array.transpose(2, 3, 0, 1)[::-1, ::-1]
    elif ones:
        array = array.reshape(array.shape[ones:])
    return np.ascontiguousarray(array)


def _theirs(array: np.ndarray, kind: str) -> np.ndarray:
    """The inverse of `_ours`."""
    if kind == "linear":
        array = array.T
    elif kind == "convolution":
        array = array.transpose(3, 2, 0, 1)
    elif kind == "transposed":
        array = array[::-1, ::-1].transpose(2, 3, 0, 1)
    elif kind in ("first", "second"):
        array = array[None] if kind == "first" else array[None, None]
    return np.ascontiguousarray(array)


def _count(arrays: Mapping[str, np.ndarray], part: str) -> int:
    """The number of numbered layers "PART.i.0.weight" from 0 on."""
    count = 0
    while f"{part}.{count}.0.weight" in arrays:
        count += 1
    return count


def _savi_sizes(params: Mapping[str, Any], layers: Mapping[str, int]) -> dict[str, Any]:
    """Keyword arguments of Savi."""
    outputs = {part: [params[f"{part}_{i}"]["kernel"].shape[-1] for i in range(layers[name])]
               for name, part in (("encoder", "convolutions"), ("decoder", "transposed"))}  # fmt: skip
    slots, width = params["latents"].shape
    sizes = {
        "slots": slots,
        "width": width,
        "channels": tuple(outputs["convolutions"]),
        "embed": params["token_down"]["kernel"].shape[-1],
        "hidden": params["corrector"]["up"]["kernel"].shape[-1],
        "units": params["next_up"]["kernel"].shape[-1],
        "decoder": tuple(outputs["transposed"]),
    }
    return sizes


def _check_savi(source: str, params: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the shapes of successive layers do not fit together."""
    width, embed, units = sizes["width"], sizes["embed"], sizes["units"]
    encoder, decoder = (3, *sizes["channels"]), (width, *sizes["decoder"])
    linear = {
        "kernel": (width, 2 * width),
        "encoder_position/dense": (4, encoder[-1]),
        "token_up": (encoder[-1], embed),
        "token_down": (embed, embed),
        **corrector(width, embed, sizes["hidden"]),
        "next_up": (width, units),
        "next_down": (units, width),
        "decoder_position/dense": (4, width),
        "out": (1, 1, decoder[-1], 4),
    }
    for name, chain in (("convolutions", encoder), ("transposed", decoder)):
        linear |= {f"{name}_{i}": (5, 5, *pair) for i, pair in enumerate(itertools.pairwise(chain))}
    norms = {"norm_pixels": encoder[-1], "norm_next": width, "corrector/norm_tokens": embed}
    norms |= dict.fromkeys(("corrector/norm_slots", "corrector/norm_mlp"), width)
    check(source, params, linear, norms, {})


def corrector(width: int, tokens: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the kernels of models.slot_encoders.Corrector."""
    found = {"q": (width, width), "k": (tokens, width), "v": (tokens, width)}
    found |= {f"gru/{side}": (width, 3 * width) for side in GRU.values()}
    found |= {"up": (width, hidden), "down": (hidden, width)} if hidden else {}
    return {f"corrector/{name}": shape for name, shape in found.items()}


def check(
    source: str,
    params: Mapping[str, Any],
    linear: Mapping[str, tuple[int, ...]],
    norms: Mapping[str, int],
    arrays: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises CheckpointError for another shape. linear: of kernels, which decide their biases'. norms: widths."""

    def require(name: str, shape: tuple[int, ...], shown: str) -> None:
        array: Any = params
        for part in name.split("/"):
            if part not in array:
                return  # a layer without a bias
            array = array[part]
        if array.shape != shape:
            raise CheckpointError(f"{source}: {shown} has shape {list(array.shape)}: must be {list(shape)}")

    for name, shape in linear.items():
        require(f"{name}/kernel", shape, name)
        require(f"{name}/bias", shape[-1:], f"{name}/bias")
    for name, width in norms.items():
        for part in ("scale", "bias"):
            require(f"{name}/{part}", (width,), f"{name}/{part}")
    for name, shape in arrays.items():
        require(name, shape, name)
