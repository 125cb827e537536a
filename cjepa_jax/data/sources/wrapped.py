"""The source that another one is made of: its option `of` names it, and `of_options` are its options."""

from typing import Any

from cjepa_jax.configuration import build

FIELDS = ("split", "path", "size", "frames", "count", "seed")


def inner(outer: Any, **other: Any) -> Any:
    """The source that outer.of, "module:Class", and outer.of_options describe. It is given the fields of `outer`.

    `other`: fields that get another value. Raises ConfigError for an unknown source or option.
    """
    fields = {name: getattr(outer, name) for name in FIELDS} | other
    section = {"type": outer.of, **dict(outer.of_options)}
    return build.build(section, "data.options.of_options", "data.options.of", **fields)
