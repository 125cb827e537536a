"""SkyPilot: one YAML file for every supported cloud. Its managed jobs replace machines that were taken away."""

import dataclasses
import os
import re
import shlex
from typing import Any

import yaml

from cjepa_jax.errors import PREEMPTED, ConfigError

from . import secrets
from .job import Job, require
from .plan import File, Plan

PYTHON = "../cjepa/bin/python"  # seen from the code's folder, ~/sky_workdir
BUCKET = re.compile(r"[a-z0-9]+://[-\w./]+", re.ASCII)
PATH = re.compile(r"/[-\w./]+", re.ASCII)
WORD = re.compile(r"[-\w.:/+*]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Sky:
    """Options of SkyPilot.

    Attributes:
      accelerators, infra: as in its YAML, such as "H100:8" or "tpu-v5litepod-16", and "gcp/us-central1" or "slurm".
      spot: machines that may be taken away at any time.
      bucket, mount: cloud storage such as "gs://mine/runs", and its path on the machines. The run's folder is in it.
      jax: the kind of JAX to install, "cuda12", "tpu" or "cpu".
    """

    accelerators: str = ""
    infra: str = ""
    spot: bool = False
    bucket: str = ""
    mount: str = "/runs"
    jax: str = "cuda12"

    def __post_init__(self):
        require("bucket", self.bucket, BUCKET, "cloud storage, such as gs://mine/runs")
        require("mount", self.mount, PATH, "an absolute path of letters, digits and -_./")
        for field in ("accelerators", "infra"):
            if getattr(self, field):
                require(field, getattr(self, field), WORD, "as in SkyPilot's YAML")
        if self.jax not in ("cuda12", "tpu", "cpu"):
            raise ConfigError(f"--jax={self.jax!r}: must be one of cuda12, tpu, cpu")


def plan(job: Job, sky: Sky) -> Plan:
    """The YAML file, and `sky jobs launch`, which takes the secrets' values from its environment."""
    if os.path.isabs(job.config):
        raise ConfigError(f"--config={job.config}: is not in the checkout that is copied to the machines")
    if not os.path.normpath(job.workdir).startswith(sky.mount.rstrip("/") + "/"):
        raise ConfigError(f"--workdir={job.workdir}: must be below {sky.mount}, where --bucket is mounted")
    if job.processes > 1:
        raise ConfigError(f"--processes={job.processes}: SkyPilot starts one process on each node")
    path = f"runs/launch/{job.name}/sky.yaml"
    names = secrets.read(job.secrets) if job.secrets else {}
    passed = [word for name in names for word in ("--secret", name)]
    return Plan(job.root, (File(path, text(job, sky)),), (("sky", "jobs", "launch", "--yes", *passed, path),))


def text(job: Job, sky: Sky) -> str:
    """The YAML file's text."""
    return yaml.dump(task(job, sky), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def task(job: Job, sky: Sky) -> dict[str, Any]:
    """The YAML file's content."""
    resources = {
        "infra": sky.infra,
        "accelerators": sky.accelerators,
        "cpus": f"{job.cpus}+",
        "memory": f"{_gigabytes(job.memory)}+" if job.memory else "",
        "use_spot": sky.spot,
        "image_id": f"docker:{job.container}" if job.container else "",
        "job_recovery": {"strategy": "EAGER_NEXT_REGION", "recover_on_exit_codes": [PREEMPTED]},
    }
    described = {
        "name": job.name,
        "num_nodes": job.nodes,
        "workdir": job.root,
        "resources": {name: value for name, value in resources.items() if value != ""},
        "file_mounts": {sky.mount: {"source": sky.bucket, "mode": "MOUNT_CACHED"}},
        "envs": {name: os.environ[name] for name in job.environment},
        "secrets": dict.fromkeys(secrets.read(job.secrets)) if job.secrets else {},
        "setup": _setup(sky),
        "run": _run(job),
    }
    return {name: value for name, value in described.items() if value}


def _setup(sky: Sky) -> str:
    lines = [
        "set -e",
        "command -v uv || pip install uv",
        "uv venv --python 3.11 ../cjepa",
        f"uv pip install --python {PYTHON} -e . {shlex.quote(f'jax[{sky.jax}]') if sky.jax != 'cpu' else 'jax'}",
    ]
    return "\n".join(lines) + "\n"


def _run(job: Job) -> str:
    """The command. Several nodes find each other by SkyPilot's variables (on TPU, JAX does not need them)."""
    peers = [
        'export JAX_COORDINATOR_ADDRESS="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):12355"',
        'export JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES" JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"',
    ]
    lines = [f"# commit {job.commit}", "export PYTHONUNBUFFERED=1", *(peers if job.nodes > 1 else ())]
    return "\n".join([*lines, f"exec {shlex.join(job.command())}"]) + "\n"


def _gigabytes(memory: str) -> int:
    number, unit = int(memory.rstrip("KMGT")), memory[-1]
    return max(1, int(number * {"K": 2**-20, "M": 2**-10, "T": 2**10}.get(unit, 1 if unit == "G" else 2**-10)))


class _Dumper(yaml.SafeDumper):
    """Scripts as readable blocks. PyYAML quotes texts that a block cannot hold."""


def _represent(dumper: yaml.Dumper, value: str) -> yaml.Node:
    lines = value.splitlines(keepends=True)
    if all(line.endswith("\n") and not line.endswith("\r\n") for line in lines):
        style = "|" if lines else None
    else:
        style = '"' if len(lines) > 1 or lines[0].strip() != lines[0] else None  # YAML would change other line ends
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _represent)
