"""V-JEPA 2.1 with all that it has: every level, tokenisers of clips and of images, and its predictor.

For objectives.dense. Without it, published.py makes a plain encoder of the last level.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import canonical, diff, shapes
from cjepa_jax.weights.files import Tensors
from cjepa_jax.weights.name_maps import derived

TOKENIZER = "cjepa_jax.models.tokenizers:ClipsAndImages"
PUBLISHED = {48: (11, 23, 37, 47)}  # of ViT-G. The others are at equal distances
CODES = {"video_mod_embed": "clip_code", "img_mod_embed": "image_code"}
IMAGES = "patch_embed_img.proj"
PREDICTOR = {"embed.0.": "embed_up.", "embed.2.": "embed.", "predictor_proj_context.": "residual."}


def of(depth: int, count: int) -> tuple[int, ...]:
    """The numbers of the blocks whose outputs the `count` norms of an encoder of this depth take."""
    if depth in PUBLISHED and count == len(PUBLISHED[depth]):
        return PUBLISHED[depth]
    return tuple(depth * (i + 1) // count - 1 for i in range(count))


def encoder(view: Tensors, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict]:
    """(keyword arguments of Encoder, its parameters), from an encoder in canonical names.

    Args: options: what published.encoder says of the same encoder at its last level.
    Raises: CheckpointError naming all missing, unexpected or mis-shaped arrays.
    """
    size, tubelet = parse(options["variant"]), options["tubelet"]
    norms = {int(match[1]) for name in view if (match := re.match(r"norms_block\.(\d{1,4})\.", name, re.ASCII))}
    if not norms or len(norms) > size.depth:
        raise CheckpointError(f"{view.source}: {len(norms)} norms of levels: must be 1 to {size.depth}")
    view = _with_codes(derived(view, [name for name in view if name.startswith("pos_embed")]))
    wanted = {n: s for n, s in shapes.stack(size.width, size.depth, size.hidden).items() if not n.startswith("norm.")}
    wanted |= {f"norms_block.{i}.{leaf}": (size.width,) for i in range(len(norms)) for leaf in ("weight", "bias")}
    for name, frames in ((canonical.PATCHES, tubelet), (IMAGES, 1)):
        wanted |= {f"{name}.weight": (size.width, 3, frames, size.patch, size.patch), f"{name}.bias": (size.width,)}
    wanted |= {name: (size.width,) for name in CODES.values()}
    diff.compare(view.shapes, wanted, str(view.source))
    section = {"type": TOKENIZER, "patch": size.patch, "tubelet": tubelet}
    section |= {name: options[name] for name in ("mean", "std")}
    found = {**options, "tokenizer": section, "levels": of(size.depth, len(norms))}
    return found, canonical.from_canonical(view)


def predictor(view: Tensors, width: int) -> Tensors | None:
    """A predictor in canonical names, of an encoder of this width and several levels. None if it is another one's."""
    if "embed.0.weight" not in view or "predictor_proj_context.weight" not in view:
        return None
    own = view.shapes["prediction.bias"][:1] if "prediction.bias" in view.shapes else ()
    if own != view.shapes["embed.0.weight"][-1:] or not own or own[0] % width:
        return None
    moved = {name: new + name[len(old) :] for old, new in PREDICTOR.items() for name in view if name.startswith(old)}
    added = {new: (view.shapes[old], lambda old=old: view[old]) for old, new in moved.items()}
    return _with_codes(derived(view, moved, added))


def _with_codes(view: Tensors) -> Tensors:
    """The learned codes [1, 1, W] of clips and of images as [W]."""
    there = {old: new for old, new in CODES.items() if old in view}
    flat = {
        new: ((math.prod(view.shapes[old]),), lambda old=old: np.asarray(view[old]).reshape(-1))
        for old, new in there.items()
    }
    return derived(view, there, flat)
