"""A job: what runs, where, and with which resources. One description for all clusters."""

import dataclasses
import os
import pathlib
import re
import sys

from cjepa_jax.configuration import locate
from cjepa_jax.errors import CjepaError, ConfigError
from cjepa_jax.runtime import run_manifest

ROOT = str(locate.clone() or pathlib.Path.cwd())  # the clone, or with a wheel the folder that the command is run in
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
SECRET = re.compile(f"{run_manifest.SECRET.pattern}|PASS", re.IGNORECASE)  # of a name
LOGIN = re.compile(r"//[^/\s@]*@")  # in a value: an address with a password in it
MEMORY = re.compile(r"\d+[KMGT]?", re.ASCII)
TIME = re.compile(r"(\d+-)?\d{1,3}:\d\d:\d\d", re.ASCII)


class LaunchError(CjepaError):
    """A cluster's command failed, or a cluster did not provide the requested machines."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A training run and the machines for it.

    Attributes:
      name: of the job, as every cluster accepts it: small letters, digits and hyphens, at most 63.
      config, workdir, overrides: as for `python -m cjepa_jax.train`. `overrides` are (key, value) without `--config.`.
      nodes, processes, gpus: machines, processes on each (1, or one per GPU), GPUs of each.
      cpus: per process. memory: per node, such as "64G" ("": the cluster's default).
      time: limit of one part of the run, H:MM:SS or D-HH:MM:SS. restarts: most further parts.
      container: image that the command runs in ("" for none).
      environment: names of variables that the run needs. Their values are shown, so they must not be secrets.
      secrets: file of NAME=value lines, readable only by its owner, whose values are never shown ("" for none).
      python, root: the interpreter and the folder that the command runs in, the clone if there is one, as the machines
        see them. commit: what is checked out there.

    Raises ConfigError for a value that a cluster could misread.
    """

    name: str
    config: str
    workdir: str
    overrides: tuple[tuple[str, str], ...] = ()
    nodes: int = 1
    processes: int = 1
    gpus: int = 0
    cpus: int = 4
    memory: str = ""
    time: str = "24:00:00"
    restarts: int = 20
    container: str = ""
    environment: tuple[str, ...] = ()
    secrets: str = ""
    python: str = sys.executable
    root: str = ROOT
    commit: str = "unknown"

    def __post_init__(self):
        require("name", self.name, NAME, "1 to 63 of a-z, 0-9 and -, a letter first, no - at the end")
        require("time", self.time, TIME, "H:MM:SS or D-HH:MM:SS")
        if self.memory:
            require("memory", self.memory, MEMORY, "a whole number and K, M, G or T")
        for key, _ in self.overrides:
            require("config.", key, KEY, "names joined by dots")
        for name in self.environment:
            require("environment", name, VARIABLE, "a variable's name")
            if SECRET.search(name) or LOGIN.search(os.environ.get(name, "")):
                raise ConfigError(f"--environment={name}: would be shown. Put it into the file that --secrets names")
            if name not in os.environ:
                raise ConfigError(f"--environment={name}: is not set here")
        for field, least in (("nodes", 1), ("processes", 1), ("cpus", 1), ("gpus", 0), ("restarts", 0)):
            if getattr(self, field) < least:
                raise ConfigError(f"--{field}={getattr(self, field)}: must be at least {least}")
        if self.processes > 1 and self.gpus not in (0, self.processes):
            raise ConfigError(f"--processes={self.processes}: must be 1, or --gpus ({self.gpus}), one for each GPU")
        for field in ("config", "workdir"):
            if not getattr(self, field):
                raise ConfigError(f"--{field} is missing")
        for text in (*self.command(), self.container, self.secrets, self.root):
            require_text(text)

    def command(self) -> list[str]:
        """argv of one process of the run. The same command starts and resumes it."""
        overrides = [f"--config.{key}={value}" for key, value in self.overrides]
        return [
            self.python,
            "-m",
            "cjepa_jax.train",
            f"--config={self.config}",
            f"--workdir={self.workdir}",
            *overrides,
        ]


def require(field: str, value: str, pattern: re.Pattern, wanted: str) -> None:
    """Raises ConfigError, one line, unless all of `value` has the pattern."""
    if not pattern.fullmatch(value):
        raise ConfigError(f"--{field}={value!r}: must be {wanted}")


def require_text(text: str) -> None:
    """Raises ConfigError for a text that no command line can carry: with a NUL, or not UTF-8."""
    try:
        bad = b"\0" in text.encode()
    except UnicodeEncodeError:
        bad = True
    if bad:
        raise ConfigError(f"{text!r}: has a NUL or bytes that are not UTF-8 in it")
