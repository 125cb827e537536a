"""Reads public weights and exports of this package.

found = read("IN1K-vit.h.14-300e.pth.tar")      I-JEPA, V-JEPA, V-JEPA 2 and 2.1 as published
found = read("ijepa_vith14_1k")                 a folder of transformers' IJepaModel, VJEPA2Model or Dinov2Model
found = read("vjepa2-ac-vitg.pt")               V-JEPA 2-AC, and weights.pt of LeWorldModel (worlds.py)
found = read("pointjepa.ckpt")                  Point-JEPA (points.py)
found = read("exported")                        a folder that this package exported
print(found.summary())
Encoder(**found.encoder).apply({"params": found.params["encoder"]}, video)
"""

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.configuration.check import CHANNELS
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import export_format, files, huggingface, name_maps, points, published, safety, worlds

ENCODERS = ("encoder", "", "target_encoder", "ema_encoder")  # in order of preference; the EMA is the target
TARGETS = ("target_encoder", "ema_encoder")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Parameters and their description.

    Attributes:
      layout: "cjepa_jax", "ijepa", "vjepa", "vjepa2", "vjepa2.1", "timm", "hf-ijepa", "hf-vjepa2", "hf-dinov2", "lewm"
        or "point-jepa".
      source, digest: their file or folder, and its SHA-256.
      licence: "CC-BY-NC-4.0", "MIT", ..., or "unknown".
      encoder, predictor: the keyword arguments of models' Encoder and Predictor (without `out`) that the weights
        determine. predictor is None if there is none, or if ours does not support it.
      params: nested float32 arrays, "encoder" and, if they exist, "target" (its moving average) and "predictor".
      input: size in pixels, frames, anchor, names_objects of the training.
      about: further information. Of public weights: "encoder" and "target", the names of the stored parts, and "notes".
      world: what a published world model or Point-JEPA has besides an encoder, for one objective alone.
    """

    layout: str
    source: str
    digest: str
    licence: str
    encoder: dict[str, Any]
    predictor: dict[str, Any] | None
    params: dict[str, Any]
    input: dict[str, Any]
    about: dict[str, Any]
    world: worlds.World | None = None

    def summary(self) -> str:
        """A line with the kind of weights and their licence, and one line for each note."""
        count = sum(math.prod(array.shape) for array in _arrays(self.params["encoder"]))
        there: list[str] = [name for name in ("encoder", "target", "predictor") if name in self.params]
        if world := self.world:
            there += [f"{world.name}'s {name}" for name in world.params]
        parts = ", ".join(there)
        head = f"{self.source}: {self.layout}, {self.encoder['variant']}, {count / 1e6:.1f} M parameters ({parts})"
        stored = [f"{name}: {self.about[name]!r}" for name in ("encoder", "target") if self.about.get(name)]
        notes = [", ".join(stored)] * bool(stored) + list(self.about.get("notes", ()))
        return "\n".join([f"{head}, licence {self.licence}", *(f"  {note}" for note in notes)])


class Reading(NamedTuple):
    """What published weights may not say themselves: arguments of `read`. The defaults are for weights that do."""

    layout: str = ""
    heads: int = 0
    frames: int = 0
    images: bool = False
    levels: bool = False


def read(
    path: str | os.PathLike,
    part: str = "",
    *,
    layout: str = "",
    heads: int = 0,
    frames: int = 0,
    mask_token: int | None = None,
    images: bool = False,
    levels: bool = False,
) -> Pretrained:
    """Public weights, or an export of ours.

    Args:
      path: a checkpoint, or a folder with model.safetensors, pytorch_model.bin or LeWorldModel's weights.pt.
      part: which encoder of a checkpoint with several, and no target: "encoder", "target_encoder" or "ema_encoder". By
        default "encoder", with the moving average as its target. If there is only one encoder, that one.
      layout: of a checkpoint whose layout cannot be recognised: "ijepa", "vjepa", "vjepa2", "vjepa2.1" or "timm".
      heads: of an encoder with an unpublished width.
      frames: the length of the clips that stored positions are for, if it differs from V-JEPA's 16.
      mask_token: which one to use, if a predictor has several (V-JEPA has one for each kind of mask). The default is
        number 1, as in the original code and transformers. If that was never trained (it is 0), the first non-zero one.
      images: converts a clip encoder to an image encoder, with the outputs for a clip of one repeated frame. Stored
        positions are those of the middle of the clip.
      levels: V-JEPA 2.1 with all levels, both tokenisers and its predictor (objectives.dense), not as a plain encoder.

    Raises: CheckpointError, one line, for weights that are unreadable, not recognised, or inconsistent.
    """
    path = Path(path)
    beside = ("config.json", export_format.SUM)  # next to one of them, the file is part of a folder
    if path.name == files.SINGLE and any((path.parent / name).is_file() for name in beside):
        path = path.parent
    config = files.json(files.member(path, "config.json"), links=True) if (path / "config.json").exists() else {}
    tensors = files.tensors(path)  # before the digest, so that other files are not read to their end
    if config.get("format") == export_format.FORMAT:
        require_published(path, Reading(layout, heads, frames, images))
        return Pretrained(**export_format.read(path, config, _digest(path)))
    if (path / export_format.SUM).is_file() and (path / files.SINGLE).is_file():
        export_format.verify(path, _digest(path / files.SINGLE))
    if read_alone := _lewm if worlds.is_lewm(tensors) else _point_jepa if points.is_point_jepa(tensors) else None:
        given = dict(part=part, layout=layout, frames=frames, images=images, levels=levels, mask_token=mask_token)
        return read_alone(path, tensors, heads, given)
    known, parts = _laid_out(path, config, tensors, layout)
    chosen, target = _which(parts, part, str(path))
    known = dataclasses.replace(known, heads=heads or known.heads, frames=frames or known.frames)
    encoder, params, notes = published.encoder(parts[chosen], known, images, levels)
    trees, about = {"encoder": params}, {"encoder": chosen}
    if target:
        other, trees["target"], _ = published.encoder(parts[target], known, images, levels)
        about["target"] = target
        if other != encoder:
            raise CheckpointError(f"{path}: {chosen} and {target} are not of one size")
    predictor, own, said, world = _predictor(parts, known, encoder, mask_token)
    trees |= {"predictor": own} if predictor else {}
    size, frames = _input(encoder, known, parts[chosen].shapes.get("pos_embed", (1, 0)))
    seen = {"size": size, "frames": 1 if images else frames, "anchor": 0, "names_objects": False}
    seen |= {"change": False} if levels else {}  # the second head is of visible tokens
    licence = huggingface.licence(path) or known.licence  # a README next to a single file may belong to anything
    parts = dict(encoder=encoder, predictor=predictor, params=trees, input=seen, about=about | {"notes": notes + said})
    return Pretrained(known.name, str(path), _digest(path), licence, **parts, world=world)


def _lewm(path: Path, tensors: files.Tensors, heads: int, given: Mapping[str, Any]) -> Pretrained:
    """The published LeWorldModel. Raises CheckpointError also if one of `given`, which do not concern it, is set."""
    _require_unsaid(path, "LeWorldModel", given)
    encoder, params, world = worlds.lewm(tensors, published.MEAN, published.STD, heads)
    side = math.isqrt(params["tokenizer"]["positions"].shape[1] - 1)
    size = side * parse(encoder["variant"]).patch
    licence = huggingface.licence(path) or "unknown"
    return _alone(path, encoder, {"encoder": params}, world, layout="lewm", licence=licence, size=size)


def _point_jepa(path: Path, tensors: files.Tensors, heads: int, given: Mapping[str, Any]) -> Pretrained:
    """The published Point-JEPA. Raises as `_lewm`."""
    _require_unsaid(path, points.NAME, given)
    encoder, params, world = points.point_jepa(tensors, heads)
    return _alone(path, encoder, params, world, layout="point-jepa", licence=points.LICENCE, size=0)


def _require_unsaid(path: Path, name: str, given: Mapping[str, Any]) -> None:
    if options := [key for key, value in given.items() if value or (key == "mask_token" and value is not None)]:
        raise CheckpointError(f"{path}: {options[0]}: not for {name}, whose arrays say it themselves")


def _alone(
    path: Path, encoder: dict, params: dict, world: worlds.World, *, layout: str, licence: str, size: int
) -> Pretrained:
    """Weights for one objective alone. `size`: of images in pixels, 0 for none."""
    return Pretrained(
        layout=layout,
        source=str(path),
        digest=_digest(path),
        licence=licence,
        encoder=encoder,
        predictor=None,
        params=params,
        input={"size": size, "frames": 1, "anchor": 0, "names_objects": False},
        about={"encoder": "encoder", "notes": [f"it is for {world.objective} alone"]},
        world=world,
    )


def _predictor(parts: Mapping[str, Any], known: Any, encoder: dict[str, Any], mask_token: int | None) -> Any:
    """(keyword arguments, parameters, notes, world model) of a checkpoint's predictor, as far as there is one."""
    if "predictor" not in parts:
        return None, None, [], None
    if worlds.takes_actions(parts["predictor"]):
        world, notes = worlds.action_conditioned(parts["predictor"])
        return None, None, notes, world
    try:
        return *published.predictor(parts["predictor"], known, encoder, mask_token), None
    except CheckpointError as error:
        if mask_token is not None:
            raise
        raise CheckpointError(f"{error}. To read the encoder without it, save its state dict alone") from error


