"""Finds config and suite files by path or by name, and supports their imports. No JAX.

--config=tiny, --config=baselines/ijepa and --config=configs/tiny.py name configs that come with the package, from any
folder. A path to your own file takes precedence. The shipped files are `cjepa_jax.configs`, in a clone configs/.
"""

import importlib
import pathlib
import sys

import cjepa_jax
from cjepa_jax.errors import ConfigError, did_you_mean
from cjepa_jax.host import paths

PACKAGE = pathlib.Path(cjepa_jax.__file__).parent
PREFIX = "configs/"
EXAMPLE = "examples/folder"  # the pictures that come with the package


def shipped() -> pathlib.Path:
    """The folder of the configs that come with the package."""
    return pathlib.Path(importlib.import_module("cjepa_jax.configs").__path__[0])


def clone() -> pathlib.Path | None:
    """The clone that contains this package. None if it is installed from a wheel."""
    above = shipped().parent
    return above if above != PACKAGE else None


def names(below: str = "") -> list[str]:
    """The names of all shipped configs, such as "baselines/ijepa", or of those in the folder `below`."""
    root = shipped() / below
    return sorted(file.relative_to(root).with_suffix("").as_posix() for file in root.rglob("[!_]*.py"))


def find(word: str, flag: str = "config", below: str = "") -> pathlib.Path:
    """The file that --flag=word names: a Python file, or the name of a shipped one in the folder `below`.

    A word that ends in .py is first tried as a path. Any other word is first tried as a name. Raises ConfigError, with
    the nearest path or name, if there is no such file.
    """
    path, name = (
        paths.given(word, f"--{flag}") if word else pathlib.Path(),
        word.removeprefix(PREFIX).removeprefix(f"{below}/").removesuffix(".py"),
    )
    known = names(below)
    own = [path] if path.is_file() and path.suffix == ".py" else []
    ours = [shipped() / below / f"{name}.py"] if name in known else []
    found = own + ours if path.suffix == ".py" else ours + own
    if found:
        return found[0]
    if path.is_file():
        raise ConfigError(f"--{flag}={word}: must be a Python file, NAME.py, or the name of a shipped config")
    if path.suffix == ".py" or word.startswith((PREFIX, ".", "/")):
        beside = [str(file) for file in path.parent.glob("[!_]*.py")] if path.parent.is_dir() else []
        beside += [PREFIX + "/".join(filter(None, (below, other))) + ".py" for other in known]
        raise ConfigError(f"--{flag}={word}: there is no such file{did_you_mean(word, beside)}")
    same_leaf = [other for other in known if other.split("/")[-1] == name.split("/")[-1]]
    hint = did_you_mean(name, same_leaf or known)
    raise ConfigError(f"--{flag}={word}: there is no such file and no shipped {flag} of that name{hint}")


def module_of(name: str) -> str:
    """The module of a config that code names: of a shipped one by its name, otherwise `name` unchanged."""
    return f"cjepa_jax.configs.{name.replace('/', '.')}" if name in names() else name


def portable(file: pathlib.Path, root: str) -> str:
    """The value of --config that finds the file on another machine, in the folder `root`: its path there, an absolute
    path, or the name of a config in an installed wheel."""
    file = file.absolute()
    if file.is_relative_to(shipped()) and not clone():
        return file.relative_to(shipped()).with_suffix("").as_posix()
    return str(file.relative_to(root) if file.is_relative_to(root) else file)


def example(path: str) -> str:
    """`path`. For examples/folder, if it is not in the working directory, the path of the package's pictures."""
    return str((clone() or PACKAGE) / EXAMPLE) if path == EXAMPLE and not pathlib.Path(path).exists() else path


def make_importable(file: pathlib.Path) -> None:
    """Lets your own config file import its siblings from any working directory, and name them: "mine:Name".

    `from configs import mine` finds the folder configs/ that the file is in; in a clone, the clone's otherwise.
    A module beside the file is found last, so it never takes the name of another one.
    Shipped files import each other as cjepa_jax.configs and need nothing.
    """
    file = file.absolute()
    if not file.is_relative_to(shipped()) and str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    own = [] if file.is_relative_to(shipped()) else [up.parent for up in file.parents if up.name == "configs"][:1]
    for folder in filter(None, (clone(), *own)):
        sys.path.insert(0, str(folder))
