"""State dicts of VideoSAUR and SlotContrast: to our parameters and back, to the bit.

found = videosaur.read(files.tensors("videosaur.ckpt"))
VideoSaur(**found.sizes).apply({"params": found.params}, features, noise)
arrays = videosaur.state_dict(found)                     under the published names again
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.slot_encoders import (
    EncoderWeights,
    arrays_of,
    check,
    corrector,
    gru,
    layers_of,
    tree,
    untree,
)

_OUT, _CORRECTOR, _DECODER = "encoder.module.output_transform.layers", "processor.module.corrector", "decoder.module"
ENCODER = {  # the public layer -> ours
    f"{_OUT}.0": "norm_features",
    f"{_OUT}.1": "up",
    f"{_OUT}.3": "down",
    **{f"{_CORRECTOR}.to_{name}": f"corrector/{name}" for name in "qkv"},
    f"{_CORRECTOR}.norm_features": "corrector/norm_tokens",
    f"{_CORRECTOR}.norm_slots": "corrector/norm_slots",
}
MIXER = {  # VideoSAUR's decoder
    **{f"{_DECODER}.{name}": f"mixer/{name}" for name in ("norm_memory", "norm_q", "norm_k")},
    **{f"{_DECODER}.to_{name}": f"mixer/{name}" for name in "qk"},
    f"{_DECODER}.output_transform": "mixer/output",
}
BACKBONE = "encoder.module.backbone."
SLOT_MLP = {"0": "norm_mlp", "1": "up", "3": "down"}  # of a corrector that has one
BLOCK = {"self_attn.out_proj": "out", "linear1": "up", "linear2": "down", "norm1": "norm1", "norm2": "norm2"}


def read(state: Mapping[str, np.ndarray], source: str = "state dict") -> EncoderWeights:
    """Weights of VideoSAUR or SlotContrast, without the image encoder, for models.videosaur.VideoSaur.

    The decoder is VideoSAUR's slot mixer, or an MLP for each slot and place. Arrays of the image encoder (BACKBONE) are
    in `unused`. `sizes` lacks heads and iterations, which no array tells: the module's own are the published ones.
    Raises: CheckpointError as slot_encoders.savi.
    """
    arrays, unused = arrays_of(source, state, lambda name: name.startswith(BACKBONE))
    params = tree(source, arrays, _names(arrays), "VideoSAUR or SlotContrast")
    decoder = "mlp" if "mlp" in params else "mixer"
    found, width = params[decoder], params["down"]["kernel"].shape[-1]
    features, places = params["up"]["kernel"].shape[0], found["positions"].shape[0]
    sizes = {
        "width": width,
        "fixed": "slots" in params,
        "embed": params["up"]["kernel"].shape[-1],
        "hidden": params["corrector"]["up"]["kernel"].shape[-1] if "up" in params["corrector"] else 0,
        "blocks": sum(name.startswith("block") for name in found),
        "units": tuple(found[f"layer{i}"]["kernel"].shape[-1] for i in range(_count(found))),
        "similarity": decoder == "mixer" and found["output"]["kernel"].shape[-1] == features + places,
        "decoder": decoder,
    }
    _check(source, params, sizes)
    return EncoderWeights(params, sizes | ({"slots": len(params["slots"])} if "slots" in params else {}), unused)


def state_dict(weights: EncoderWeights) -> dict[str, np.ndarray]:
    """The public state dict, float32, of `read`'s result. Raises CheckpointError for weights without a public name."""
    if weights.sizes.get("placed"):
        raise CheckpointError("objective.videosaur.placed = True: must be False for the public layout, without places")
    mlp, layers = weights.sizes["decoder"] == "mlp", _count(weights.params[weights.sizes["decoder"]])
    known = [f"{_DECODER}.allocator.blocks.{i}.norm1.bias" for i in range(weights.sizes["blocks"])]
    layer = f"{_DECODER}.{'mlp' if mlp else 'renderer'}.layers"
    known += [f"{layer}.{2 * i}.bias" for i in range(layers + mlp)]
    known += ["initializer.slots"] if weights.sizes["fixed"] else []
    known += [f"{_CORRECTOR}.mlp.layers.0.bias"] if weights.sizes["hidden"] else []
    return untree(weights, _names(dict.fromkeys(known)))


