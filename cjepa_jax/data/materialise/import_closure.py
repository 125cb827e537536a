"""The source files that define a simulated world: its module and the modules that it imports. Read with ast.

Followed are modules below cjepa_jax.data.worlds. For a world of another package, modules of that package or in the
folder of its file are followed too. Of the worlds' `__init__`, only imports of needed names are followed, so other
worlds have no influence.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from cjepa_jax.data import worlds
from cjepa_jax.errors import ConfigError

WORLDS = worlds.__name__
INSTALLED = {"site-packages", "dist-packages"}  # folders that hold modules of many packages


def files(kind: type) -> list[Path]:
    """The source files of a world's class, sorted by module name. Raises ConfigError if it has no file."""
    module = kind.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or not file or Path(file).suffix != ".py":
        raise ConfigError(f"{module}:{kind.__qualname__}: must be a class of a Python file that can be imported")
    up = module.count(".") + (Path(file).name == "__init__.py")
    closure = Closure(Path(file).absolute().parents[up], module.partition(".")[0])
    closure.add(module)
    return [found for _, found in sorted(closure.found.items())]


class Closure:
    """`found`: module -> file. base: the folder from which the world's package is imported. top: its name."""

    def __init__(self, base: Path, top: str):
        self.base, self.top = base, top
        self.found: dict[str, Path] = {}

    def add(self, module: str) -> None:
        """Adds a module and everything that it imports."""
        file = self.file(module)
        if file is None or module in self.found:
            return
        self.found[module] = file
        for parent, name in imports(module, file):
            self.add_name(parent, name)

    def add_name(self, parent: str, name: str) -> None:
        """Adds the modules for `from parent import name`. `name` is "" for `import parent`."""
        file = self.file(parent)
        if name and self.file(f"{parent}.{name}"):
            self.add(f"{parent}.{name}")
        elif name and file and file.name == "__init__.py" and (origin := self.origin(parent, file, name)):
            self.add_name(*origin)
        else:
            self.add(parent)

    def origin(self, package: str, file: Path, name: str) -> tuple[str, str] | None:
        """(module, name) from which a package's `__init__` imports a name. None: it does not import it."""
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    origin = absolute(node, package, file), alias.name
                    if name == (alias.asname or alias.name) and origin != (package, name):
                        return origin
        return None

    def file(self, module: str) -> Path | None:
        """The source file of a module that is followed. None for other modules."""
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
    """(module, name) of each import anywhere in a file. `name` is "" for `import module` and for `*`."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((absolute(node, module, file), alias.name.strip("*")) for alias in node.names)


def absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The absolute name of the module that `from ... import` names."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