def require_published(path: str | os.PathLike, reading: Reading) -> None:
    """Raises CheckpointError if anything is said about weights of ours, which say it themselves."""
    given = {name: value for name, value in reading._asdict().items() if value and name != "levels"}
    if given:
        text = ", ".join(f"{name} = {value!r}" for name, value in given.items())
        raise CheckpointError(f"{path}: {text}: only for published weights. A run or an export says this itself")


def _laid_out(path: Path, config: dict[str, Any], tensors: files.Tensors, layout: str) -> tuple[Any, Any]:
    """The layout of a checkpoint's tensors, and its parts by our names."""
    if config and "pretrained_cfg" not in config:
        known = huggingface.layout(config, path)
        return known, name_maps.huggingface(tensors, known.name)
    parts = name_maps.raw(tensors)
    told = _told(layout) if layout else published.recognised(parts, tensors)
    return huggingface.timm(config, path) if config else told, parts


def frames(model: Pretrained) -> int:
    """Frames per token of the first layer: 1 for images."""
    box = model.encoder.get("channels", CHANNELS) * parse(model.encoder["variant"]).patch ** 2
    return model.params["encoder"]["tokenizer"]["projection"]["kernel"].shape[0] // box


def foresees(model: Pretrained) -> bool:
    """Whether the predictor's residual head was trained: its term had a weight, and it is not all zeros."""
    head = model.params.get("predictor", {}).get("residual", {}).get("kernel")
    return bool(model.input.get("change", True)) and head is not None and bool(np.any(head))


