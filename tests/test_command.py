"""The command cjepa: the same as `python -m`, under one name."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from cjepa_jax import __version__
from cjepa_jax.errors import ConfigError
from cjepa_jax.runtime import command

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = (
    "import sys\nfrom cjepa_jax.runtime.command import script\nif __name__ == '__main__':\n    sys.exit(script())\n"
)


@pytest.fixture(scope="module")
def cjepa(tmp_path_factory):
    """Runs the console script as pip writes it, away from the clone. And the same by `python -m`."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "cjepa").write_text(SCRIPT)
    here = folder / "here"
    here.mkdir()

    def run(*arguments, module=None, **variables):
        start = ["-m", module] if module else [str(folder / "cjepa")]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
        argv = [sys.executable, *start, *arguments]
        return subprocess.run(argv, cwd=here, capture_output=True, text=True, env=environment)

    run.here = here
    return run


def test_every_command_is_a_module_that_can_be_run():
    for module, _ in command.COMMANDS.values():
        file = ROOT.joinpath(*module.replace("cjepa_jax.launch", "launch").split("."))
        file = file / "__main__.py" if file.is_dir() else file.with_suffix(".py")
        guards = [ast.unparse(node.test) for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
        assert "__name__ == '__main__'" in guards, module


@pytest.mark.parametrize("argv, words", [
    (["train", "--config=tiny"], "train"),
    (["data", "show", "--out=x.png"], "data show"),
    (["data", "inspect", "--out=x"], "data inspect"),
    (["launch", "slurm", "-h"], "launch"),
    (["train", "evaluate"], "train"),
])  # fmt: skip
def test_the_words_of_a_command(argv, words):
    assert command.split(argv) == words


@pytest.mark.parametrize("argv, text", [
    (["trian"], "trian: there is no such command; did you mean 'train'?"),
    (["data", "buld", "--out=x"], "data buld: there is no such command; did you mean 'data build'?"),
    (["data"], "data: must be followed by build or inspect or show or segment or bench"),
    (["data", "--help"], "data: must be followed by"),
    (["--config=tiny"], "--config=tiny: there is no such command"),
])  # fmt: skip
def test_what_is_no_command_is_one_line_with_the_nearest(argv, text, capsys):
    with pytest.raises(ConfigError):
        command.split(argv)
    assert command.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: {text}") and captured.err.count("\n") == 1


def test_help_and_version_import_nothing_heavy(capsys):
    assert command.main([]) == command.main(["--help"]) == command.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in command.COMMANDS) and out.endswith(f"cjepa_jax {__version__}\n")
    tree = ast.parse(pathlib.Path(command.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("cjepa_jax")} == {"cjepa_jax", "cjepa_jax.errors"}


@pytest.mark.parametrize("words, module", [
    (["train", "--config=tinny"], "cjepa_jax.train"),
    (["train", "--config=tiny", "--config.data.size=64"], "cjepa_jax.train"),
    (["doctor", "nowhere"], "cjepa_jax.doctor"),
    (["launch", "slurm", "--config=tiny"], "cjepa_jax.launch"),
])  # fmt: skip
def test_error_lines_and_exit_codes_are_those_of_the_module(cjepa, words, module):
    one, other = cjepa(*words), cjepa(*words[1:], module=module)
    assert one.stderr == other.stderr and one.returncode == other.returncode != 0
    assert one.stderr.startswith("error: ") and one.stderr.count("\n") == 1


def test_a_command_starts_again_with_huge_pages_spawns_and_imports_from_the_working_directory(cjepa):
    """`data show` of a world in the working directory, which tells what its process and a child of it are like."""
    here = cjepa.here
    (here / "child.py").write_text("import sys\ndef tell():\n    print('child', 'jax' in sys.modules, flush=True)\n")
    (here / "mine.py").write_text(
        "import child, multiprocessing, os\nfrom cjepa_jax.data.worlds import Balls as Mine\n"
        "print('tunables', os.environ.get('GLIBC_TUNABLES', '')[:5], flush=True)\n"
        "process = multiprocessing.get_context('spawn').Process(target=child.tell)\n"
        "process.start(); process.join(); print('ended', process.exitcode, flush=True)\n"
    )
    done = cjepa("data", "show", "--config=worlds/balls", "--config.data.source=mine:Mine", "--scenes=1", "--out=a.png")
    assert done.returncode == 0, done.stderr
    glibc = " glibc" if sys.platform == "linux" else " "
    assert done.stdout.splitlines()[:3] == [f"tunables{glibc}", "child False", "ended 0"], done.stderr
    assert (here / "a.png").exists()
