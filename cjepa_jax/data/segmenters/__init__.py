"""What cuts an image into masks. Each module has `SETTINGS`, its options with their defaults, and
`make(settings, device, batch)`, which returns a function

    image uint8 [H,W,3] RGB -> list of (mask bool [H,W], {score's name: value}), no pixel in two masks

and what identifies it beside the settings (such as the weights' checksum), as a dict.
"""

import importlib
from types import ModuleType

from cjepa_jax.errors import ConfigError


def needs(package: str, backend: str) -> ModuleType:
    """An optional package. Raises ConfigError, with the command that installs it, where it is missing."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.split(".")[0]
        if (error.name or "").split(".")[0] != top:
            raise
        raise ConfigError(f"--backend={backend} needs {top}: pip install 'cjepa_jax[sam]'") from error
