"""Packages of the extras, which need not be installed."""

import importlib
from types import ModuleType

from cjepa_jax.errors import CjepaError, ConfigError


def need(module: str, extra: str, what: str, failure: type[CjepaError] = ConfigError) -> ModuleType:
    """The module of an optional package.

    what: what needs it, for the message. Raises `failure`, with the command that installs the extra, if the package is
    missing or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        text = f"{what}: needs the package {package} ({error}): pip install 'cjepa_jax[{extra}]'"
        raise failure(text) from error
