"""Checks of an objective's options. Each raises ConfigError, in one line, with the option, its value and the limit."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from cjepa_jax.errors import ConfigError

OWN = ("parent", "name", "dtype")  # fields of every module, which options do not set


def whole(name: str, value: Any, least: int = 1) -> None:
    """An integer of at least `least`. A bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} = {value!r}: must be a whole number, at least {least}")


def number(name: str, value: Any, least: float = -math.inf, below: float = math.inf, limit: str = "a number") -> None:
    """A number of at least `least` and below `below`, which `limit` says in words. A bool is refused."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if not good or not least <= value < below:
        raise ConfigError(f"{name} = {value!r}: must be {limit}")


def flags(section: str, given: Mapping[str, Any], *names: str) -> None:
    """True or False, for each of the options `names` that is given."""
    for name in names:
        if not isinstance(given.get(name, False), bool):
            raise ConfigError(f"{section}.{name} = {given[name]!r}: must be True or False")


def blocks(section: str, given: Mapping[str, Any], module: type, **sizes: int) -> None:
    """`depth`, `width` and `heads` of blocks of attention: whole numbers of at least 1, and heads divide the width.

    Those that are not given have the values of `sizes`, or the module's defaults."""
    fields = {field.name: field.default for field in dataclasses.fields(module)}
    used = {name: given.get(name, sizes.get(name, fields.get(name))) for name in ("depth", "width", "heads")}
    for name, value in used.items():
        whole(f"{section}.{name}", value)
    if used["width"] % used["heads"]:
        raise ConfigError(f"{section}.heads = {used['heads']}: must divide the width {used['width']}")


def keywords(section: str, given: Mapping[str, Any], module: type, *without: str) -> None:
    """Names of fields of a module, but those of `without`, which the objective sets itself."""
    fields = [field.name for field in dataclasses.fields(module) if field.name not in (*OWN, *without)]
    for name in given:
        if name not in fields:
            raise ConfigError(f"{section}.{name} = {given[name]!r}: there is no such option, but {', '.join(fields)}")
