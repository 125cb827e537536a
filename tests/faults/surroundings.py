"""What surrounds a run: its path, locale, time zone, home, hash seed, and an output that is closed."""

import os
import pathlib
import subprocess

from tests import running
from tests.faults import kills, launch
from tests.faults.launch import ENVIRONMENT, command, differences
from tests.faults.record import Outcome

ODD = "a b; rm -rf ~ $HOME"
CASES = {  # variables to set (None: to take away), and the run folder's name
    "spaces and ; in the path": ({}, ODD),
    "no HOME": ({"HOME": None, "XDG_CACHE_HOME": None, "JAX_COMPILATION_CACHE_DIR": None}, "homeless"),
    "HOME cannot be written": ({"HOME": "/proc", "JAX_COMPILATION_CACHE_DIR": None}, "proc"),
    "a locale that is not UTF-8": ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "posix"),
    "output in Latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin"),
    "another time zone and hash seed": ({"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"}, "elsewhere"),
    "a path that is not ASCII": ({}, "\u00fc"),
    "the same in a locale without it": ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "\u00fc 2"),
    "all at once": (
        {"HOME": None, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "EST"},
        ODD + " all",
    ),
}  # fmt: skip


CLOSED = ("output closed from the start", "output closed by its reader")


def campaign(folder, cases=(*CASES, *CLOSED)):
    """A whole run in each surrounding: the same bits. Without an output: the same, or one line and then the same."""
    outcome, reference = Outcome("surroundings"), kills.undisturbed(folder)
    for case in cases:
        changes, name = CASES.get(case, ({}, case.replace(" ", "-")))
        workdir = pathlib.Path(folder, name)
        code, err = silent(workdir, case) if case in CLOSED else run(command(workdir), changes)
        found = [f"exit {code}: {err[-300:]!r}"] if "Traceback" in err or (code and case not in CLOSED) else []
        if code and not found:
            launch.run(command(workdir))
        found = found or differences(workdir, reference)
        outcome.add(case, found and f"{case}: {'; '.join(found)}")
    return outcome


def run(argv, changes):
    """(exit code, stderr) of the command in a changed environment."""
    environment = os.environ | ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": running.COMPILED} | changes
    environment = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(argv, cwd=running.ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    return done.returncode, done.stderr


def silent(workdir, how):
    """(exit code, stderr) of a run without an output."""
    argv = command(workdir)
    if how == CLOSED[0]:
        return run(["bash", "-c", 'exec "$@" >&-', "bash", *argv], {})
    process = running.start(argv)
    running.read_until(process, "step 2/")
    process.stdout.close()
    process.stdout = None  # communicate would read it
    err = process.communicate(timeout=1800)[1]
    return process.returncode, err
