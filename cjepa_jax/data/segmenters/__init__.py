"""Segmenters of images. Each module has `SETTINGS`, its options with their defaults, and a function
`make(settings, device, batch)`, which returns a function

    image uint8 [H,W,3] RGB -> list of (mask bool [H,W], {score's name: value}), no pixel in two masks

and a dict of what else identifies it (such as the weights' checksum).
"""

from types import ModuleType

from cjepa_jax.host import optional


def needs(package: str, backend: str) -> ModuleType:
    """Imports an optional package. Raises ConfigError, with the command that installs it, if it is missing."""
    return optional.need(package, "sam", f"--backend={backend}")
