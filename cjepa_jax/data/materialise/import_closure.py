"""The source files that decide what a simulated world does: its module, and what that imports. Read with ast.

Only modules below cjepa_jax.data.worlds are followed and, for a world of another package, those of that package or
beside its file. The worlds' `__init__` counts only for what it imports a name from, so other worlds do not matter.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from cjepa_jax.data import worlds
from cjepa_jax.errors import ConfigError

WORLDS = worlds.__name__
INSTALLED = {"site-packages", "dist-packages"}  # folders where modules of many packages lie beside each other


def files(kind: type) -> list[Path]:
    """The source files of a world's class, by the names of their modules. Raises ConfigError if it has none."""
    module = kind.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or not file or Path(file).suffix != ".py":
        raise ConfigError(f"{module}:{kind.__qualname__}: must be a class of a Python file that can be imported")
    up = module.count(".") + (Path(file).name == "__init__.py")
    closure = Closure(Path(file).absolute().parents[up], module.partition(".")[0])
    closure.add(module)
    return [found for _, found in sorted(closure.found.items())]


class Closure:
    """`found`: module -> file. base: the folder from which the world's own package is imported; top: its name."""

    def __init__(self, base: Path, top: str):
        self.base, self.top = base, top
        self.found: dict[str, Path] = {}

    def add(self, module: str) -> None:
        """Adds a module with all that it imports."""
        file = self.file(module)
        if file is None or module in self.found:
            return
        self.found[module] = file
        for parent, name in imports(module, file):
            self.add_name(parent, name)

    def add_name(self, parent: str, name: str) -> None:
        """Adds what `from parent import name` needs; `name` is "" for `import parent`."""
        file = self.file(parent)
        if name and self.file(f"{parent}.{name}"):
            self.add(f"{parent}.{name}")
        elif name and file and file.name == "__init__.py" and (origin := self.origin(parent, file, name)):
            self.add_name(*origin)
        else:
            self.add(parent)

    def origin(self, package: str, file: Path, name: str) -> tuple[str, str] | None:
        """(module, name) that a package's `__init__` imports a name from; None: it does not."""
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    origin = absolute(node, package, file), alias.name
                    if name == (alias.asname or alias.name) and origin != (package, name):
                        return origin
        return None

    def file(self, module: str) -> Path | None:
        """The source of a module that is followed; None for any other."""
        if f"{module}.".startswith(f"{WORLDS}."):
            place = Path(worlds.__file__).parent.joinpath(*module.split(".")[WORLDS.count(".") + 1 :])
        elif module.partition(".")[0] == WORLDS.partition(".")[0]:
            return None
        elif module.partition(".")[0] != self.top and INSTALLED & set(self.base.parts):
            return None
        else:
            place = self.base.joinpath(*module.split("."))
        found = (place / "__init__.py", place.with_suffix(".py"))
        return next((file for file in found if file.is_file()), None)


def imports(module: str, file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import in a file, wherever it stands; name is "" for `import module`, and for `*`."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((absolute(node, module, file), alias.name.strip("*")) for alias in node.names)


def absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The absolute name of the module that `from ... import` names."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
