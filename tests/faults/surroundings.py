"""What surrounds a run: its path, locale, time zone, home, hash seed, and an output that is closed."""

import os
import pathlib
import subprocess

from tests import running
from tests.faults import kills
from tests.faults.launch import ENVIRONMENT, command, differences
from tests.faults.record import Outcome

ODD = 'a b; rm -rf ~ \'"$HOME" \u00fc'
CASES = {  # variables to set (None: to take away), and the run folder's name
    "spaces and ; in the path": ({}, ODD),
    "no HOME": ({"HOME": None, "XDG_CACHE_HOME": None, "JAX_COMPILATION_CACHE_DIR": None}, "homeless"),
    "HOME cannot be written": ({"HOME": "/proc", "JAX_COMPILATION_CACHE_DIR": None}, "proc"),
    "a locale that is not UTF-8": ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "posix"),
    "output in Latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin"),
    "another time zone and hash seed": ({"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"}, "elsewhere"),
    "all at once": (
        {"HOME": None, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "EST"},
        ODD + " all",
    ),
}  # fmt: skip


def campaign(folder, cases=tuple(CASES)):
    """A whole run in each surrounding: the same bits."""
    outcome, reference = Outcome("surroundings"), kills.undisturbed(folder)
    for case in cases:
        changes, name = CASES[case]
        workdir = pathlib.Path(folder, name)
        done = run(command(workdir), changes)
        found = differences(workdir, reference) if done.returncode == 0 else [f"exit {done.returncode}: {done.stderr}"]
        outcome.add(case, found and f"{case}: {'; '.join(found)}")
    return outcome


def run(argv, changes, **options):
    """The command in a changed environment."""
    environment = os.environ | ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": running.COMPILED.name} | changes
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        argv, cwd=running.ROOT, env=environment, capture_output=True, text=True, timeout=1800, **options
    )


def closed_output(workdir, how):
    """(exit code, stderr) of a run whose stdout is closed from the start ("closed"), or by its reader ("pipe")."""
    argv = command(workdir)
    if how == "closed":
        done = run(["bash", "-c", 'exec "$@" >&-', "bash", *argv], {})
        return done.returncode, done.stderr
    process = running.start(argv)
    running.read_until(process, "step 2/")
    process.stdout.close()
    process.stdout = None  # communicate would read it
    err = process.communicate(timeout=240)[1]
    return process.returncode, err
