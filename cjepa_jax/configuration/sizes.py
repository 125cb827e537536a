"""The encoder's sizes, as a table that the config check reads without JAX."""

import re
from typing import NamedTuple

from cjepa_jax.errors import ConfigError

SIZES = {  # width, depth, heads, units of the MLP
    "Mu": (96, 4, 3, 384),  # for a laptop CPU, not a published size
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
}


class Size(NamedTuple):
    """An encoder's size. patch is in pixels. hidden: units of each MLP."""

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int


def parse(variant: str) -> Size:
    """ "L/16", or any size as "WIDTHxDEPTHxHEADSxHIDDEN/PATCH" ("1408x40x22x6144/16", V-JEPA 2's giant).

    Raises: ConfigError naming the available sizes, or the width that the heads do not divide.
    """
    size, _, patch = variant.partition("/")
    numbers = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})x(\d{1,6})", size, re.ASCII)
    found = SIZES.get(size) or (tuple(map(int, numbers.groups())) if numbers else ())
    if not found or 0 in found or not re.fullmatch(r"\d{1,6}", patch, re.ASCII) or int(patch) < 1:
        text = f"must be SIZE/PATCH, SIZE one of {', '.join(SIZES)} or WIDTHxDEPTHxHEADSxHIDDEN"
        raise ConfigError(f"objective.encoder.variant = {variant!r}: {text}")
    if found[0] % found[2]:
        text = f"{found[2]} heads do not divide the width {found[0]}"
        raise ConfigError(f"objective.encoder.variant = {variant!r}: {text}")
    return Size(*found, int(patch))
