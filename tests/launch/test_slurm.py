"""A real SLURM of one node accepts the job, runs it, signals it, requeues it on 75 only, and the run resumes."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from launch import slurm
from launch.job import Job
from tests import QUICK, running
from tests.launch.cluster import Cluster
from tests.launch.hostile import PIECES

pytestmark = [pytest.mark.slow, pytest.mark.needs("slurm")]
# Takes the interpreter's place: notes its arguments, and answers a signal, or the time, with an exit code.
STAND_IN = """#!{python} -SE
import json, os, signal, sys, time
words = dict(word.removeprefix("--config.").split("=", 1) for word in sys.argv if word.startswith("--config."))
rank, restart = os.environ["SLURM_PROCID"], os.environ.get("SLURM_RESTART_COUNT", "0")
with open(f"{folder}/said.{{rank}}.{{restart}}", "w") as said:
    json.dump(sys.argv[1:], said)
got = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: got.append(signal.Signals(number).name))
print("started", flush=True)
while not got and not os.path.exists(f"{folder}/end.{{restart}}"):
    time.sleep(0.1)
time.sleep(2 + 3 * int(rank))
print("rank", rank, "saved after", *got, flush=True)
sys.exit(int(words["code"]) if got or restart == "0" else 0)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture
def stand_in(tmp_path):
    """(a job that it runs, its folder)"""
    folder = tmp_path / "w o'rk%j $(x);#é"
    folder.mkdir()
    program = tmp_path / "stand-in"
    program.write_text(STAND_IN.format(python=sys.executable, folder=tmp_path))
    program.chmod(0o755)
    return Job("try", "c.py", str(folder), (("code", "75"),), cpus=1, python=str(program), root=str(tmp_path))


def submit(cluster, job, monkeypatch, capfd):
    """SLURM's number of the job, and its log."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    slurm.plan(job, slurm.Slurm()).act()
    number = int(re.search(r"Submitted batch job (\d+)", capfd.readouterr().out)[1])
    return number, pathlib.Path(job.workdir, f"slurm/{job.name}-{number}.log")


def until(log, text, seconds=60):
    """Waits for a text in the log."""
    end = time.monotonic() + seconds
    while not log.exists() or text not in log.read_text(errors="replace"):
        assert time.monotonic() < end, f"no {text!r} in {log.read_text() if log.exists() else 'no log'}"
        time.sleep(0.2)


def test_it_runs_word_for_word_is_warned_by_slurm_and_requeued_once(cluster, stand_in, tmp_path, monkeypatch, capfd):
    hostile = tuple(("text", piece) for piece in PIECES if piece != "\r\n")
    # Two minutes are the warning time, so that SLURM warns as soon as it looks.
    job = dataclasses.replace(stand_in, overrides=stand_in.overrides + hostile, time="0:02:00", restarts=1)
    number, log = submit(cluster, job, monkeypatch, capfd)
    until(log, "saved after SIGUSR1", 120)
    cluster.wait(number, "PENDING")
    cluster.release(number)
    until(log, "restart 1")
    (tmp_path / "end.1").touch()
    assert cluster.wait(number, "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    for restart in "01":
        assert json.loads((tmp_path / f"said.0.{restart}").read_text()) == job.command()[1:]
    assert log.read_text().count("started") == 2  # one log for both pieces


@pytest.mark.parametrize("code, restarts", [("1", 5), ("5", 5), ("70", 5), ("75", 0)])
def test_no_other_code_requeues_nor_do_more_restarts_than_allowed(
    code, restarts, cluster, stand_in, tmp_path, monkeypatch, capfd
):
    (tmp_path / "end.0").touch()
    job = dataclasses.replace(stand_in, overrides=(("code", code),), restarts=restarts)
    number, log = submit(cluster, job, monkeypatch, capfd)
    ended = cluster.wait(number, "FAILED", "COMPLETED")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", f"{code}:0", "0")


def test_processes_that_save_longer_than_the_first_are_left_to_it(cluster, stand_in, monkeypatch, capfd):
    job = dataclasses.replace(stand_in, processes=2)
    number, log = submit(cluster, job, monkeypatch, capfd)
    until(log, "1: started")
    until(log, "0: started")
    cluster.run("scancel", "--signal=USR1", str(number))
    until(log, "all is saved")
    text = log.read_text()
    assert "0: rank 0 saved after SIGUSR1\n" in text and "1: rank 1 saved after SIGUSR1\n" in text
    cluster.wait(number, "PENDING")
    cluster.run("scancel", str(number))


def test_scancel_ends_it_for_good_and_lets_it_save(cluster, stand_in, monkeypatch, capfd):
    number, log = submit(cluster, stand_in, monkeypatch, capfd)
    until(log, "started")
    cluster.run("scancel", str(number))
    until(log, "saved after SIGTERM")
    job = cluster.wait(number, "CANCELLED")
    time.sleep(2)
    assert (cluster.job(number)["JobState"], job["Restarts"]) == ("CANCELLED", "0")
    assert "all is saved" not in log.read_text()


STEPS = 200
QUICKLY = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": QUICK,
    "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", running.COMPILED),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def train(cluster, kind, *words):
    """Submits the tiny job as a user does, at a size that compiles quickly: what the command prints."""
    values = running.SMALL | {"train.steps": STEPS, "probe.every": 0, "checkpoint.every": 100, "data.workers": 1}
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    argv = [sys.executable, "-m", "launch", kind, "--config=configs/clips.py", *words, "--allow-dirty", "--submit"]
    environment = os.environ | cluster.environment | QUICKLY
    ended = subprocess.run([*argv, *overrides], cwd=running.ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def went_on(workdir):
    """The step from which a finished run resumed, 0 if it was never stopped. No step is missing or there twice."""
    training, _ = running.metrics(workdir)
    steps = [line["step"] for line in training]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS
    return json.loads((workdir / "result.json").read_text())["resumed_at"]


def test_the_tiny_job_is_stopped_requeued_and_goes_on_to_its_end(cluster, tmp_path):
    workdir = tmp_path / "try"
    shown = train(cluster, "slurm", f"--workdir={workdir}", "--cpus=1")
    number = int(re.search(r"Submitted batch job (\d+)", shown)[1])
    until(workdir / "metrics.jsonl", '"loss"', 200)
    cluster.run("scancel", "--signal=USR1", str(number))
    until(workdir / f"slurm/try-{number}.log", "back into the queue", 100)
    cluster.wait(number, "PENDING")
    cluster.release(number)
    cluster.wait(number, "COMPLETED", "FAILED", seconds=300)
    assert 0 < went_on(workdir) < STEPS


@pytest.mark.needs("submitit")
def test_a_sweep_is_an_array_whose_runs_are_stopped_and_go_on(cluster, tmp_path):
    words = [f"--workdir={tmp_path}/sweep", "--vary=seed=0,1", "--cpus=1", "--time=0:20:00"]
    jobs = train(cluster, "sweep", *words).split()
    number = jobs[0].split("_")[0]
    assert jobs == [f"{number}_0", f"{number}_1"]
    folders = [tmp_path / f"sweep/seed={seed}" for seed in (0, 1)]
    until(folders[0] / "metrics.jsonl", '"loss"', 200)
    cluster.run("scancel", "--signal=USR2", jobs[0])  # submitit's warning
    cluster.wait(jobs[0], "PENDING")
    cluster.release(jobs[0])
    for job in jobs:
        cluster.wait(job, "COMPLETED", "FAILED", seconds=300)
    assert 0 < went_on(folders[0]) < STEPS and went_on(folders[1]) == 0
