"""From a config section to an object: `type = "module:Name"` and keyword arguments. There is no registry.

    build(config.objective)                   constructs the class (or calls the factory) that the section names
    bind(config.mask)                         the function that it names, with the section's values bound
    build({"type": config.data.source}, split="train", **config.data.options)

An unknown name is refused, and the message gives the nearest one. Nested sections are passed on unchanged.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from cjepa_jax.configuration.renamed import current
from cjepa_jax.errors import ConfigError, did_you_mean


def locate(path: str) -> Any:
    """The attribute `Name` of `module`, for a path "module:Name".

    A name from before a move is replaced by the present one. Raises ConfigError if the path is malformed, or if the
    module or the attribute does not exist.
    """
    path = current(path)
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{path!r}: must be written as 'module:Name'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            hint = did_you_mean(error.name, _siblings(error.name))
            raise ConfigError(f"{path!r}: there is no module {error.name!r}{hint}") from error
        raise ConfigError(f"{path!r}: needs the package {error.name!r}, which is not installed") from error
    if not hasattr(module, name):
        public = [other for other in vars(module) if not other.startswith("_")]
        raise ConfigError(f"{path!r}: the module has no {name!r}{did_you_mean(name, public)}")
    return getattr(module, name)


def build(section: Mapping[str, Any], **extra: Any) -> Any:
    """Calls the object that `section["type"]` names with the section's other values. `extra` adds to them or overrides
    them.

    Raises ConfigError for an unknown keyword, or a missing one.
    """
    path, target, keywords = _resolve(section, extra)
    try:
        inspect.signature(target).bind(**keywords)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return target(**keywords)


def bind(section: Mapping[str, Any], **extra: Any) -> Callable[..., Any]:
    """`functools.partial` of the function that `section["type"]` names, over the section's other values and `extra`.

    Raises ConfigError for an unknown keyword.
    """
    _, target, keywords = _resolve(section, extra)
    return functools.partial(target, **keywords)


def _resolve(section: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[str, Callable[..., Any], dict[str, Any]]:
    keywords = {**dict(section.items()), **extra}
    path = keywords.pop("type", None)
    if not isinstance(path, str):
        raise ConfigError(f"type = {path!r}: must be a text 'module:Name'")
    target = locate(path)
    if not callable(target):
        raise ConfigError(f"{path!r}: is not a class or a function")
    parameters = inspect.signature(target).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for key in keywords:
            if key not in known:
                raise ConfigError(f"{key}: {path} has no such parameter{did_you_mean(key, known)}")
    return path, target, keywords


def _siblings(module_name: str) -> list[str]:
    """Modules in the same folder as the missing one, as dotted names."""
    parent, _, _ = module_name.rpartition(".")
    paths = importlib.import_module(parent).__path__ if parent else None
    prefix = f"{parent}." if parent else ""
    return [f"{prefix}{module.name}" for module in pkgutil.iter_modules(paths)]
