"""Sweeps on SLURM: a job array, one run for each combination of values, submitted by submitit."""

import ast
import dataclasses
import itertools
import os
import re
import shlex
import subprocess
import sys

from cjepa_jax import cli
from cjepa_jax.errors import PREEMPTED, ConfigError

from . import secrets
from .job import KEY, Job, require
from .slurm import WARNING

PLAIN = re.compile(r"/[-\w./+=,@]*")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The varied keys, and the options of the queue.

    Attributes:
      vary: (key, values) pairs. All combinations are run, each in a separate folder under the job's workdir.
      options: (name, value) pairs for sbatch, such as ("partition", "gpu").
      parallel: most runs that are active at once (0 for all).
    """

    vary: tuple[tuple[str, tuple[str, ...]], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    parallel: int = 0

    def __post_init__(self):
        if not self.vary:
            raise ConfigError("--vary is missing: say what to vary, such as --vary=seed=0,1,2")
        for key, options in self.vary:
            require("vary", key, KEY, "KEY=VALUES, where KEY is a config's key")
            if not options:
                raise ConfigError(f"--vary={key}: has no values. Write --vary={key}=VALUE,VALUE")
            if [name for name, _ in self.vary].count(key) > 1:
                raise ConfigError(f"--vary={key}: is there twice. Write all its values once")


def values(text: str) -> tuple[str, ...]:
    """The values in "1e-3,1e-4", "(0.5, 1.0), (1.0,)" or "'kl','epps_pulley'", in the syntax of overrides."""
    try:
        parsed = ast.literal_eval(f"[{text}]")
    except (ValueError, SyntaxError):
        return tuple(text.split(","))  # names without quotes
    return tuple(map(str, parsed))


def members(job: Job, sweep: Sweep) -> list[Job]:
    """One job for each combination. Its folder is named after the varied keys.

    Raises ConfigError for folders that submitit could not quote, or if two combinations would share one.
    """
    require("workdir", job.workdir, PLAIN, "an absolute path of letters, digits and -_./+=,@ for a sweep")
    jobs = {}
    for combination in itertools.product(*([(key, value) for value in options] for key, options in sweep.vary)):
        folder = re.sub(r"[^-\w.+=,]", "_", ",".join(f"{key}={value}" for key, value in combination))
        if folder in jobs:
            raise ConfigError(f"--vary: two of the runs would be in the folder {folder}")
        path = os.path.join(job.workdir, folder)
        jobs[folder] = dataclasses.replace(job, workdir=path, overrides=(*job.overrides, *combination))
    return list(jobs.values())


@dataclasses.dataclass(frozen=True)
class Train:
    """The object that submitit pickles and calls: the trainer, in submitit's process.

    The trainer has to be the process that SLURM signals. In a separate process, submitit would react to the signal by
    requeueing at once, which kills a trainer that is still saving. submitit's handlers are active until the trainer
    installs its own.
    """

    argv: tuple[str, ...]
    restarts: int

    def __call__(self) -> int:
        import submitit

        sys.argv = ["cjepa_jax.train", *self.argv]
        code = cli.run("cjepa_jax.train")
        environment = submitit.JobEnvironment()
        again = int(os.environ.get("SLURM_RESTART_COUNT", 0)) < self.restarts
        if code == PREEMPTED and again and environment.global_rank == 0:
            _requeue(environment.job_id)
        if code:
            sys.exit(code)  # no result: for submitit the job has failed
        return code

    def checkpoint(self):
        """submitit asks what to run instead if a signal comes before the trainer has started: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _requeue(job_id: str) -> None:
    """Requeues the job. If that fails, the exit code stays 75, which means that the same command resumes."""
    try:
        subprocess.run(["scontrol", "requeue", job_id], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"error: not requeued ({error}). Submit again to resume", file=sys.stderr)


def parameters(job: Job, sweep: Sweep) -> dict:
    """submitit's parameters, for its batch script."""
    tasks = ["--kill-on-bad-exit=0", "--wait=0", f"--cpus-per-task={job.cpus}"]
    chosen = {
        "job_name": job.name,
        "nodes": job.nodes,
        "ntasks_per_node": job.processes,
        "cpus_per_task": job.cpus,
        "gres": f"gpu:{job.gpus}" if job.gpus else None,
        "mem": job.memory or None,
        "time": _minutes(job.time),
        "signal_delay_s": WARNING,
        "stderr_to_stdout": True,
        "array_parallelism": sweep.parallel or 10_000,
        "setup": [f"cd {shlex.quote(job.root)}"] + (secrets.exporting(shlex.quote(job.secrets)) if job.secrets else []),
        "srun_args": tasks + (["--gpu-bind=none"] if job.gpus else []),
        "additional_parameters": {"requeue": True} | {name: value or True for name, value in sweep.options},
    }
    return {name: value for name, value in chosen.items() if value is not None}


def submit(job: Job, sweep: Sweep) -> list[str]:
    """Submits the array. Returns SLURM's ids of its jobs. Logs, pickles and results are in the folder `slurm` of the
    workdir. Raises ConfigError if submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("a sweep needs submitit: pip install -e '.[slurm]'") from error
    # job.python is the path on the machines. submitit expects a shell command line.
    executor = submitit.SlurmExecutor(
        os.path.join(job.workdir, "slurm"), max_num_timeout=job.restarts, python=shlex.quote(job.python)
    )
    executor.update_parameters(**parameters(job, sweep))
    trainings = [Train(tuple(member.command()[3:]), job.restarts) for member in members(job, sweep)]
    with executor.batch():
        jobs = [executor.submit(training) for training in trainings]
    return [submitted.job_id for submitted in jobs]


def _minutes(time: str) -> int:
    days, _, clock = time.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return max(1, (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0))
