"""Which source files a world's checksum is of."""

import importlib
import sys

import pytest

from cjepa_jax.data import worlds
from cjepa_jax.data.materialise import builders, import_closure
from cjepa_jax.data.worlds import Balls, Craft, Ramps, Shadows
from cjepa_jax.errors import ConfigError

SHARED = {"base.py", "draw.py", "interventions.py", "layout.py", "physics.py"}
PHYSICS = SHARED | {"rigid.py"}


def names(kind):
    return {file.name for file in import_closure.files(kind)}


def test_a_world_is_its_module_and_what_that_imports():
    assert names(Balls) == PHYSICS | {"balls.py"}
    assert names(Ramps) == PHYSICS | {"ramps.py", "puzzles.py"}
    assert names(Shadows) == SHARED | {"shadows.py"}
    assert names(Craft) == PHYSICS | {"world.py", "facts.py", "layouts.py", "questions.py"}


def write(folder, files):
    """Writes modules by their paths without .py."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CLASS = "class Mine: pass\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Imports a class Mine of a module below tmp_path, fresh."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(module):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "near", "pack")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module(module).Mine

    return load


def test_an_unregistered_file_among_the_worlds_changes_no_checksum(tmp_path, monkeypatch):
    before = builders.code_of(Balls())
    folder = tmp_path / "worlds"
    for file in import_closure.files(Balls):
        write(folder, {file.stem: file.read_text()})
    write(folder, {"pendulum": "SPEED = 1\n", "__init__": "from cjepa_jax.data.worlds.balls import Balls\n"})
    monkeypatch.setattr(worlds, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(sys.modules[Balls.__module__], "__file__", str(folder / "balls.py"))
    assert builders.code_of(Balls()) == before
    write(folder, {"pendulum": "SPEED = 2\n"})
    assert builders.code_of(Balls()) == before
    with (folder / "draw.py").open("a") as stream:
        stream.write("# changed\n")
    assert builders.code_of(Balls()) != before


def test_of_another_package_its_own_modules_count(tmp_path, own):
    text = "import numpy, near\nfrom cjepa_jax.data.worlds import Shadows\nfrom cjepa_jax.errors import DataError\n"
    write(tmp_path, {"mine": f"{text}{CLASS}", "near": "import json\n", "far": ""})
    assert names(own("mine")) == SHARED | {"shadows.py", "mine.py", "near.py"}
    pack = {
        "__init__": "from .world import Mine\n",
        "world": f"from . import near\nfrom .deep import name\nfrom .deep.other import *\n{CLASS}",
        "near": "def f():\n    import pack.late\n",
        "late": "import pack.world\n",
        "deep/__init__": "from pack.deep.origin import name\n",
        "deep/origin": "name = 1\n",
        "deep/other": "",
        "far": "",
    }
    write(tmp_path / "pack", pack)
    assert names(own("pack")) == {"world.py", "near.py", "late.py", "origin.py", "other.py"}


def test_modules_of_other_packages_beside_an_installed_one_do_not_count(tmp_path, own, monkeypatch):
    folder = tmp_path / "site-packages"
    write(folder, {"mine": f"import near\n{CLASS}", "near": ""})
    monkeypatch.syspath_prepend(str(folder))
    assert names(own("mine")) == {"mine.py"}


def test_a_class_without_a_file_is_refused(monkeypatch):
    kind = type("Mine", (Balls,), {"__module__": "__main__"})
    with pytest.raises(ConfigError, match="__main__:Mine: must be a class of a Python file"):
        import_closure.files(kind)
