"""The encoder's sizes, as a table that the config check reads without JAX."""

from cjepa_jax.errors import ConfigError

SIZES = {  # width, depth, heads
    "Mu": (96, 4, 3),  # for a laptop CPU; not a published size
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "H": (1280, 32, 16),
}


def parse(variant: str) -> tuple[int, int, int, int]:
    """ "L/16" -> (width, depth, heads, patch). Raises ConfigError naming the sizes there are."""
    size, _, patch = variant.partition("/")
    if size not in SIZES or not patch.isdigit() or int(patch) < 1:
        sizes = ", ".join(SIZES)
        raise ConfigError(f"objective.encoder.variant = {variant!r}: must be SIZE/PATCH, SIZE one of {sizes}")
    return *SIZES[size], int(patch)
