"""Configs and suites are found by path and by name, from any folder, and import each other."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from cjepa_jax import cli
from cjepa_jax.compare import suite as suites
from cjepa_jax.configuration import locate
from cjepa_jax.data.sources.folder import Folder
from cjepa_jax.errors import ConfigError
from launch import __main__ as launch_command
from launch import git

ROOT = pathlib.Path(__file__).parents[2]
OWN = (
    "from {} import tiny\ndef get_config():\n    config = tiny.get_config()\n    config.seed = 12\n    return config\n"
)
READ = "import sys; from cjepa_jax import cli; config, workdir = cli.parse(sys.argv); print(config.seed, workdir)"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory outside the clone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(ROOT))])
    return tmp_path


@pytest.mark.parametrize("word, file", [
    ("tiny", "tiny.py"),
    ("configs/tiny.py", "tiny.py"),
    ("configs/tiny", "tiny.py"),
    ("tiny.py", "tiny.py"),
    ("baselines/ijepa", "baselines/ijepa.py"),
    ("configs/baselines/ijepa.py", "baselines/ijepa.py"),
    (str(ROOT / "configs/tiny.py"), "tiny.py"),
])  # fmt: skip
def test_a_shipped_config_is_found_from_any_folder(elsewhere, word, file):
    assert locate.find(word).samefile(ROOT / "configs" / file)


@pytest.mark.parametrize("word", ["micro", "suites/micro", "configs/suites/micro.py"])
def test_a_shipped_suite_is_found_by_name(elsewhere, word):
    assert suites.load(word).name == "micro"


def test_ones_own_file_comes_before_a_shipped_one_of_that_path_and_a_name_before_a_file(elsewhere):
    (elsewhere / "configs").mkdir()
    for name in ("configs/tiny.py", "tiny.py", "tiny"):
        (elsewhere / name).write_text("")
    assert locate.find("configs/tiny.py") == pathlib.Path("configs/tiny.py")
    assert locate.find("tiny.py") == pathlib.Path("tiny.py")
    assert locate.find("tiny").samefile(ROOT / "configs/tiny.py")


@pytest.mark.parametrize("word, text", [
    ("tinny", "no shipped config of that name; did you mean 'tiny'"),
    ("ijepa", "did you mean 'baselines/ijepa'"),
    ("baselines/ijep", "did you mean 'baselines/ijepa'"),
    ("configs/tinny.py", "there is no such file; did you mean 'configs/tiny.py'"),
    ("configs/baseline/ijepa.py", "did you mean 'configs/baselines/ijepa.py'"),
    ("min.py", "did you mean 'mine.py'"),
    ("../tiny", "there is no such file"),
    ("configs", "there is no such file"),
    ("notes.txt", "must be a Python file"),
    ("__init__", "there is no such file"),
    ("", "there is no such file"),
])  # fmt: skip
def test_what_is_not_there_is_one_line_with_the_nearest(elsewhere, word, text):
    (elsewhere / "mine.py").write_text("")
    (elsewhere / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=rf"^--config={word}: [^\n]*{text}[^\n]*$"):
        locate.find(word)


def test_every_shipped_config_and_suite_has_a_name():
    files = {file.relative_to(ROOT / "configs") for file in (ROOT / "configs").rglob("*.py") if file.stem != "__init__"}
    assert {pathlib.Path(f"{name}.py") for name in locate.names()} == files
    for name in locate.names():
        module = importlib.import_module(locate.module_of(name))
        assert hasattr(module, "get_suite" if name.startswith("suites/") else "get_config"), name


@pytest.mark.parametrize("package", ["configs", "cjepa_jax.configs"])
def test_a_file_elsewhere_starts_from_a_shipped_config_under_both_names(elsewhere, package):
    """In a separate process, as the command line reads it. ml_collections reads the file a second time."""
    (elsewhere / "mine.py").write_text(OWN.format(package))
    argv = [sys.executable, "-c", READ, "--config", "mine.py", "--config.train.batch=3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.stdout == "12 runs/mine\n", done.stderr


def test_no_folder_that_shadows_the_standard_library_gets_onto_the_path(elsewhere):
    """The package has modules named types and signals: its own folder must never be searched for top-level ones."""
    for word in ("tiny", "configs/tiny.py"):
        locate.make_importable(locate.find(word))
    assert not any((pathlib.Path(folder) / "types.py").exists() for folder in sys.path if "python3" not in folder)


@pytest.mark.parametrize("argv", [
    ["x", "--config=tiny"],
    ["x", "--config", "tiny", "--tiny", "tiny"],
    ["x", "-config=tiny", "--workdir=tiny"],
])  # fmt: skip
def test_the_file_takes_the_names_place_on_the_command_line_and_nothing_else_changes(argv):
    changed = cli._with_file(argv, "tiny", pathlib.Path("/a b/tiny.py"))
    assert [one for one, other in zip(changed, argv, strict=True) if one != other] in (
        ["--config=/a b/tiny.py"], ["/a b/tiny.py"],
    )  # fmt: skip
    assert not any(text.endswith("tiny.py") for text in changed[3:])


def test_what_a_launched_job_is_told_does_not_depend_on_where_the_package_is(elsewhere, monkeypatch):
    (elsewhere / "mine.py").write_text("")
    tiny, mine = locate.find("tiny"), locate.find("mine.py")
    assert locate.portable(tiny, str(ROOT)) == "configs/tiny.py"
    assert locate.portable(mine, str(ROOT)) == str(elsewhere / "mine.py")
    monkeypatch.setattr(locate, "clone", lambda: None)  # as installed from a wheel
    assert locate.portable(tiny, str(elsewhere)) == "tiny"
    assert locate.portable(mine, str(elsewhere)) == "mine.py"


def test_launch_without_a_clone_tells_the_version_and_refuses_what_copies_one(elsewhere, monkeypatch):
    monkeypatch.setattr(locate, "clone", lambda: None)
    monkeypatch.setattr(launch_command, "ROOT", str(elsewhere))
    assert launch_command._code("slurm", False).startswith("cjepa_jax ")
    for kind in ("tpu", "sky"):
        with pytest.raises(ConfigError, match=f"launch {kind} copies a clone"):
            launch_command._code(kind, False)
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", *words], check=True, capture_output=True)
    assert (
        launch_command._code("slurm", False) == f"{git.commit('.', False)}, {launch_command._code('slurm', False)[42:]}"
    )
    (elsewhere / "new.py").write_text("")
    with pytest.raises(ConfigError, match="1 files differ"):
        launch_command._code("slurm", False)


def test_the_example_pictures_are_found_from_any_folder_and_ones_own_come_first(elsewhere):
    found = Folder(path="examples/folder", size=32)
    assert found.path == str(ROOT / "examples/folder") and len(found) == 12
    (elsewhere / "examples/folder").mkdir(parents=True)
    assert locate.example("examples/folder") == "examples/folder"
    assert locate.example("examples/other") == "examples/other"
