"""From a config section to an object: `type = "module:Name"` and keyword arguments. There is no registry.

    build(config.objective)                   constructs the class (or calls the factory) that the section names
    bind(config.mask)                         the function that it names, with the section's values bound
    build({"type": config.data.source}, split="train", **config.data.options)

An unknown name is refused, and the message gives the nearest one. Nested sections are passed on unchanged.
"""

import functools
import importlib
import inspect
import pathlib
import pkgutil
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cjepa_jax.configuration.renamed import current
from cjepa_jax.errors import CjepaError, ConfigError, did_you_mean, raised

PLACES = "its folder must be the working directory, the folder of the config, or on PYTHONPATH"


def locate(path: str, key: str = "") -> Any:
    """The attribute `Name` of `module`, for a path "module:Name".

    A name from before a move is replaced by the present one. `key` is the config's key that has the path, which errors
    then name. Raises ConfigError, one line, if the path is malformed, if the module or the attribute does not exist, or
    if a module of another package cannot be imported.
    """
    path = current(path)
    shown = f"{key} = {path!r}" if key else repr(path)
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{shown}: must be written as 'module:Name'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            place = "" if "." in error.name else f"; {PLACES}"
            hint = did_you_mean(error.name, _siblings(error.name))
            raise ConfigError(f"{shown}: there is no module {error.name!r}{place}{hint}") from error
        raise ConfigError(f"{shown}: needs the package {error.name!r}, which is not installed") from error
    except CjepaError:
        raise
    except Exception as error:  # a module of the user's can raise anything: reported
        if is_ours(path):
            raise
        raise ConfigError(f"{shown}: its module raised {raised(error)}") from error
    if not hasattr(module, name):
        public = [other for other, value in vars(module).items() if not other.startswith("_") and callable(value)]
        raise ConfigError(f"{shown}: the module has no {name!r}{did_you_mean(name, public)}")
    return getattr(module, name)


def is_ours(path: str) -> bool:
    """Whether a path "module:Name" is of this package. Mistakes there keep their traceback."""
    return path.startswith("cjepa_jax.")


def build(section: Mapping[str, Any], where: str = "", key: str = "", /, **extra: Any) -> Any:
    """Calls the object that `section["type"]` names with the section's other values. `extra` adds to them or overrides
    them.

    Errors name the section by its keys in the config: `where`, such as "objective", and `key`, that of the path, by
    default "objective.type". Raises ConfigError for an unknown keyword, or a missing one.
    """
    path, target, keywords = _resolve(section, where, key, extra)
    try:
        inspect.signature(target).bind(**keywords)
    except TypeError as error:
        raise ConfigError(f"{_shown(path, where, key)}: {error}") from error
    return target(**keywords)


def plain(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section as nested dicts, which modules of flax take."""
    return {key: plain(value) if hasattr(value, "items") else value for key, value in section.items()}


def bind(
    section: Mapping[str, Any],
    where: str = "",
    positions: Sequence[str] = (),
    given: Sequence[str] = (),
    /,
    **extra: Any,
) -> Callable[..., Any]:
    """`functools.partial` of the function that `section["type"]` names, over the section's other values and `extra`.

    `where` is as for `build`. The caller will give the first arguments by position, one for each of `positions`, and
    those of `given` by name. Raises ConfigError for an unknown keyword, for one that the caller gives, and for a
    function that cannot be called so.
    """
    path, target, keywords = _resolve(section, where, "", extra, positions=positions, given=given)
    bound = functools.partial(target, **keywords)
    if positions:
        try:
            inspect.signature(bound).bind(*positions, **dict.fromkeys(given))
        except TypeError as error:
            takes = ", ".join([*positions, *given])
            raise ConfigError(f"{_shown(path, where, '')}: must take ({takes}): {error}") from error
    return bound


def _shown(path: str, where: str, key: str) -> str:
    """A section's path, with its key if that is known."""
    return f"{key or f'{where}.type'} = {path!r}" if where else path


def _resolve(
    section: Mapping[str, Any],
    where: str,
    key: str,
    extra: Mapping[str, Any],
    positions: Sequence[str] = (),
    given: Sequence[str] = (),
) -> tuple[str, Callable[..., Any], dict[str, Any]]:
    keywords = dict(section.items())
    path, key = keywords.pop("type", None), key or f"{where}.type".lstrip(".")
    if not isinstance(path, str):
        raise ConfigError(f"{key} = {path!r}: must be a text 'module:Name'")
    target = locate(path, key if where else "")
    shown, prefix = _shown(path, where, key), f"{where}." if where else ""
    if not callable(target):
        raise ConfigError(f"{shown}: is not a class or a function")
    parameters = inspect.signature(target).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    taken = {*known[: len(positions)], *given}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        own = [name for name in known if name not in taken and name not in extra]  # those that a config can set
        for name in keywords:
            if name not in known:
                raise ConfigError(f"{prefix}{name}: {path} has no such parameter{did_you_mean(name, own)}")
        if missing := [name for name in extra if name not in known]:
            raise ConfigError(f"{shown}: must take the keyword arguments {', '.join(missing)}")
    if name := next((name for name in keywords if name in taken), ""):
        raise ConfigError(f"{prefix}{name}: cannot be set: whoever calls {path} gives it")
    return path, target, {**keywords, **extra}


def _siblings(module_name: str) -> list[str]:
    """Modules in the same folder as the missing one, as dotted names. Of a folder of the import path only those that
    are neither Python's own nor installed: nobody means these by the name of own code."""
    parent, _, _ = module_name.rpartition(".")
    if parent:
        paths: Iterable[str] = importlib.import_module(parent).__path__
        return [f"{parent}.{module.name}" for module in pkgutil.iter_modules(paths)]
    installed = [pathlib.Path(path) for path in {*sysconfig.get_paths().values(), sys.base_prefix}]
    folders = [path for path in map(pathlib.Path, sys.path) if not any(path.is_relative_to(one) for one in installed)]
    return ["cjepa_jax", *(module.name for module in pkgutil.iter_modules(map(str, folders)))]
