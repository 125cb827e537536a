"""Puts a training run onto a cluster.

    python -m launch slurm --config=configs/tiny.py --workdir=/shared/runs/try [--config.a.b=value ...]
    python -m launch sweep --config=... --workdir=... --vary=seed=0,1,2
    python -m launch tpu   --config=... --workdir=... --project=... --zone=... --type=v5litepod-16
    python -m launch sky   --config=... --workdir=... --bucket=gs://... --accelerators=H100:8

shows what it would do, as a bash script, and changes nothing. With --submit it does it. The name of the job is the last
part of --workdir, or --name. A checkout that differs from its last commit is refused, or launched with --allow-dirty.
"""

import argparse
import dataclasses
import inspect
import os
import re
import shlex
import sys
from collections.abc import Sequence

import cjepa_jax
from cjepa_jax import cli
from cjepa_jax.configuration import locate
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import paths

from . import git, secrets, sky, slurm, sweep, tpu
from .job import NAME, ROOT, Job

KINDS = {"slurm": slurm.Slurm, "sweep": sweep.Sweep, "tpu": tpu.Tpu, "sky": sky.Sky}
PYTHON = {"tpu": tpu.PYTHON, "sky": sky.PYTHON}
UNUSED = {  # of Job's fields, by the launchers that do not support them
    "slurm": (),
    "sweep": ("container", "environment"),
    "tpu": ("nodes", "processes", "gpus", "cpus", "memory", "time", "restarts", "container"),
    "sky": ("processes", "gpus", "time", "restarts"),
}
NOT_FLAGS = ("overrides", "root", "commit", "config", "workdir", "name", "python")


def main(argv: Sequence[str]) -> int:
    """Runs the command line. Raises ConfigError and LaunchError."""
    kind = argv[0] if argv else "-h"
    if kind in ("-h", "--help"):
        print(__doc__)
        return 0
    if kind not in KINDS:
        raise ConfigError(f"{kind}: must be one of {', '.join(KINDS)}")
    overrides = tuple(map(_override, (word for word in argv[1:] if word.startswith("--config."))))
    given = _parser(kind).parse_args([word for word in argv[1:] if not word.startswith("--config.")])
    where = KINDS[kind](**_fields(KINDS[kind], given))
    job = _job(kind, given, overrides)
    _check(given.config, sweep.members(job, where) if kind == "sweep" else [job])
    if given.submit:
        return _submit(kind, job, where)
    print(_shown(kind, job, where))
    print("nothing was done. --submit does it", file=sys.stderr)
    return 0


def _submit(kind: str, job: Job, where) -> int:
    if kind == "tpu":
        return tpu.submit(job, where)
    if kind == "sweep":
        print("\n".join(sweep.submit(job, where)))
    elif kind == "slurm":
        slurm.plan(job, where).act()
        print(f"log: {job.workdir}/slurm/{job.name}-JOBID.log")
    else:
        sky.plan(job, where).act(secrets.read(job.secrets) if job.secrets else None)
    return 0


def _shown(kind: str, job: Job, where) -> str:
    if kind != "sweep":
        return KIND_PLANS[kind](job, where).script()
    parameters = "\n".join(f"#   {name} = {value!r}" for name, value in sweep.parameters(job, where).items())
    commands = [shlex.join(member.command()) for member in sweep.members(job, where)]
    return "\n".join(
        ["# submitit, a job array of these, with", parameters, f"cd -- {shlex.quote(job.root)} || exit", *commands]
    )


KIND_PLANS = {"slurm": slurm.plan, "tpu": tpu.plan, "sky": sky.plan}


