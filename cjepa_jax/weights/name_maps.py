"""Maps published names to canonical ones (canonical.py): I-JEPA, V-JEPA 1, 2 and 2.1, timm, and three of transformers.

Nothing is read here. A part is a view of the file under other names, which reads an array on access.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.files import Tensors
from cjepa_jax.weights.safety import short

WRAPPED = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # by PyTorch, anywhere
AROUND = r"(?:(?:model|state_dict|net)\.)*"
PART = r"(?:(encoder|target_encoder|ema_encoder|predictor|student|teacher)\.)?"
RAW = re.compile(AROUND + PART + r"((?:module\.|backbone\.)*)" + AROUND + r"(.+)", re.DOTALL)
ROLES = {"student": "encoder", "teacher": "target_encoder"}  # as self-distillation calls them
PREDICTOR = {  # a predictor's beginnings of names, as published -> canonical
    "predictor_embed.": "embed.",
    "predictor_pos_embed": "pos_embed",
    "predictor_blocks.": "blocks.",
    "predictor_norm.": "norm.",
    "predictor_proj.": "prediction.",
}
IJEPA = {  # transformers' IJepaModel
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.mask_token": "mask_token",
    "layernorm.": "norm.",
}
IJEPA_BLOCK = {
    "layernorm_before.": "norm1.",
    "attention.attention.": "attn.",
    "attention.output.dense.": "attn.proj.",
    "layernorm_after.": "norm2.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
}
VJEPA2 = {  # transformers' VJEPA2Model
    "embeddings.patch_embeddings.proj.": "patch_embed.proj.",
    "layernorm.": "norm.",
}
VJEPA2_PREDICTOR = {
    "embeddings.predictor_embeddings.": "embed.",
    "embeddings.mask_tokens": "mask_tokens",
    "layernorm.": "norm.",
    "proj.": "prediction.",
}
VJEPA2_BLOCK = {"attention.": "attn."}
DINOV2 = IJEPA | {"embeddings.cls_token": "cls_token"}  # transformers' Dinov2Model
DINOV2_BLOCK = {
    "attention.attention.": "attn.",
    "attention.output.dense.": "attn.proj.",
    "attention.o_proj.": "attn.proj.",  # of newer versions
    **{f"attention.{name[0]}_proj.": f"attn.{name}." for name in ("query", "key", "value")},
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
TABLES = {"hf-ijepa": (IJEPA, IJEPA_BLOCK), "hf-vjepa2": (VJEPA2, VJEPA2_BLOCK), "hf-dinov2": (DINOV2, DINOV2_BLOCK)}
QKV = ("query", "key", "value")
PREFIXES = ("ijepa.", "vjepa2.", "dinov2.")  # of models with a classifier
HEADS = ("classifier.", "pooler.")


def raw(tensors: Tensors) -> dict[str, Tensors]:
    """The parts of a checkpoint of the published training code, or of a bare state dict, which is the part "".

    Parts are "encoder", "target_encoder", "ema_encoder" and "predictor". A bare encoder whose names begin with
    "module." is "encoder". Other contents (optimiser, counters) are left out. The names that PyTorch's compiler, FSDP
    and activation checkpointing insert, and the prefixes of Lightning and DINO, are removed.

    Raises: CheckpointError for two arrays with the same name after that.
    """
    plans: dict[str, dict[str, list[str]]] = {}
    for stored in tensors:
        plain = WRAPPED.sub("", stored)
        # A bare array may be called like a wrapper itself: then its name stays.
        match = RAW.fullmatch(plain)
        found, prefix, name = match.groups("") if match else ("", "", stored)
        part = ROLES.get(found, found) or ("encoder" if prefix else "")
        name = renamed(name, PREDICTOR) if part == "predictor" else name
        if name in plans.setdefault(part, {}):
            both = " and ".join(map(short, (plans[part][name][0], stored)))
            raise CheckpointError(f"{tensors.source}: {both} have one name without their prefixes")
        plans[part][name] = [stored]
    if "patch_embed.proj.weight" not in plans.get("", {}) or len(plans) > 1:
        plans.pop("", None)
    return {part: _view(tensors, plan) for part, plan in plans.items()}


def huggingface(tensors: Tensors, layout: str) -> dict[str, Tensors]:
    """The parts "encoder" and "predictor" of a folder of transformers, whose layout is one of TABLES.

    Raises: CheckpointError for two arrays with one name, and for queries, keys and values of different shapes.
    """
    plans: dict[str, dict[str, list[tuple[int, str]]]] = {"encoder": {}}
    for stored in tensors:
        name = stored
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith(HEADS):
            continue
        part, (outer, inner) = "encoder", TABLES[layout]
        if layout == "hf-vjepa2":
            part, _, name = name.partition(".")
            outer = VJEPA2_PREDICTOR if part == "predictor" else VJEPA2
        block = re.fullmatch(r"(?:encoder\.)?layer\.(\d{1,4})\.(.+)", name, re.ASCII)
        name = f"blocks.{block[1]}.{renamed(block[2], inner)}" if block else renamed(name, outer)
        *place, which, leaf = ["", *name.split(".")]
        third = which in QKV and bool(block)
        of = plans.setdefault(part, {}).setdefault(".".join([*place[1:], "qkv", leaf]) if third else name, [])
        number = QKV.index(which) if third else 0
        if same := [each for place, each in of if place == number]:
            both = " and ".join(map(short, (same[0], stored)))
            raise CheckpointError(f"{tensors.source}: {both} have one name without their prefixes")
        if of and tensors.shapes[of[0][1]] != tensors.shapes[stored]:
            raise CheckpointError(f"{tensors.source}: {short(stored)} has another shape than {short(of[0][1])}")
        of.append((number, stored))
        of.sort()
    return {
        part: _view(tensors, {name: [stored for _, stored in of] for name, of in plan.items()})
        for part, plan in plans.items()
    }


def for_huggingface(arrays: Mapping[str, np.ndarray], part: str, video: bool) -> dict[str, np.ndarray]:
    """The inverse of `huggingface` for one part in canonical names: IJepaModel's stored ones, or VJEPA2Model's."""
    outer = VJEPA2_PREDICTOR if part == "predictor" else VJEPA2 if video else IJEPA
    inner = VJEPA2_BLOCK if video else IJEPA_BLOCK
    prefix, found = f"{part}." if video else "", {}
    for name, array in arrays.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name, re.ASCII)
        if not block:
            found[prefix + renamed(name, _inverse(outer))] = array
            continue
        place = f"{prefix or 'encoder.'}layer.{block[1]}."
        if ".qkv." in name:
            split = zip(QKV, np.split(array, 3), strict=True)
            each = {block[2].replace("qkv", which): third for which, third in split}
        else:
            each = {block[2]: array}
        found |= {place + renamed(name, _inverse(inner)): array for name, array in each.items()}
    return found


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    """From values to keys, longest first, because `_renamed` takes the first that fits."""
    return {new: old for old, new in sorted(table.items(), key=lambda item: -len(item[1]))}


def only(tensors: Tensors, prefix: str) -> Tensors:
    """Those whose names begin with `prefix`, without it."""
    return _view(tensors, {name.removeprefix(prefix): [name] for name in tensors if name.startswith(prefix)})


def derived(
    view: Tensors,
    without: Iterable[str] = (),
    added: Mapping[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]] | None = None,
) -> Tensors:
    """The view without some names, and with others: name -> (shape, function that reads it)."""
    added = added or {}
    shapes = {name: shape for name, shape in view.shapes.items() if name not in without}
    shapes |= {name: shape for name, (shape, _) in added.items()}
    return Tensors(view.source, shapes, lambda name: added[name][1]() if name in added else view[name])


def _view(tensors: Tensors, plan: dict[str, list[str]]) -> Tensors:
    """Each name's stored arrays, concatenated along the first axis."""

    def read(name: str) -> np.ndarray:
        arrays = [tensors[stored] for stored in plan[name]]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    shapes = {name: _joined([tensors.shapes[each] for each in stored]) for name, stored in plan.items()}
    return Tensors(tensors.source, shapes, read)


def _joined(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) == 1 or any(not shape or shape[1:] != shapes[0][1:] for shape in shapes):
        return shapes[0]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def renamed(name: str, table: Mapping[str, str]) -> str:
    """The name with the first of the table's beginnings that it has replaced."""
    for old, new in table.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name
