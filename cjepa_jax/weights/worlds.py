"""Published world models: what a file holds besides its encoder, as parameters of objectives.world.World.

V-JEPA 2-AC (vjepa2-ac-vitg.pt): an encoder, which published.py reads, and a predictor that takes actions and poses.
LeWorldModel (weights.pt of stable-worldmodel), with the names of transformers 4 or 5: encoder, predictor, projectors.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import canonical, diff, name_maps, shapes
from cjepa_jax.weights.files import Tensors
from cjepa_jax.weights.safety import short

OBJECTIVE = "cjepa_jax.objectives.world:World"
INTERLEAVED, CAUSAL = (f"cjepa_jax.models.dynamics:{name}" for name in ("Interleaved", "Causal"))
CLASS_TOKEN = "cjepa_jax.models.tokenizers:ClassToken"
AC_HEADS = {1024: 16}  # of V-JEPA 2-AC's predictor by its width, as published
LEWM_HEAD = 64  # width of a head of LeWorldModel's predictor, as published
EPSILON = 1e-12  # of the norms of transformers' ViT
AGENT = {"action_encoder": "action", "state_encoder": "state"}
UNUSED = "extrinsics_encoder."  # in the file, but not called in the published configuration
PROJECTORS = {"projector": "projector", "pred_proj": "predictor_projector"}
SINCE_5 = {  # a block of ViT in transformers 5 -> the same in transformers 4
    "attention.q_proj.": "attention.attention.query.",
    "attention.k_proj.": "attention.attention.key.",
    "attention.v_proj.": "attention.attention.value.",
    "attention.o_proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
MODULATED = {  # a block of LeWorldModel's predictor -> ours
    "adaLN_modulation.1.weight": "modulation_kernel",
    "adaLN_modulation.1.bias": "modulation_bias",
    "attn.norm.weight": "norm1.scale",
    "attn.norm.bias": "norm1.bias",
    "attn.to_qkv.weight": "qkv_kernel",
    "attn.to_out.0.weight": "out.kernel",
    "attn.to_out.0.bias": "out.bias",
    "mlp.net.0.weight": "norm2.scale",
    "mlp.net.0.bias": "norm2.bias",
    "mlp.net.1.weight": "up.kernel",
    "mlp.net.1.bias": "up.bias",
    "mlp.net.4.weight": "down.kernel",
    "mlp.net.4.bias": "down.bias",
}
PREDICTOR = {
    "predictor.pos_embedding": "predictor.positions",
    "predictor.transformer.norm.weight": "predictor.norm.scale",
    "predictor.transformer.norm.bias": "predictor.norm.bias",
    "action_encoder.patch_embed.weight": "predictor.action.mix.kernel",
    "action_encoder.patch_embed.bias": "predictor.action.mix.bias",
    "action_encoder.embed.0.weight": "predictor.action.up.kernel",
    "action_encoder.embed.0.bias": "predictor.action.up.bias",
    "action_encoder.embed.2.weight": "predictor.action.down.kernel",
    "action_encoder.embed.2.bias": "predictor.action.down.bias",
}
PROJECTOR = {  # name in a projector -> ours, without the running statistics
    "net.0.weight": "dense0.kernel",
    "net.0.bias": "dense0.bias",
    "net.1.weight": "norm0.BatchNorm_0.scale",
    "net.1.bias": "norm0.BatchNorm_0.bias",
    "net.3.weight": "out.kernel",
    "net.3.bias": "out.bias",
}
RUNNING = {"net.1.running_mean": "mean", "net.1.running_var": "var"}
COUNTER = "net.1.num_batches_tracked"
LAYERS = "predictor.transformer.layers"
WIDE = f"{LAYERS}.0.attn.to_out.0.weight"  # [D, heads x head]


@dataclasses.dataclass(frozen=True)
class World:
    """What a file holds besides an encoder.

    Attributes:
      name: "V-JEPA 2-AC", "LeWorldModel" or "Point-JEPA".
      settings: keys of config.objective that the parameters need, with dots, and their values.
      params: of the objective, without "encoder".
      extra: its running statistics, {} if there are none.
      objective: the one that these parameters are for.
      of_encoder: whether `extra` belongs to the encoder, and is taken without the predictor too.
    """

    name: str
    settings: Mapping[str, Any]
    params: Mapping[str, Any]
    extra: Mapping[str, Any]
    objective: str = OBJECTIVE
    of_encoder: bool = False


def action_conditioned(view: Tensors) -> tuple[World | None, list[str]]:
    """(V-JEPA 2-AC's predictor, notes), from a predictor in canonical names (see name_maps.raw).

    It is None, with the reason in the notes, if it has another form than the published one.
    """
    where = f"{view.source}: the predictor"
    view = name_maps.derived(view, [name for name in view if name.startswith(UNUSED)])
    width, tokens = (shapes.size(view.shapes, "embed.weight", axis) for axis in (0, 1))
    depth = shapes.depth(view)
    own = {"embed.weight": (width, tokens), "embed.bias": (width,)}
    own |= {"prediction.weight": (tokens, width), "prediction.bias": (tokens,)}
    for name in AGENT:
        own |= {f"{name}.weight": (width, shapes.size(view.shapes, f"{name}.weight", 1)), f"{name}.bias": (width,)}
    try:
        diff.compare(view.shapes, shapes.stack(width, depth, 4 * width) | own, where)
    except CheckpointError as error:
        return None, [f"the predictor that takes actions is left out: {str(error).removeprefix(where).lstrip(': ')}"]
    if width not in AC_HEADS:
        known = ", ".join(map(str, AC_HEADS))
        text = f"the heads of a width of {width} are not in the weights, only those of {known} are known"
        return None, [f"the predictor that takes actions is left out: {text}"]
    params = canonical.from_canonical(name_maps.derived(view, [name for name in view if name.startswith(tuple(AGENT))]))
    for theirs, ours in AGENT.items():
        params[ours] = {"kernel": _array(view, f"{theirs}.weight").T, "bias": _array(view, f"{theirs}.bias")}
    settings = {
        "latent": "tokens", "target_norm": "layer_norm", "proprio": True, "predictor.type": INTERLEAVED,
        "predictor.depth": depth, "predictor.width": width, "predictor.heads": AC_HEADS[width],
        "predictor.positions": "rope_tile", "predictor.epsilon": 1e-6,
    }  # fmt: skip
    return World("V-JEPA 2-AC", settings, {"predictor": params}, {}), [f"its predictor is for {OBJECTIVE} alone"]


def takes_actions(view: Tensors) -> bool:
    """Whether a predictor in canonical names is one as V-JEPA 2-AC's."""
    return {f"{name}.weight" for name in AGENT} <= set(view)


def is_lewm(tensors: Tensors) -> bool:
    """Whether these are the arrays of LeWorldModel."""
    return {"encoder.embeddings.cls_token", "predictor.pos_embedding"} <= set(tensors)


def lewm(
    tensors: Tensors, mean: tuple[float, ...], std: tuple[float, ...], heads: int = 0, head: int = LEWM_HEAD
) -> tuple[dict[str, Any], dict[str, Any], World]:
    """(keyword arguments of Encoder, its parameters, the rest) of LeWorldModel.

    Args: mean, std: of RGB in the training. heads: of the encoder, by default by its width. head: width of a head of
      the predictor. Neither is in the arrays.
    Raises: CheckpointError naming all missing, unexpected or mis-shaped arrays.
    """
    where = str(tensors.source)
    view = name_maps.huggingface(_since_4(name_maps.only(tensors, "encoder.")), "hf-ijepa")["encoder"]
    patches = f"{canonical.PATCHES}.weight"
    width, patch, depth = shapes.size(view.shapes, patches, 0), shapes.size(view.shapes, patches, 3), shapes.depth(view)
    hidden, count = shapes.size(view.shapes, "blocks.0.mlp.fc1.bias", 0), shapes.size(view.shapes, "pos_embed", 1)
    wanted = shapes.stack(width, depth, hidden) | {patches: (width, 3, patch, patch)}
    wanted |= {f"{canonical.PATCHES}.bias": (width,), "embeddings.cls_token": (1, 1, width)}
    diff.compare(view.shapes, wanted | {"pos_embed": (1, count, width)}, f"{where}: the encoder")
    if count < 2 or math.isqrt(count - 1) ** 2 != count - 1:
        raise CheckpointError(f"{where}: the encoder has {count} positions: must be a class token's and a square's")
    heads = shapes.heads(heads, width, False, where)
    encoder = canonical.from_canonical(name_maps.derived(view, ["pos_embed", "embeddings.cls_token"]))
    encoder["tokenizer"] |= {
        "class_token": _array(view, "embeddings.cls_token"),
        "positions": _array(view, "pos_embed"),
    }
    options = {
        "variant": shapes.variant(width, depth, heads, hidden=hidden, patch=patch, where=where),
        "tubelet": 1,
        "epsilon": EPSILON,
        "gelu": "exact",
        "tokenizer": {"type": CLASS_TOKEN, "patch": patch, "mean": mean, "std": std},
        "depth": 0,
    }
    return options, encoder, _latent_predictor(tensors, width, head)


def _latent_predictor(tensors: Tensors, width: int, head: int) -> World:
    """Predictor, action encoder and projectors of LeWorldModel, whose encoder has this width."""
    where = f"{tensors.source}: the predictor"
    found = {n: s for n, s in tensors.shapes.items() if not n.startswith("encoder.") and not n.endswith(COUNTER)}
    wanted, settings = _sizes(found, width, head)
    diff.compare(found, wanted, where)
    if empty := [name for name, shape in wanted.items() if 0 in shape]:
        raise CheckpointError(f"{where}: {empty[0]} has the shape {list(wanted[empty[0]])}: must have numbers")
    depth, inner = settings["predictor.depth"], found.get(WIDE, (0, 0))[1]
    if not inner or inner % head:
        raise CheckpointError(f"{where}: {depth} blocks of attention {inner} wide, which heads of {head} do not divide")
    places = dict(PREDICTOR)
    for i in range(depth):
        places |= {f"{LAYERS}.{i}.{theirs}": f"predictor.block{i}.{ours}" for theirs, ours in MODULATED.items()}
    for theirs, ours in PROJECTORS.items():
        places |= {f"{theirs}.{name}": f"{ours}.{place}" for name, place in PROJECTOR.items()}
    params: dict[str, Any] = {}
    for theirs, place in places.items():
        array = _array(tensors, theirs)
        kernel = place.endswith("kernel")
        canonical.put(params, place, np.ascontiguousarray(array.reshape(array.shape[:2]).T) if kernel else array)
    stats: dict[str, Any] = {"predictor": {}}
    for theirs, ours in PROJECTORS.items():
        running = {leaf: _array(tensors, f"{theirs}.{name}") for name, leaf in RUNNING.items()}
        if (least := running["var"].min()) < 0:
            raise CheckpointError(f"{where}: {theirs}.net.1.running_var has {least:g}: must be 0 or more")
        stats[ours] = {"norm0": {"BatchNorm_0": running}}
    return World("LeWorldModel", settings, params, {"batch_stats": stats})


def _sizes(found: diff.Shapes, width: int, head: int) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """(the shapes that these arrays must have, by the sizes that they show, the settings of config.objective)."""
    history, out = (shapes.size(found, "predictor.pos_embedding", axis) for axis in (1, 2))
    numbers = (re.match(rf"{re.escape(LAYERS)}\.(\d{{1,3}})\.", name, re.ASCII) for name in found)
    depth = 1 + max((int(match[1]) for match in numbers if match), default=-1)
    inner, hidden = shapes.size(found, WIDE, 1), shapes.size(found, f"{LAYERS}.0.mlp.net.1.weight", 0)
    mixed, actions = (shapes.size(found, "action_encoder.patch_embed.weight", axis) for axis in (0, 1))
    units = shapes.size(found, "action_encoder.embed.0.weight", 0)
    wanted = {"predictor.pos_embedding": (1, history, out)} | _layers({
        "predictor.transformer.norm": (out,), "action_encoder.patch_embed": (mixed, actions, 1),
        "action_encoder.embed.0": (units, mixed), "action_encoder.embed.2": (out, units),
    })  # fmt: skip
    for at in (f"{LAYERS}.{i}" for i in range(depth)):
        wanted |= {f"{at}.attn.to_qkv.weight": (3 * inner, out)} | _layers({
            f"{at}.adaLN_modulation.1": (6 * out, out), f"{at}.attn.norm": (out,), f"{at}.attn.to_out.0": (out, inner),
            f"{at}.mlp.net.0": (out,), f"{at}.mlp.net.1": (hidden, out), f"{at}.mlp.net.4": (out, hidden),
        })  # fmt: skip
    settings: dict[str, Any] = {"latent": "first", "proprio": False, "target_norm": "none", "projection": out}
    for theirs, ours in PROJECTORS.items():
        middle, taken = shapes.size(found, f"{theirs}.net.0.weight", 0), width if ours == "projector" else out
        net = {f"{theirs}.net.0": (middle, taken), f"{theirs}.net.1": (middle,), f"{theirs}.net.3": (out, middle)}
        wanted |= _layers(net) | {f"{theirs}.{name}": (middle,) for name in RUNNING}
        settings |= {f"{ours}.hidden": (middle,), f"{ours}.norm": "batch", f"{ours}.activation": "gelu"}
    settings |= {"predictor.type": CAUSAL, "predictor.history": history, "predictor.depth": depth}
    settings |= {"predictor.mixed": 0 if mixed == actions else mixed}
    settings |= {"predictor.heads": inner // head, "predictor.head": head, "predictor.hidden": hidden}
    return wanted, settings


def _layers(weights: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of layers' weights and biases, from those of the weights."""
    biases = {f"{name}.bias": shape[:1] for name, shape in weights.items()}
    return {f"{name}.weight": shape for name, shape in weights.items()} | biases


def _since_4(view: Tensors) -> Tensors:
    """A ViT under the names of transformers 4, from those or from those of transformers 5.

    Raises: CheckpointError for two arrays with one name.
    """
    plan: dict[str, str] = {}
    for stored in view:
        block = re.fullmatch(r"layers\.(\d{1,3})\.(.+)", stored, re.ASCII)
        name = f"layer.{block[1]}.{name_maps.renamed(block[2], SINCE_5)}" if block else stored
        if name in plan:
            both = " and ".join(map(short, (plan[name], stored)))
            raise CheckpointError(f"{view.source}: {both} are one array under two names")
        plan[name] = stored
    return Tensors(view.source, {new: view.shapes[old] for new, old in plan.items()}, lambda name: view[plan[name]])


def _array(view: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return np.asarray(view[name], np.float32)
