"""SLURM: a batch script that requeues itself when a signal stopped the run, and then resumes the run."""

import dataclasses
import os
import re
import shlex

from cjepa_jax.errors import PREEMPTED, ConfigError

from . import secrets
from .job import Job, require
from .plan import File, Plan

RUNTIMES = ("pyxis", "apptainer")
WARNING = 120  # seconds before the time limit


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Options of SLURM.

    Attributes:
      options: (name, value) pairs for sbatch, such as ("partition", "gpu"). A switch has an empty value.
      runtime: of `job.container`, "pyxis" (options of srun) or "apptainer".
    """

    options: tuple[tuple[str, str], ...] = ()
    runtime: str = "pyxis"

    def __post_init__(self):
        for name, _ in self.options:
            require("option", name, re.compile("[a-z][-a-z]*"), "NAME=VALUE or NAME, as sbatch has it without --")
        if self.runtime not in RUNTIMES:
            raise ConfigError(f"--runtime={self.runtime!r}: must be one of {', '.join(RUNTIMES)}")


def plan(job: Job, slurm: Slurm) -> Plan:
    """The batch script in the run's folder, and sbatch. The log, too, is in the run's folder.

    The paths are on sbatch's command line, where no quoting is needed, not in the script's options.
    """
    if "\\" in job.workdir or "\n" in job.workdir or not os.path.isabs(job.workdir):
        # A backslash disables %j in a log's name.
        raise ConfigError(f"--workdir={job.workdir!r}: must be an absolute path without line ends and backslashes")
    text = script(job, slurm)
    if "\r\n" in text:
        raise ConfigError("sbatch takes no script with a DOS line end (\\r\\n) in it, and a value of this job has one")
    folder = os.path.join(job.workdir, "slurm")
    path = os.path.join(folder, f"{job.name}.sbatch")
    log = os.path.join(folder, job.name).replace("%", "%%") + "-%j.log"
    options = [f"--{name}={value}" if value else f"--{name}" for name, value in slurm.options]
    return Plan(job.root, (File(path, text),), (("sbatch", f"--output={log}", *options, path),))


def script(job: Job, slurm: Slurm) -> str:
    """The batch script.

    srun must not end the other processes when the first one exits (--kill-on-bad-exit=0). With 1 it sends SIGTERM to
    those that are still saving, which they treat as the second signal, "exit now". After a crash the surviving
    processes end themselves, by the trainer's heartbeat. The signal goes to the processes, not to this shell, which it
    would end.
    """
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{option}" for option in _directives(job)),
        f"# {job.name}, commit {job.commit}",
        "set -u",
        f"cd -- {shlex.quote(job.root)} || exit 2",
        *(secrets.exporting(shlex.quote(job.secrets)) if job.secrets else ()),
        "export PYTHONUNBUFFERED=1",
        "restarts=${SLURM_RESTART_COUNT:-0}",
        'echo "== $(date -Is) job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, restart $restarts"',
        f"srun {_srun(job, slurm)} \\",
        f"  {shlex.join(job.command())}",
        "code=$?",
        f'if [ "$code" -eq {PREEMPTED} ]; then',
        f'  if [ "$restarts" -lt {job.restarts} ]; then',
        '    echo "stopped by a signal, all is saved: back into the queue"',
        '    scontrol requeue "$SLURM_JOB_ID" || echo "error: not requeued; submit again to resume" >&2',
        "  else",
        f'    echo "stopped by a signal, and {job.restarts} restarts were allowed; submit again to resume" >&2',
        "  fi",
        "fi",
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _directives(job: Job) -> list[str]:
    options = {
        "job-name": job.name,
        "nodes": job.nodes,
        "ntasks-per-node": job.processes,
        "cpus-per-task": job.cpus,
        "gres": f"gpu:{job.gpus}" if job.gpus else "",
        "mem": job.memory,
        "time": job.time,
        "signal": f"USR1@{WARNING}",
        "open-mode": "append",  # one log for all parts of the run
    }
    return ["requeue", *(f"{name}={value}" for name, value in options.items() if value)]


def _srun(job: Job, slurm: Slurm) -> str:
    # srun does not take --cpus-per-task from sbatch (since 22.05). All GPUs are visible to all processes: JAX picks by
    # rank.
    words = ["--kill-on-bad-exit=0", "--wait=0", f"--cpus-per-task={job.cpus}"]
    words += ["--gpu-bind=none"] if job.gpus else []
    words += ["--label"] if job.nodes * job.processes > 1 else []
    if not job.container:
        return shlex.join(words)
    for path in (job.root, job.workdir):
        if re.search("[:,]", path):
            raise ConfigError(f"{path!r}: a container cannot mount a path with ':' or ',' in it")
    if slurm.runtime == "apptainer":
        binds = [f"--bind={path}" for path in (job.root, job.workdir)]
        gpus = ["--nv"] if job.gpus else []
        return shlex.join([*words, "apptainer", "exec", *gpus, *binds, f"--pwd={job.root}", job.container])
    words += [
        f"--container-image={job.container}",
        f"--container-mounts={job.root}:{job.root},{job.workdir}:{job.workdir}",
        f"--container-workdir={job.root}",
        *([f"--container-env={','.join(job.environment)}"] if job.environment else []),
    ]
    # A separate name for every part, because the previous container may still exist.
    return f'{shlex.join(words)} "--container-name={job.name}-$SLURM_JOB_ID-$restarts"'
