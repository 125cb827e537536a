"""Several processes on one machine are one run. One of them goes away, the others must end soon, and say who went."""

import itertools
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from cjepa_jax.errors import PeerError
from tests import running
from tests.faults.record import Outcome
from tests.runtime.test_distributed import PEERS, environments

HEARTBEAT = 10.0
LIMIT = 2 * HEARTBEAT
SIGNALS = {"killed": (signal.SIGKILL,), "frozen": (signal.SIGSTOP,), "left": (signal.SIGTERM,) * 2}  # twice: at once
KINDS = [f"{what} {who} {how}" for how in SIGNALS for who in ("peer", "coordinator") for what in ("loop", "trainer")]


def campaign(count, seed, folder, until=float("inf")):
    """`count` deaths, one after the other: of three processes that only agree, and of two that train."""
    outcome = Outcome("peers")
    for number, kind in zip(range(count), itertools.cycle(KINDS), strict=False):
        if time.monotonic() < until:
            name = f"{seed}/{number}"
            problems = bereave(kind, random.Random(name), pathlib.Path(folder, f"peers-{number}"))
            outcome.add(kind, problems and f"{name}, {kind}: {'; '.join(problems)}")
    return outcome


def bereave(kind, rng, workdir):
    """One death: what was not as it should be."""
    what, who, how = kind.split()
    started = loops() if what == "loop" else trainers(workdir)
    victim = 0 if who == "coordinator" else rng.randrange(1, len(started))
    children, problems = [], []
    try:
        running.read_until(started[0], "agreed" if what == "loop" else "step 2/")  # the first is the one that prints
        time.sleep(rng.uniform(0, 1))
        children = [pid for process in started for pid in running.children(process.pid)]
        for number in SIGNALS[how]:
            started[victim].send_signal(number)
            time.sleep(0.01)
        went = time.monotonic()
        others = [rank for rank in range(len(started)) if rank != victim]
        problems = [text for rank in others for text in judge(started[rank], rank, victim, went)]
    finally:
        for process in started:
            process.kill()
            process.communicate()
        if not running.gone(children):
            problems.append("a data worker was left")
        shutil.rmtree(workdir, ignore_errors=True)
    return problems


def judge(process, rank, victim, went):
    """What is wrong with how this process ended."""
    try:
        _, err = process.communicate(timeout=max(1.0, went + 3 * LIMIT - time.monotonic()))
    except subprocess.TimeoutExpired:
        return [f"process {rank} hangs"]
    seconds, last = time.monotonic() - went, (err.splitlines() or [""])[-1]
    problems = [] if process.returncode == PeerError.exit_code else [f"process {rank}: exit code {process.returncode}"]
    problems += [] if seconds <= LIMIT else [f"process {rank}: after {seconds:.1f} s"]
    return problems + ([] if last.startswith(f"error: process {victim} ") else [f"process {rank} said {last!r}"])


def loops(count=3):
    """Processes that do nothing but agree, hundreds of times a second."""
    argv = [sys.executable, "-c", PEERS, str(HEARTBEAT), "after", "/nowhere"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": running.ROOT}
    return [subprocess.Popen(argv, env=environment, **pipe) for environment in environments(count)]


def trainers(workdir):
    """A run of two processes that does not end by itself soon."""
    options = {"train__steps": 100_000, "log__every": 1, "checkpoint__every": 1000, "probe__every": 0}
    argv = running.command(workdir, train__heartbeat=HEARTBEAT, **options)
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    described = [[f"{name}={environment[name]}" for name in names] for environment in environments(2)]
    return [running.start(["env", *variables, *argv]) for variables in described]
