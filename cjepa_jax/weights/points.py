"""Published Point-JEPA: a Lightning checkpoint's arrays as parameters of objectives.points.PointJepa.

The names are those of github.com/Ayumu-J-S/Point-JEPA (MIT). Its "student" is the encoder's trunk and "teacher" the
trunk's moving average. Both see the vectors of one PointNet. Other contents (an optimiser, scores) are left out, and so
are arrays that the published forward pass does not use: "mask_token" and "predictor.predictor_norm".
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import canonical, diff, name_maps, shapes
from cjepa_jax.weights.files import Tensors
from cjepa_jax.weights.safety import short
from cjepa_jax.weights.worlds import World

NAME, LICENCE = "Point-JEPA", "MIT"
OBJECTIVE = "cjepa_jax.objectives.points:PointJepa"
ENCODER = "cjepa_jax.models.points:PointEncoder"
HEADS = {384: 6, 192: 6}  # of encoder and predictor by their widths, as published: no array shows them
CODE = 128  # units of the codes of centres
AROUND = re.compile(r"^(?:(?:state_dict|model|module)\.)*")
PARTS = ("tokenizer.", "positional_encoding.", "student.", "teacher.ema_model.", "predictor.")
UNUSED = "predictor.predictor_norm."
NET = "tokenizer.embedding.encoder"
RUNNING = {"running_mean": "mean", "running_var": "var"}
COUNTER = ".num_batches_tracked"
TRUNKS = {"student": "encoder.trunk", "teacher.ema_model": "target", "predictor.predictor": "predictor.trunk"}
BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
LAYERS = {  # published -> ours, but the trunks
    f"{NET}.first_conv.0": "encoder.tokenizer.in0",
    f"{NET}.first_conv.1": "encoder.tokenizer.norm0.BatchNorm_0",
    f"{NET}.first_conv.3": "encoder.tokenizer.out0",
    f"{NET}.second_conv.0": "encoder.tokenizer.in1",
    f"{NET}.second_conv.1": "encoder.tokenizer.norm1.BatchNorm_0",
    f"{NET}.second_conv.3": "encoder.tokenizer.out1",
    "positional_encoding.0": "encoder.places.up",
    "positional_encoding.2": "encoder.places.down",
    "predictor.positional_encoding.0": "predictor.places.up",
    "predictor.positional_encoding.2": "predictor.places.down",
    "predictor.predictor_embed": "predictor.embed",
    "predictor.predictor_proj": "predictor.prediction",
}
MASK_TOKEN = "predictor.mask_token"


def is_point_jepa(names: Iterable[str]) -> bool:
    """Whether arrays with these names are Point-JEPA's."""
    return any(name.endswith(f"{NET}.first_conv.0.weight") for name in names)


def point_jepa(tensors: Tensors, heads: int = 0) -> tuple[dict[str, Any], dict[str, Any], World]:
    """(keyword arguments of PointEncoder, parameters "encoder" and "target", the predictor and running statistics).

    Args: heads: of the encoder, by default those of the published width.
    Raises: CheckpointError, one line, naming all missing, unexpected or mis-shaped arrays.
    """
    view, where = _own(tensors), str(tensors.source)
    width = shapes.size(view.shapes, "positional_encoding.2.bias")
    narrow = shapes.size(view.shapes, "predictor.predictor_embed.bias")
    hidden = tuple(shapes.size(view.shapes, f"{NET}.{name}.weight") for name in ("first_conv.0", "first_conv.3"))
    hidden += (shapes.size(view.shapes, f"{NET}.second_conv.0.weight"),)
    depth = {name: shapes.depth(own.removeprefix(f"{name}.") for own in view) for name in TRUNKS}
    units = shapes.size(view.shapes, "student.blocks.0.mlp.fc1.bias")
    wanted = _layers(width, narrow, hidden)
    for name, size, inner in zip(TRUNKS, (width, width, narrow), (units, units, 4 * narrow), strict=True):
        count = depth["student"] if name == "teacher.ema_model" else depth[name]
        wanted |= {f"{name}.{own}": shape for own, shape in shapes.stack(size, count, inner).items()}
    diff.compare(view.shapes, wanted, where)
    if empty := [name for name, shape in wanted.items() if 0 in shape]:
        raise CheckpointError(f"{where}: {empty[0]} has the shape {list(wanted[empty[0]])}: must have numbers")
    heads = _heads(heads, width, f"{where}: the encoder")
    variant = shapes.variant(width, depth["student"], heads, hidden=units, patch=1, where=where)
    settings = {
        "predictor.depth": depth["predictor.predictor"],
        "predictor.width": narrow,
        "predictor.heads": HEADS.get(narrow, "unknown"),
        "predictor.every": False,
        "predictor.attention": "joint",
    }
    tree = _tree(view, depth)
    own = {"predictor": tree.pop("predictor")}
    world = World(NAME, settings, own, extra=_statistics(view), objective=OBJECTIVE, of_encoder=True)
    return {"type": ENCODER, "variant": variant, "hidden": hidden}, tree, world


