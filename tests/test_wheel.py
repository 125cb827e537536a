"""The wheel: what is in it, and a run of it that a clone resumes. CI's stage `wheel` tries all commands."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from cjepa_jax import __version__
from cjepa_jax.configuration import locate
from cjepa_jax.runtime import run_manifest
from tests import running

pytestmark = pytest.mark.slow
ROOT = running.ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what git knows of the working tree: nothing that lies about gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "clone" / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, folder / "clone"], check=True)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "installed", built], check=True)
    return built, folder / "installed"


def test_everything_is_in_the_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel[0]).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cjepa_jax"}
    configs = {name.removeprefix("cjepa_jax/configs/").removesuffix(".py") for name in names if "/configs/" in name}
    assert {name for name in configs if not name.endswith("__init__")} == set(locate.names())
    kept = [file for folder in ("cjepa_jax", "launch") for file in (ROOT / folder).rglob("*.py")]
    wanted = {str(file.relative_to(ROOT)) for file in kept} - {"cjepa_jax/configs/__init__.py"}
    wanted = {f"cjepa_jax/{name}" if name.startswith("launch/") else name for name in wanted}
    assert wanted <= set(names)
    assert sum(name.endswith(".png") for name in names) == len(list((ROOT / "examples/folder").rglob("*.png")))
    assert not any("/tests/" in name or name.endswith(".pyc") for name in names)


def test_a_run_begun_with_the_wheel_is_the_clones_run(wheel, tmp_path):
    """Trained by name away from the clone. The clone, by path, finds it finished and its config to be its own."""
    environment = os.environ | {"PYTHONPATH": str(wheel[1]), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    small = {"train__steps": 4, "checkpoint__every": 2, "probe__every": 0}
    argv = running.command(tmp_path / "run", "clips", **small)
    (tmp_path / "elsewhere").mkdir()
    where = [sys.executable, "-c", "import cjepa_jax; print(cjepa_jax.__file__)"]
    options = {"cwd": tmp_path / "elsewhere", "env": environment, "capture_output": True, "text": True}
    assert pathlib.Path(subprocess.run(where, **options).stdout.strip()).is_relative_to(wheel[1])
    done = subprocess.run(argv, **options)
    assert done.returncode == 0, done.stderr
    out, _ = running.run(running.command(tmp_path / "run", **small))
    assert out.startswith("finished already")
    running.run(running.command(tmp_path / "clones", **small))
    one, other = ((tmp_path / name / "config.json").read_text() for name in ("run", "clones"))
    assert one == other and str(wheel[1]) not in one
    begun = run_manifest.latest(run_manifest.read(tmp_path / "run"))
    assert begun.get("git") is None and begun["version"] == __version__
