"""State dicts of the public slot encoders: to our parameters and back, to the bit.

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
_OUT, _CORRECTOR, _DECODER = "encoder.module.output_transform.layers", "processor.module.corrector", "decoder.module"
VIDEOSAUR = {
    f"{_OUT}.0": "norm_features",
    f"{_OUT}.1": "up",
    f"{_OUT}.3": "down",
    **{f"{_CORRECTOR}.to_{name}": f"corrector/{name}" for name in "qkv"},
    f"{_CORRECTOR}.norm_features": "corrector/norm_tokens",
    f"{_CORRECTOR}.norm_slots": "corrector/norm_slots",
    **{f"{_DECODER}.{name}": f"mixer/{name}" for name in ("norm_memory", "norm_q", "norm_k")},
    **{f"{_DECODER}.to_{name}": f"mixer/{name}" for name in "qk"},
    f"{_DECODER}.output_transform": "mixer/output",
}
SLOT_MLP = {"0": "norm_mlp", "1": "up", "3": "down"}  # of a corrector that has one
BLOCK = {"self_attn.out_proj": "out", "linear1": "up", "linear2": "down", "norm1": "norm1", "norm2": "norm2"}
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
    arrays, unused = _arrays(source, state, lambda name: bool(UNUSED.fullmatch(name)))
    layers = {part: _count(arrays, part) for part in ("encoder", "decoder")}
    names = _savi_names(**layers)
    params = _tree(source, arrays, names, "StoSAVi")
    sizes = _savi_sizes(params, layers)
    _check_savi(source, params, sizes)
    return EncoderWeights(params, sizes, unused)


def savi_state(weights: EncoderWeights) -> dict[str, np.ndarray]:
    """The published state dict, float32, of `savi`'s result."""
    layers = {"encoder": len(weights.sizes["channels"]), "decoder": len(weights.sizes["decoder"])}
    return _untree(weights, _savi_names(**layers))


def videosaur(state: Mapping[str, np.ndarray], source: str = "state dict") -> EncoderWeights:
    """Weights of VideoSAUR, without its image encoder, for models.videosaur.VideoSaur.

    Arrays of the image encoder ("encoder.module.backbone.") are in `unused`. `sizes` lacks heads and iterations, which
    no array tells: the module's own are the published ones. Raises: CheckpointError as `savi`.
    """
    arrays, unused = _arrays(source, state, lambda name: name.startswith("encoder.module.backbone."))
    names = _videosaur_names(arrays)
    params = _tree(source, arrays, names, "VideoSAUR")
    mixer, width = params["mixer"], params["down"]["kernel"].shape[-1]
    layers = sum(name.startswith("layer") for name in mixer)
    places = mixer["positions"].shape[0]
    features = params["up"]["kernel"].shape[0]
    sizes = {
        "width": width,
        "fixed": "slots" in params,
        "embed": params["up"]["kernel"].shape[-1],
        "hidden": params["corrector"]["up"]["kernel"].shape[-1] if "up" in params["corrector"] else 0,
        "blocks": sum(name.startswith("block") for name in mixer),
        "units": tuple(mixer[f"layer{i}"]["kernel"].shape[-1] for i in range(layers)),
        "similarity": mixer["output"]["kernel"].shape[-1] == features + places,
    }
    _check_videosaur(source, params, sizes)
    return EncoderWeights(params, sizes | ({"slots": len(params["slots"])} if "slots" in params else {}), unused)


def videosaur_state(weights: EncoderWeights) -> dict[str, np.ndarray]:
    """The public state dict, float32, of `videosaur`'s result."""
    mixer = weights.params["mixer"]
    known = [f"{_DECODER}.allocator.blocks.{i}.norm1.bias" for i in range(weights.sizes["blocks"])]
    known += [f"{_DECODER}.renderer.layers.{2 * i}.bias" for i in range(sum(n.startswith("layer") for n in mixer))]
    known += ["initializer.slots"] if weights.sizes["fixed"] else []
    known += [f"{_CORRECTOR}.mlp.layers.0.bias"] if weights.sizes["hidden"] else []
    return _untree(weights, _videosaur_names(dict.fromkeys(known)))