def _count(decoder: Mapping[str, Any]) -> int:
    """The hidden layers of a decoder."""
    return sum(name.startswith("layer") for name in decoder)


def _names(arrays: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The public name of every array -> (our place, what is turned). `arrays` tell which parts there are, by names."""
    layers = dict(ENCODER)
    if f"{_CORRECTOR}.mlp.layers.0.bias" in arrays:
        layers |= {f"{_CORRECTOR}.mlp.layers.{i}": f"corrector/{ours}" for i, ours in SLOT_MLP.items()}
    blocks = {"processor.module.predictor.blocks.0": "predictor"}
    numbered = range(_numbered(arrays, f"{_DECODER}.mlp.layers"))
    if numbered:  # the last layer has another name here
        names = [f"layer{i}" for i in numbered[:-1]] + ["output"]
        layers |= {f"{_DECODER}.mlp.layers.{2 * i}": f"mlp/{name}" for i, name in zip(numbered, names, strict=True)}
        found = {f"{_DECODER}.pos_emb": ("mlp/positions", "second")}
    else:
        numbered = range(_numbered(arrays, f"{_DECODER}.renderer.layers"))
        layers |= MIXER | {f"{_DECODER}.renderer.layers.{2 * i}": f"mixer/layer{i}" for i in numbered}
        found = {f"{_DECODER}.pos_emb": ("mixer/positions", "first")}
        count = 0
        while f"{_DECODER}.allocator.blocks.{count}.norm1.bias" in arrays:
            blocks[f"{_DECODER}.allocator.blocks.{count}"] = f"mixer/block{count}"
            count += 1
    if "initializer.slots" in arrays:
        found["initializer.slots"] = ("slots", "first")
    else:
        found |= {f"initializer.{name}": (name, "first") for name in ("mean", "log_std")}
    for theirs, ours in blocks.items():
        layers |= {f"{theirs}.{name}": f"{ours}/{own}" for name, own in BLOCK.items()}
        found[f"{theirs}.self_attn.qkv.weight"] = (f"{ours}/qkv_kernel", "linear")
        found[f"{theirs}.self_attn.qkv.bias"] = (f"{ours}/qkv_bias", "same")
    return found | layers_of(layers) | gru(f"{_CORRECTOR}.gru")


def _numbered(arrays: Mapping[str, Any], layers: str) -> int:
    """How many of the layers 0, 2, 4 ... there are: activations are between them."""
    count = 0
    while f"{layers}.{2 * count}.bias" in arrays:
        count += 1
    return count


def _check(source: str, params: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the shapes of successive layers do not fit together."""
    width, hidden, units, decoder = sizes["width"], sizes["hidden"], sizes["units"], sizes["decoder"]
    features, places = len(params["up"]["kernel"]), len(params[decoder]["positions"])
    chain = (width, *units)
    linear: dict[str, tuple[int, ...]] = {"down": (sizes["embed"], width), **corrector(width, width, hidden)}
    linear |= {f"{decoder}/layer{i}": pair for i, pair in enumerate(itertools.pairwise(chain))}
    linear["up"] = (features, sizes["embed"])
    norms = {"norm_features": features}
    names = [f"corrector/norm_{name}" for name in ("tokens", "slots", *(["mlp"] if hidden else []))]
    arrays: dict[str, tuple[int, ...]] = {f"{decoder}/positions": (places, width)}
    if decoder == "mlp":
        linear["mlp/output"] = (chain[-1], features + 1)
    else:
        linear |= {"mixer/q": (width, width), "mixer/k": (width, width)}
        linear["mixer/output"] = (chain[-1], features + places * sizes["similarity"])
        names += [f"mixer/norm_{name}" for name in ("memory", "q", "k")]
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
    check(source, params, linear, norms | dict.fromkeys(names, width), arrays)