def _own(tensors: Tensors) -> Tensors:
    """The arrays that are read, without what wraps their names. Raises CheckpointError for two of one name."""
    plan: dict[str, str] = {}
    for stored in tensors:
        name = AROUND.sub("", name_maps.WRAPPED.sub("", stored))
        if not name.startswith(PARTS) or name.startswith(UNUSED) or name.endswith(COUNTER):
            continue
        if name in plan:
            both = " and ".join(map(short, (plan[name], stored)))
            raise CheckpointError(f"{tensors.source}: {both} have one name without their prefixes")
        plan[name] = stored
    return Tensors(tensors.source, {new: tensors.shapes[old] for new, old in plan.items()}, lambda n: tensors[plan[n]])


def _layers(width: int, narrow: int, hidden: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays but those of the trunks."""
    first, middle, second = hidden
    sizes = [(first, 3, 1), (first,), (middle, first, 1), (second, 2 * middle, 1), (second,), (width, second, 1)]
    sizes += [(CODE, 3), (width, CODE), (CODE, 3), (narrow, CODE), (narrow, width), (width, narrow)]
    layers = dict(zip(LAYERS, sizes, strict=True))
    found = {f"{name}.weight": shape for name, shape in layers.items()}
    found |= {f"{name}.bias": shape[:1] for name, shape in layers.items() if not name.endswith("conv.0")}
    found |= {f"{norm}.{name}": layers[norm] for norm in _norms() for name in RUNNING}
    return found | {MASK_TOKEN: (1, 1, narrow)}


def _norms() -> list[str]:
    return [name for name, place in LAYERS.items() if "BatchNorm" in place]


def _heads(told: int, width: int, where: str) -> int:
    count = told or HEADS.get(width, 0)
    if not count:
        raise CheckpointError(f"{where} has a width of {width}: how many heads it has is not in it: give it, heads=...")
    if count < 0 or width % count:
        raise CheckpointError(f"{where}: heads = {count}: must divide the width {width}")
    return count


def _tree(view: Tensors, depth: dict[str, int]) -> dict[str, Any]:
    """Parameters "encoder", "target" and "predictor"."""
    layers = dict(LAYERS)
    for theirs, ours in TRUNKS.items():
        layers |= {f"{theirs}.norm": f"{ours}.norm"}
        for i in range(depth[theirs]):
            layers |= {f"{theirs}.blocks.{i}.{name}": f"{ours}.block{i}.{place}" for name, place in BLOCK.items()}
    tree: dict[str, Any] = {}
    for theirs, ours in layers.items():
        weight = _array(view, f"{theirs}.weight")
        kernel = weight.ndim > 1
        array = np.ascontiguousarray(weight.reshape(weight.shape[:2]).T) if kernel else weight
        canonical.put(tree, f"{ours}.{'kernel' if kernel else 'scale'}", array)
        if f"{theirs}.bias" in view:
            canonical.put(tree, f"{ours}.bias", _array(view, f"{theirs}.bias"))
    canonical.put(tree, MASK_TOKEN, _array(view, MASK_TOKEN).ravel())
    return tree


def _statistics(view: Tensors) -> dict[str, Any]:
    """The running statistics of the PointNet. Raises CheckpointError for a variance below 0."""
    tree: dict[str, Any] = {}
    for norm in _norms():
        for name, leaf in RUNNING.items():
            array = _array(view, f"{norm}.{name}")
            if leaf == "var" and array.min() < 0:
                raise CheckpointError(f"{view.source}: {norm}.{name} has {array.min():g}: must be 0 or more")
            canonical.put(tree, f"batch_stats.{LAYERS[norm].removeprefix('encoder.')}.{leaf}", array)
    return tree


def _array(view: Tensors, name: str) -> np.ndarray:
    return np.asarray(view[name], np.float32)
