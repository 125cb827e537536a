"""The steps of a launch: files to write, then commands to run. They can be shown as a bash script, or done."""

import dataclasses
import os
import pathlib
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from .job import LaunchError


@dataclasses.dataclass(frozen=True)
class File:
    """A text file to write. `mode` as for chmod."""

    path: str
    text: str
    mode: int = 0o644


@dataclasses.dataclass(frozen=True)
class Plan:
    """Files, then commands (argv lists), both relative to the folder `root`. `note`: a note for the reader."""

    root: str
    files: tuple[File, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    def script(self) -> str:
        """The plan as a bash script that does the same as `act`, unless its note says otherwise."""
        note = [f"# {line}" for line in self.note.splitlines()]
        steps = [*map(_write, self.files), *map(shlex.join, self.commands)]
        return "\n".join([*note, "set -e", "cd -- " + shlex.quote(self.root), *steps])

    def act(self, environment: Mapping[str, str] | None = None) -> None:
        """Writes the files and runs the commands, with `environment` added to this process's environment.

        Raises LaunchError for a command that is missing or fails.
        """
        self.write()
        for argv in self.commands:
            code = run(argv, self.root, environment)
            if code:
                raise LaunchError(f"{argv[0]} failed with exit code {code}")

    def write(self) -> None:
        """Writes the files, each in a folder that is made for it."""
        for file in self.files:
            path = pathlib.Path(self.root, file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, newline="")
            path.chmod(file.mode)


def run(argv: Sequence[str], root: str, environment: Mapping[str, str] | None = None) -> int:
    """The command's exit code. Raises LaunchError if there is no such command."""
    try:
        return subprocess.run(argv, cwd=root, env=os.environ | (environment or {})).returncode
    except FileNotFoundError as error:
        raise LaunchError(f"{argv[0]}: there is no such command on this machine") from error
    except OSError as error:
        raise LaunchError(f"{argv[0]}: cannot be run ({error.strerror})") from error


def run_all(commands: Sequence[Sequence[str]], root: str) -> list[int]:
    """Runs all commands at the same time. Returns their exit codes."""
    started = [subprocess.Popen(argv, cwd=root) for argv in commands]
    try:
        return [process.wait() for process in started]
    finally:
        for process in started:
            process.kill()


def _write(file: File) -> str:
    end = "END"
    while end in file.text.split("\n"):
        end += "_"
    path = shlex.quote(file.path)
    lines = [
        f"mkdir -p -- {shlex.quote(os.path.dirname(file.path) or '.')}",
        f"cat > {path} <<'{end}'",
        file.text + end,
        f"chmod {file.mode:o} -- {path}",
    ]
    return "\n".join(lines)
