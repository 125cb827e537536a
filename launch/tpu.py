"""Cloud TPU by gcloud's queued resources: wait for the machines, run, and ask again when they are taken away."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable

from cjepa_jax.errors import PREEMPTED, ConfigError, PeerError

from . import git, secrets
from .job import Job, LaunchError, require
from .plan import File, Plan, run, run_all

PYTHON = "../venv/bin/python"  # from the code's folder, ~/cjepa/code
MOUNT = "/mnt/runs"
SECRETS = "cjepa-secrets"  # the file's name on the machines
NOTE = """Not a script to paste, but the steps of a run without incidents: --submit waits for the machines before it
copies, takes changed files along if they are allowed, and asks again when the machines are taken away."""
WORD = re.compile(r"[a-z0-9][-a-z0-9.:]{0,99}", re.ASCII)
SHARE = re.compile(r"[\w.-]+:/[-\w./]*", re.ASCII)
SSH_LOST = 255  # ssh's exit code, never the trainer's
SURVIVORS = (1, PeerError.exit_code)  # gcloud's and the trainer's, if another machine is taken away
LOST = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING")


@dataclasses.dataclass(frozen=True)
class Tpu:
    """Options of Cloud TPU.

    Attributes:
      project, zone, type, runtime: as in gcloud, such as "v5litepod-16" and "tpu-ubuntu2204-base".
      slices: number of TPUs of that type that work together. spot: machines that may be taken away at any time.
      share: an NFS share, SERVER:/PATH, mounted at /mnt/runs, for the run's folder. A TPU's own disk is deleted with
      it.
      recreate: how often machines that were taken away are requested again. patience: hours to wait for them each time.
      autodelete: whether the machines are deleted when the run ends, in every case.
    """

    project: str = ""
    zone: str = ""
    type: str = ""
    runtime: str = "tpu-ubuntu2204-base"
    slices: int = 1
    spot: bool = False
    share: str = ""
    recreate: int = 10
    patience: float = 24.0
    autodelete: bool = False

    def __post_init__(self):
        for field in ("project", "zone", "type", "runtime"):
            require(field, getattr(self, field), WORD, "a name, as gcloud has it")
        if self.share:
            require("share", self.share, SHARE, "an NFS share, SERVER:/PATH")
        if self.spot and not self.share:
            raise ConfigError("--spot needs --share: what is on a TPU's own disk goes with it")
        for field, least in (("slices", 1), ("recreate", 0), ("patience", 0)):
            if getattr(self, field) < least:
                raise ConfigError(f"--{field}={getattr(self, field)}: must be at least {least}")


class Commands:
    """argv of every command for one job."""

    def __init__(self, job: Job, tpu: Tpu):
        self.job, self.tpu = job, tpu
        self.folder = f"runs/launch/{job.name}"  # in the checkout (gcloud could not read every absolute path)
        self.nodes = [f"{job.name}-{i}" for i in range(tpu.slices)] if tpu.slices > 1 else [job.name]
        self._where = (f"--project={tpu.project}", f"--zone={tpu.zone}")

    def create(self) -> tuple[str, ...]:
        several = (f"--node-count={self.tpu.slices}", f"--node-prefix={self.job.name}")
        return (
            *self._resource("create"),
            f"--accelerator-type={self.tpu.type}",
            f"--runtime-version={self.tpu.runtime}",
            *(several if self.tpu.slices > 1 else (f"--node-id={self.job.name}",)),
            *(("--spot",) if self.tpu.spot else ()),
            f"--metadata-from-file=startup-script={self.folder}/startup.sh",
            "--async",
        )

    def describe(self) -> tuple[str, ...]:
        return (*self._resource("describe"), "--format=json")

    def delete(self) -> tuple[str, ...]:
        return (*self._resource("delete"), "--force", "--quiet")

    def copy(self, node: str) -> list[tuple[str, ...]]:
        def scp(to: str, *files: str) -> tuple[str, ...]:
            return (*self._machine("scp"), *files, f"{node}:{to}", *self._where, "--worker=all")

        copies = [scp("", f"{self.folder}/start.sh", f"{self.folder}/code.tar.gz")]
        return copies + ([scp(SECRETS, self.job.secrets)] if self.job.secrets else [])

    def start(self, node: str) -> tuple[str, ...]:
        return (*self._machine("ssh"), node, *self._where, "--worker=all", "--command=bash start.sh")

    def _resource(self, verb: str) -> tuple[str, ...]:
        return ("gcloud", "compute", "tpus", "queued-resources", verb, self.job.name, *self._where)

    def _machine(self, verb: str) -> tuple[str, ...]:
        return ("gcloud", "compute", "tpus", "tpu-vm", verb)


def plan(job: Job, tpu: Tpu) -> Plan:
    """The commands of a run without incidents, in order. `submit` waits and repeats if necessary."""
    commands, nodes = Commands(job, tpu), Commands(job, tpu).nodes
    if os.path.isabs(job.config):
        raise ConfigError(f"--config={job.config}: is not in the checkout that is copied to the TPU")
    if tpu.share and not os.path.normpath(job.workdir).startswith(MOUNT + "/"):
        raise ConfigError(f"--workdir={job.workdir}: must be below {MOUNT}, where --share is mounted")
    if re.search("[:\n]", job.secrets):
        raise ConfigError(f"--secrets={job.secrets!r}: gcloud cannot copy a file with ':' in its path")
    files = (File(f"{commands.folder}/startup.sh", startup(tpu)), File(f"{commands.folder}/start.sh", start(job, tpu)))
    archive = ("git", "archive", "--format=tar.gz", f"--output={commands.folder}/code.tar.gz", "HEAD")
    copies = [argv for node in nodes for argv in commands.copy(node)]
    steps = [archive, commands.create(), commands.describe(), *copies, *map(commands.start, nodes)]
    return Plan(job.root, files, (*steps, *([commands.delete()] if tpu.autodelete else [])), NOTE)


def submit(job: Job, tpu: Tpu, sleep: Callable[[float], None] = time.sleep) -> int:
    """Runs the job to its end on machines that may be taken away. Returns the trainer's exit code.

    Raises LaunchError when the machines were taken away, or did not come, more often than `recreate`.
    """
    commands = Commands(job, tpu)
    plan(job, tpu).write()
    git.archive(job.root, f"{commands.folder}/code.tar.gz")
    try:
        created = False
        for _ in range(1 + tpu.recreate):
            if not created and run(commands.create(), job.root):
                raise LaunchError("gcloud refused the request, see above")
            created = True
            if _wait(commands, sleep) == "ACTIVE":
                code = _run(commands)
                if code not in (PREEMPTED, SSH_LOST, *SURVIVORS):
                    return code
                sleep(60)  # a machine that is taken away may be reported as ACTIVE for a while
                if _state(commands) == "ACTIVE":
                    if code in SURVIVORS:
                        return code
                    continue
            run(commands.delete(), job.root)
            created = False
        raise LaunchError(f"{job.name}: given up after {1 + tpu.recreate} attempts. The same command resumes")
    finally:
        if tpu.autodelete:
            run(commands.delete(), job.root)
        else:
            print(f"to delete the machines: {shlex.join(commands.delete())}")


def _wait(commands: Commands, sleep: Callable[[float], None]) -> str:
    """Polls at growing intervals until the request is ACTIVE or lost, or `patience` hours are over ("WAITING")."""
    waited, pause = 0.0, 5.0
    while waited < commands.tpu.patience * 3600:
        state = _state(commands)
        if state == "ACTIVE" or state in LOST:
            return state
        sleep(pause)
        waited, pause = waited + pause, min(60.0, 1.5 * pause)
    return "WAITING"


def _state(commands: Commands) -> str:
    shown = subprocess.run(commands.describe(), cwd=commands.job.root, capture_output=True, text=True)
    try:
        return json.loads(shown.stdout)["state"]["state"] if shown.returncode == 0 else "UNKNOWN"
    except (ValueError, KeyError, TypeError):
        return "UNKNOWN"  # does not exist yet, or has another format


def _run(commands: Commands) -> int:
    """Copies the code, starts all slices at once, and waits. Returns 0, 75 if all failures have this code, or another
    failure's code."""
    for node in commands.nodes:
        for argv in commands.copy(node):
            code = run(argv, commands.job.root)
            if code:
                return code
    codes = {code for code in run_all([commands.start(node) for node in commands.nodes], commands.job.root) if code}
    return max(codes - {PREEMPTED}, default=max(codes, default=0))