def _videosaur_names(arrays: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """As `_savi_names`. `arrays` tell which parts there are, by names."""
    layers = dict(VIDEOSAUR)
    if f"{_CORRECTOR}.mlp.layers.0.bias" in arrays:
        layers |= {f"{_CORRECTOR}.mlp.layers.{i}": f"corrector/{ours}" for i, ours in SLOT_MLP.items()}
    count = 0
    while f"{_DECODER}.renderer.layers.{2 * count}.bias" in arrays:
        layers[f"{_DECODER}.renderer.layers.{2 * count}"] = f"mixer/layer{count}"
        count += 1
    blocks = {"processor.module.predictor.blocks.0": "predictor"}
    count = 0
    while f"{_DECODER}.allocator.blocks.{count}.norm1.bias" in arrays:
        blocks[f"{_DECODER}.allocator.blocks.{count}"] = f"mixer/block{count}"
        count += 1
    found = {f"{_DECODER}.pos_emb": ("mixer/positions", "first")}
    if "initializer.slots" in arrays:
        found["initializer.slots"] = ("slots", "first")
    else:
        found |= {f"initializer.{name}": (name, "first") for name in ("mean", "log_std")}
    for theirs, ours in blocks.items():
        layers |= {f"{theirs}.{name}": f"{ours}/{own}" for name, own in BLOCK.items()}
        found[f"{theirs}.self_attn.qkv.weight"] = (f"{ours}/qkv_kernel", "linear")
        found[f"{theirs}.self_attn.qkv.bias"] = (f"{ours}/qkv_bias", "same")
    return found | _layers(layers) | _gru(f"{_CORRECTOR}.gru")


def _layers(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Weights and biases of norms and linear layers."""
    found = {}
    for theirs, ours in names.items():
        norm = "norm" in ours.rpartition("/")[2]
        found[f"{theirs}.weight"] = (f"{ours}/scale", "same") if norm else (f"{ours}/kernel", "linear")
        if not BARE.fullmatch(theirs):
            found[f"{theirs}.bias"] = (f"{ours}/bias", "same")
    return found


def _gru(theirs: str) -> dict[str, tuple[str, str]]:
    found = {}
    for side, ours in GRU.items():
        found[f"{theirs}.weight_{side}"] = (f"corrector/gru/{ours}/kernel", "linear")
        found[f"{theirs}.bias_{side}"] = (f"corrector/gru/{ours}/bias", "same")
    return found


def _arrays(
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


def _tree(
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


def _untree(weights: EncoderWeights, names: Mapping[str, tuple[str, str]]) -> dict[str, np.ndarray]:
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
    found |= _layers(SAVI) | _gru("slot_attention.gru")
    layers = [(f"encoder.{i}.0", f"convolutions_{i}", "convolution") for i in range(encoder)]
    layers += [(f"decoder.{i}.0", f"transposed_{i}", "transposed") for i in range(decoder)]
    for theirs, ours, kind in [*layers, (f"decoder.{decoder}", "out", "convolution")]:
        found[f"{theirs}.weight"] = (f"{ours}/kernel", kind)
        found[f"{theirs}.bias"] = (f"{ours}/bias", "same")
    return found


def _ours(source: str, name: str, array: np.ndarray, kind: str) -> np.ndarray:
    """An array as our module has it. Raises CheckpointError for another number of axes."""
    axes = {"linear": 2, "convolution": 4, "transposed": 4, "same": 1, "first": 3}[kind]
    if array.ndim != axes or 0 in array.shape or (kind == "first" and len(array) != 1):
        text = f"{axes} axes" + (", the first of length 1" if kind == "first" and array.ndim == axes else "")
        raise CheckpointError(f"{source}: {short(name)} has shape {list(array.shape)}: must have {text}")
    if kind == "linear":
        array = array.T
    elif kind == "convolution":  # [out, in, h, w]
        array = array.transpose(2, 3, 1, 0)
    elif kind == "transposed":  # [in, out, h, w], and flipped
        array = array.transpose(2, 3, 0, 1)[::-1, ::-1]
    elif kind == "first":
        array = array[0]
    return np.ascontiguousarray(array)


def _theirs(array: np.ndarray, kind: str) -> np.ndarray:
    """The inverse of `_ours`."""
    if kind == "linear":
        array = array.T
    elif kind == "convolution":
        array = array.transpose(3, 2, 0, 1)
    elif kind == "transposed":
        array = array[::-1, ::-1].transpose(2, 3, 0, 1)
    elif kind == "first":
        array = array[None]
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
        **_corrector(width, embed, sizes["hidden"]),
        "next_up": (width, units),
        "next_down": (units, width),
        "decoder_position/dense": (4, width),
        "out": (1, 1, decoder[-1], 4),
    }
    for name, chain in (("convolutions", encoder), ("transposed", decoder)):
        linear |= {f"{name}_{i}": (5, 5, *pair) for i, pair in enumerate(itertools.pairwise(chain))}
    norms = {"norm_pixels": encoder[-1], "norm_next": width, "corrector/norm_tokens": embed}
    norms |= dict.fromkeys(("corrector/norm_slots", "corrector/norm_mlp"), width)
    _check(source, params, linear, norms, {})


def _check_videosaur(source: str, params: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """As `_check_savi`."""
    width, hidden, units = sizes["width"], sizes["hidden"], sizes["units"]
    features, places = len(params["up"]["kernel"]), len(params["mixer"]["positions"])
    chain = (width, *units)
    linear: dict[str, tuple[int, ...]] = {"down": (sizes["embed"], width), **_corrector(width, width, hidden)}
    linear |= {f"mixer/layer{i}": pair for i, pair in enumerate(itertools.pairwise(chain))}
    linear |= {"mixer/q": (width, width), "mixer/k": (width, width)}
    linear["mixer/output"] = (chain[-1], features + places * sizes["similarity"])
    linear["up"] = (features, sizes["embed"])
    norms = {"norm_features": features}
    names = [f"mixer/norm_{name}" for name in ("memory", "q", "k")]
    names += [f"corrector/norm_{name}" for name in ("tokens", "slots", *(["mlp"] if hidden else []))]
    arrays: dict[str, tuple[int, ...]] = {"mixer/positions": (places, width)}
    if not sizes["fixed"]:
        arrays |= {"mean": (1, width), "log_std": (1, width)}
    else:
        arrays["slots"] = (len(params["slots"]), width)
    for block in ("predictor", *(f"mixer/block{i}" for i in range(sizes["blocks"]))):
        linear |= {
            f"{block}/out": (width, width),
            f"{block}/up": (width, 4 * width),
            f"{block}/down": (4 * width, width),
        }
        arrays |= {f"{block}/qkv_kernel": (width, 3 * width), f"{block}/qkv_bias": (3 * width,)}
        names += [f"{block}/norm1", f"{block}/norm2"]
    _check(source, params, linear, norms | dict.fromkeys(names, width), arrays)


def _corrector(width: int, tokens: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the kernels of models.slot_encoders.Corrector."""
    found = {"q": (width, width), "k": (tokens, width), "v": (tokens, width)}
    found |= {f"gru/{side}": (width, 3 * width) for side in GRU.values()}
    found |= {"up": (width, hidden), "down": (hidden, width)} if hidden else {}
    return {f"corrector/{name}": shape for name, shape in found.items()}


def _check(
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