def _parser(kind: str) -> argparse.ArgumentParser:
    described = "\n\n".join([inspect.cleandoc(Job.__doc__), inspect.cleandoc(KINDS[kind].__doc__)])
    parser = cli.Parser(
        prog=f"python -m launch {kind}",
        allow_abbrev=False,
        description=described,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("config", "workdir", "name", "python"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--submit", action="store_true", help="does it. Without, it is only shown")
    parser.add_argument("--dry-run", action="store_true", help="the default")
    parser.add_argument("--allow-dirty", action="store_true", help="although files differ from the last commit")
    for field in (*dataclasses.fields(Job), *dataclasses.fields(KINDS[kind])):
        flag = "--" + field.name.rstrip("s") if field.name in ("options",) else f"--{field.name}"
        if field.name in (*NOT_FLAGS, *UNUSED[kind]):
            continue
        if isinstance(field.default, tuple):
            parser.add_argument(flag, dest=field.name, action="append", default=[], help="may be repeated")
        elif isinstance(field.default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default)
    return parser


def _fields(cls: type, given: argparse.Namespace) -> dict:
    """The values of a dataclass's fields on the command line."""
    parsed = {}
    for field in dataclasses.fields(cls):
        if field.name in NOT_FLAGS or field.name not in given:
            continue
        value = getattr(given, field.name)
        if field.name == "options":
            value = tuple((name, text) for name, _, text in (word.partition("=") for word in value))
        elif field.name == "vary":
            value = tuple((key, sweep.values(text)) for key, _, text in (word.partition("=") for word in value))
        parsed[field.name] = tuple(value) if isinstance(value, list) else value
    return parsed


def _job(kind: str, given: argparse.Namespace, overrides: tuple[tuple[str, str], ...]) -> Job:
    fields = _fields(Job, given)
    for flag, path in (("secrets", fields["secrets"]), ("workdir", given.workdir)):
        if path:
            paths.given(path, f"--{flag}")
    if fields["secrets"]:
        fields["secrets"] = os.path.abspath(fields["secrets"])
        secrets.read(fields["secrets"])  # refused before the job is queued
    if not given.config or not given.workdir:
        raise ConfigError(f"--{'workdir' if given.config else 'config'} is missing")
    config = locate.portable(locate.find(given.config), ROOT)
    here = kind in ("slurm", "sweep")  # the machines see this file system
    if given.submit and given.dry_run:
        raise ConfigError("--submit and --dry-run exclude each other")
    return Job(
        name=given.name or _name(given.workdir),
        config=config,
        workdir=os.path.abspath(given.workdir) if here else given.workdir,
        overrides=overrides,
        python=given.python or PYTHON.get(kind) or ("python3" if fields.get("container") else sys.executable),
        commit=_code(kind, given.allow_dirty),
        **fields,
    )


def _code(kind: str, allow_dirty: bool) -> str:
    """The code that will run: the clone's commit, or the version of the installed wheel and the commit of the
    folder."""
    if locate.clone():
        return git.commit(ROOT, allow_dirty)
    if kind in ("tpu", "sky"):
        raise ConfigError(f"launch {kind} copies a clone to the machines: run it in one, not from an installed wheel")
    installed = f"cjepa_jax {cjepa_jax.__version__} as installed"
    return f"{git.commit(ROOT, allow_dirty)}, {installed}" if git.is_repository(ROOT) else installed


def _name(workdir: str) -> str:
    name = os.path.basename(os.path.normpath(workdir))
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--name is missing: {name!r}, the end of --workdir, is not a name (a-z, 0-9 and -, a letter first)"
        )
    return name


def _override(word: str) -> tuple[str, str]:
    match = re.fullmatch(r"--config\.([^=]*)=(.*)", word, re.DOTALL)
    if not match:
        raise ConfigError(f"{word}: write --config.key=value")
    return match[1], match[2]


def _check(config: str, jobs: Sequence[Job]) -> None:
    """Checks that the trainer accepts the config and the overrides, before the job waits in the queue."""
    before = sys.argv
    for member in jobs:
        # ml_collections reads the overrides from sys.argv itself.
        sys.argv = ["launch", f"--config={config}", *(f"--config.{key}={value}" for key, value in member.overrides)]
        try:
            cli.parse(sys.argv)
        finally:
            sys.argv = before


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