def startup(tpu: Tpu) -> str:
    """The script that root runs when a machine starts: Python, and the share with the runs."""
    packages = "python3.11 python3.11-venv psmisc" + (" nfs-common" if tpu.share else "")
    mount = [f"mkdir -p {MOUNT}", f"mountpoint -q {MOUNT} || mount -t nfs {tpu.share} {MOUNT}"] if tpu.share else []
    lines = ["#!/bin/bash", "export DEBIAN_FRONTEND=noninteractive", f"apt-get update && apt-get install -y {packages}"]
    return "\n".join([*lines, *mount, "touch /var/tmp/cjepa-ready"]) + "\n"


END_THE_OLD = (
    "# Where the connection was lost, the trainer may still be there: it saves and ends, before its code goes away.",
    'alive() { grep -Eqs "cjepa_jax.train|start.sh" "/proc/${old:-none}/cmdline"; }',
    'old=$(cat "$HOME/cjepa.pid" 2>/dev/null)',
    'echo $$ > "$HOME/cjepa.pid"  # exec below keeps it',
    'alive && kill "$old" && for i in $(seq 300); do alive || break; sleep 1; done',
    'alive && kill -KILL "$old"',
)


def start(job: Job, tpu: Tpu) -> str:
    """The script of every worker: the code in its environment, then the trainer. JAX finds the other workers."""
    kept = f'"$HOME"/{SECRETS}'
    lines = [
        "#!/bin/bash",
        f"# {job.name}, commit {job.commit}",
        "set -u",
        *([*secrets.exporting(kept), f"rm -f -- {kept}"] if job.secrets else ()),
        *END_THE_OLD,
        "for i in $(seq 120); do [ -e /var/tmp/cjepa-ready ] && break; sleep 5; done",
        *([f"mountpoint -q {MOUNT} || {{ echo 'error: {MOUNT} is not mounted' >&2; exit 1; }}"] if tpu.share else []),
        "# A process that was killed leaves libtpu's lock behind.",
        "sudo fuser -s /tmp/libtpu_lockfile || sudo rm -f /tmp/libtpu_lockfile",
        'rm -rf "$HOME/cjepa" && mkdir -p "$HOME/cjepa/code" && cd "$HOME/cjepa/code" || exit 1',
        'tar -xzf "$HOME/code.tar.gz" || exit 1',
        "python3.11 -m venv ../venv && ../venv/bin/pip install -q -e . 'jax[tpu]' || exit 1",
        *(f"export {name}={shlex.quote(os.environ[name])}" for name in job.environment),
        "export PYTHONUNBUFFERED=1",
        f"exec {shlex.join(job.command())}",
    ]
    return "\n".join(lines) + "\n"
