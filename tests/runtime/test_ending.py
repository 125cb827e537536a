"""How a command ends: every fault of the machine or of a path is one line and an exit code, no traceback."""

import errno
import os
import re
import subprocess
import sys

import pytest

from cjepa_jax import doctor
from cjepa_jax.compare import __main__ as compare
from cjepa_jax.data import build, inspect, segment
from cjepa_jax.errors import ConfigError, StorageError
from cjepa_jax.export import __main__ as export
from cjepa_jax.reports import training
from cjepa_jax.runtime import ending
from configs import folder
from tests.running import ROOT

LONG = "x" * 5000


def refuse(constant):
    raise constant


@pytest.mark.parametrize(
    "error, code, text",
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", LONG), 2, r"x{200}... \(5000 letters\): File name too long"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b: Not a directory"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x"), 2, "/x: Permission denied"),
        (MemoryError(), 2, "not enough memory: MemoryError"),
        (MemoryError("Unable to allocate 14.6 TiB"), 2, "not enough memory: Unable to allocate 14.6 TiB"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
            2,
            "not enough memory: RESOURCE_EXHAUS",
        ),
        (OSError(errno.ENOSPC, "No space left", "/proc/x"), 6, r"cannot write: .*; the file system /proc \(proc, "),
        (OSError(errno.EIO, "Input/output error", "/proc/x"), 6, "cannot write: .*Input/output error.*the file system"),
        (OSError(errno.ESTALE, "Stale file handle"), 6, "cannot write: .*Stale file handle"),
    ],
)
def test_what_the_machine_says_is_one_line(error, code, text, capsys):
    assert ending.guard(lambda: refuse(error)) == code
    err = capsys.readouterr().err
    assert re.match(f"error: {text}", err) and err.count("\n") == 1, err


@pytest.mark.parametrize("error", [OSError("no number"), ZeroDivisionError("a mistake"), RuntimeError("a mistake")])
def test_a_mistake_in_the_program_keeps_its_traceback(error, caplog):
    assert ending.guard(lambda: refuse(error)) == 1
    assert "Traceback" in caplog.text


def test_a_working_directory_that_was_deleted_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os, sys\nfrom cjepa_jax.runtime import command\nos.rmdir(os.getcwd())\n"
    code += "sys.argv = ['cjepa', 'doctor', 'run']\nsys.exit(command.script())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "gone", env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    text = "error: the working directory has been deleted: change into another one\n"
    assert (done.returncode, done.stderr) == (2, text)


def test_output_that_nobody_reads_is_one_line():
    work = "lambda: [print('x' * 9999) for _ in range(99)]"
    code = f"from cjepa_jax.runtime import ending\nraise SystemExit(ending.guard({work}))"
    command = f'{sys.executable} -c "{code}" | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: whoever read the output has closed it\n")


COMMANDS = {
    "export": (export.main, ["--checkpoint=PLACE", "--out=OUT"]),
    "export to": (export.main, ["--checkpoint=RUN", "--out=PLACE"]),
    "doctor": (doctor.main, ["PLACE"]),
    "doctor --diff": (doctor.main, ["RUN", "--diff=PLACE"]),
    "report": (training.main, ["--workdir=PLACE"]),
    "build": (build.main, ["--world=balls", "--count=2", "--frames=1", "--out=PLACE"]),
    "verify": (build.main, ["--out=PLACE", "--verify"]),
    "inspect": (
        lambda words: inspect.inspect(folder.get_config(), words[0].removeprefix("--out="), ["train"], 1),
        ["--out=PLACE"],
    ),
    "segment": (segment.main, ["--images=PLACE", "--backend=slic", "--out=OUT"]),
    "segment to": (segment.main, ["--images=examples/folder", "--backend=slic", "--out=PLACE"]),
    "compare": (compare.main, ["--suite=PLACE", "--workdir=OUT"]),
    "compare in": (compare.main, ["--suite=configs/suites/micro.py", "--workdir=PLACE", "--phase=table"]),
    "compare by": (
        compare.main,
        ["--suite=configs/suites/micro.py", "--workdir=OUT", "--records=PLACE", "--phase=table"],
    ),
}
PLACES = {
    "nothing": "",
    "a long name": LONG,
    "a long path": "a/" * 3000,
    "an unknown home": "~nobody-of-this-name/run",
    "below a file": "FILE/below",
    "a file": "FILE",
    "proc": "/proc/x",
    "a device": "/dev/null",
    "below a device": "/dev/null/x",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_cannot_be_used_is_one_line_of_every_command(command, place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cjepa_jax.cli.set_up_logging", lambda level: None)
    monkeypatch.setattr("cjepa_jax.cli.keep_compiled_code", lambda: None)
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    where = PLACES[place].replace("FILE", str(tmp_path / "file"))
    main, words = COMMANDS[command]
    for name, value in (("PLACE", where), ("RUN", str(tmp_path / "run")), ("OUT", str(tmp_path / "out"))):
        words = [word.replace(name, value) for word in words]
    code = main(words) if command == "report" else ending.guard(lambda: main(words))
    err = capsys.readouterr().err
    assert code in (2, 3, 4, 6), err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 900, err
    assert sorted(os.listdir(tmp_path)) in (["file", "run"], ["file", "out", "run"])


@pytest.mark.parametrize("options", ["[" * 9000, "{" * 9000, "null", "9" * 5000, '{"objects": "' + LONG + '"}'])
def test_options_that_are_none_are_one_line(options, tmp_path):
    with pytest.raises(ConfigError) as caught:
        build.main(["--world=balls", "--count=2", f"--options={options}", f"--out={tmp_path / 'b'}", "--log=warning"])
    assert "\n" not in str(caught.value)


def test_storage_errors_say_where(tmp_path):
    error = ending.storage_error(RuntimeError("No space left on device (/proc/self/x)"))
    assert isinstance(error, StorageError) and "the file system /proc" in str(error)
    assert ending.storage_error(ValueError("nothing of the kind")) is None