def _which(parts: Mapping[str, Any], part: str, where: str) -> tuple[str, str]:
    """(the encoder, its moving average or "") of a checkpoint's parts."""
    there = [name for name in ENCODERS if name in parts]
    if part and part not in there:
        raise CheckpointError(f"{where}: part = {part!r}: must be one of {', '.join(map(repr, there))}")
    chosen = part or next(iter(there), "")
    if chosen not in parts:
        raise CheckpointError(f"{where}: has no encoder, only {', '.join(parts)}")
    return chosen, "" if part else next((name for name in TARGETS if name in there and name != chosen), "")


def _told(layout: str) -> published.Layout:
    if layout not in published.LAYOUTS:
        raise CheckpointError(f"layout = {layout!r}: must be one of {', '.join(published.LAYOUTS)}")
    return published.LAYOUTS[layout]


def _input(encoder: Mapping[str, Any], layout: published.Layout, table: tuple[int, ...]) -> tuple[int, int]:
    """Pixels and frames of the training's input."""
    patch = parse(encoder["variant"]).patch
    if encoder["positions"] == "table":
        times, rows, _ = encoder["position_grid"]
        return rows * patch, times * encoder["tubelet"] if times > 1 else layout.frames or 1
    return layout.size or math.isqrt(table[1]) * patch, layout.frames or 1


def _digest(path: Path) -> str:
    """SHA-256 of a file, of a folder's one safetensors file, or of the digests of several in their names' order."""
    names: list[str] = []
    if path.is_dir():
        pickled = files.pickled(path)
        names = [pickled] if pickled else sorted(each.name for each in path.glob("*.safetensors"))
    found = []
    for each in [files.member(path, name) for name in names] or [path]:
        with safety.regular(each) as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _arrays(tree: Mapping[str, Any]):
    for value in tree.values():
        yield from _arrays(value) if isinstance(value, Mapping) else [value]
