"""Sizes of an encoder or predictor, inferred from its canonical names and shapes (see canonical.py)."""

import math
import re
from collections.abc import Iterable, Mapping

from cjepa_jax.configuration.sizes import SIZES, parse
from cjepa_jax.errors import CheckpointError, ConfigError

HEADS = {width: heads for width, _, heads, _ in SIZES.values()}  # by an encoder's width, as published
ROTARY_HEADS = HEADS | {1408: 22, 1664: 26}  # V-JEPA 2's and 2.1's


def size(found: Mapping[str, tuple[int, ...]], name: str, axis: int = 0, default: int = 0) -> int:
    """The size of an array along an axis, the default if there is no such array, 0 if it has no such axis."""
    shape = found.get(name)
    return default if shape is None else shape[axis] if axis < len(shape) else 0


def depth(names: Iterable[str]) -> int:
    """Number of blocks: the highest index plus one."""
    found = (re.match(r"blocks\.(\d{1,4})\.", name, re.ASCII) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=1)


def stack(width: int, depth: int, hidden: int, cross: bool = False) -> dict[str, tuple[int, ...]]:
    """The shapes of `depth` blocks, whose MLPs have `hidden` units, and of the norm after them."""
    layers = {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (hidden, width),
        "mlp.fc2": (width, hidden),
    }
    if cross:
        layers |= {"norm_cross": (width,), "cross.q": (width, width), "cross.kv": (2 * width, width)}
        layers |= {"cross.proj": (width, width)}
    every = {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in layers.items()} | {"norm": (width,)}
    weights = {f"{name}.weight": shape for name, shape in every.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in every.items()}


def heads(told: int, width: int, rotary: bool, where: str) -> int:
    """The heads of an encoder, which no array shows: `told`, or those of the published encoder of this width.

    Raises: CheckpointError if there is none, or if they do not divide the width.
    """
    count = told or (ROTARY_HEADS if rotary else HEADS).get(width, 0)
    if not count:
        text = f"how many heads an encoder of width {width} has is not in the weights"
        raise CheckpointError(f"{where}: {text}: give it, heads=...")
    if count < 0 or width % count:
        raise CheckpointError(f"{where}: heads = {count}: must divide the encoder's width {width}")
    return count


def variant(width: int, depth: int, heads: int, hidden: int, patch: int, where: str) -> str:
    """ "H/14", or the numbers of a size without a name (see sizes.parse).

    Raises: CheckpointError for an impossible encoder: MLPs without units.
    """
    known = next((name for name, size in SIZES.items() if size == (width, depth, heads, hidden)), None)
    found = f"{known or f'{width}x{depth}x{heads}x{hidden}'}/{patch}"
    try:
        parse(found)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {str(error).removeprefix('objective.')}") from error
    return found


def squares(count: int) -> list[tuple[int, int, int]]:
    """The grids (times, rows, cols) of `count` tokens that have as many rows as columns."""
    return [(count // side**2, side, side) for side in range(1, math.isqrt(count) + 1) if count % side**2 == 0]
