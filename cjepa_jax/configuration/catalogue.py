"""The objects of this package that a config may name, found in its sources without importing anything.

    keywords("mask", "cjepa_jax.masks.objects:draw")     {"max_objects", "area", "anchor"}

The folder of the definition and its form determine the kind. So names that a module only imports from elsewhere,
helpers, private names and classes of another kind are refused.
"""

import ast
import functools
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

PACKAGE = pathlib.Path(__file__).parents[1]
NAME = re.compile(r"cjepa_jax((?:\.[a-z]\w*)+):([A-Za-z]\w*)", re.ASCII)
HOPS = 3  # imports that are followed from a package's __init__ to the definition
FIRST = {  # the first arguments of a function of each kind
    "mask": ["rng", "object_patches", "object_valid"],
    "loss": ["prediction", "target", "mask"],
    "monitor": ["state", "batch", "metrics"],
}
GIVEN = {  # keywords that the program gives, not a config
    "mask": {"grid"},
    "objective": {"steps", "dtype"},
    "model": {"parent", "name", "dtype"},
}


class Found(NamedTuple):
    """A definition: its module and its syntax tree."""

    module: str
    node: ast.ClassDef | ast.FunctionDef


def keywords(kind: str, name: str) -> set[str] | None:
    """The keywords that a config may give to "module:Name" of this package. None if it is not of this kind: "mask",
    "loss", "objective", "source", "world", "monitor", "protocol" or "model"."""
    match = NAME.fullmatch(name)
    found = match and _find(f"cjepa_jax{match[1]}", match[2])
    folder, fits = KINDS[kind]
    if not found or not f"{found.module}.".startswith(f"{folder}.") or not fits(found):
        return None
    if isinstance(found.node, ast.FunctionDef):
        arguments = found.node.args
        known = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)} - {*FIRST[kind]}
    else:
        known = _members(found)[0]
    return known - GIVEN.get(kind, set())


def _begins(first: list[str]) -> Callable[[Found], bool]:
    """Whether something is a function with these first arguments."""

    def fits(found: Found) -> bool:
        node = found.node
        return isinstance(node, ast.FunctionDef) and [each.arg for each in node.args.args[: len(first)]] == first

    return fits


def _is_monitor(found: Found) -> bool:
    if isinstance(found.node, ast.FunctionDef):
        return _begins(FIRST["monitor"])(found)
    return "__call__" in _members(found)[1] and any(_named(base) == "Monitor" for base in found.node.bases)


def _has(*methods: str) -> Callable[[Found], bool]:
    """Whether something is a class with these methods, and not only a Protocol."""

    def fits(found: Found) -> bool:
        if not isinstance(found.node, ast.ClassDef) or any(_named(base) == "Protocol" for base in found.node.bases):
            return False
        return set(methods) <= _members(found)[1]

    return fits


def _is_protocol(found: Found) -> bool:
    runs = [node for node in found.node.body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    return _has("run")(found) and any([each.arg for each in node.args.args] == ["self", "bench"] for node in runs)


def _is_module(found: Found) -> bool:
    return isinstance(found.node, ast.ClassDef) and any(_named(base) == "Module" for base in found.node.bases)


KINDS = {  # kind -> the folder, and the form of its definitions
    "mask": ("cjepa_jax.masks", _begins(FIRST["mask"])),
    "loss": ("cjepa_jax.losses", _begins(FIRST["loss"])),
    "objective": ("cjepa_jax.objectives", _has("init", "loss", "encode")),
    "source": ("cjepa_jax.data", _has("__len__", "__getitem__")),
    "world": ("cjepa_jax.data.worlds", _has("setup", "play", "film")),
    "monitor": ("cjepa_jax.monitors", _is_monitor),
    "protocol": ("cjepa_jax.evals", _is_protocol),
    "model": ("cjepa_jax.models", _is_module),
}


@functools.cache
def _parsed(module: str) -> dict[str, ast.AST]:
    """Top-level names of a module of this package: definitions, and imports of names from this package."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    files = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    found: dict[str, ast.AST] = {}
    for node in ast.parse(files[0].read_bytes()).body if files else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cjepa_jax."):
            found |= {alias.asname or alias.name: node for alias in node.names}
    return found


def _find(module: str, name: str, hops: int = HOPS) -> Found | None:
    node = _parsed(module).get(name)
    if isinstance(node, ast.ImportFrom):
        original = next(alias.name for alias in node.names if name == (alias.asname or alias.name))
        return _find(node.module, original, hops - 1) if hops else None
    return Found(module, node) if node else None


def _members(found: Found) -> tuple[set[str], set[str]]:
    """(fields that a constructor takes, methods) of a class with those of its bases in this package."""
    fields, methods = set(), set()
    for base in found.node.bases:
        above = isinstance(base, ast.Name) and _find(found.module, base.id)
        if above and isinstance(above.node, ast.ClassDef):
            more = _members(above)
            fields, methods = fields | more[0], methods | more[1]
    decorated = [each.func if isinstance(each, ast.Call) else each for each in found.node.decorator_list]
    taken = any(_named(each) == "dataclass" for each in decorated) or _is_module(found)
    for node in found.node.body:
        if isinstance(node, ast.FunctionDef):
            methods.add(node.name)
        elif taken and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _settable(node):
            fields.add(node.target.id)
    return fields, methods


def _settable(node: ast.AnnAssign) -> bool:
    """Whether a dataclass's line is a field that its constructor takes."""
    if _named(node.annotation) == "ClassVar":
        return False
    value = node.value
    options = value.keywords if isinstance(value, ast.Call) and _named(value.func) == "field" else ()
    return not any(each.arg == "init" and getattr(each.value, "value", True) is False for each in options)


def _named(node: ast.AST) -> str:
    """The last part of a name: "Module" of nn.Module, "ClassVar" of ClassVar[int]."""
    if isinstance(node, ast.Subscript):
        return _named(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
