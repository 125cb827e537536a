"""Two trainers on one machine, joined by jax.distributed: one goes away, the other must end soon, and say so."""

import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import time

from tests import running
from tests.faults.record import Outcome

HEARTBEAT = 10
LIMIT = 2 * HEARTBEAT
DEATHS = ("killed", "stopped", "left", "coordinator killed", "coordinator stopped")
PEER = 70


def campaign(count, seed, folder, until=float("inf")):
    """`count` deaths, one after the other (each pair has two compiling processes)."""
    outcome = Outcome("peers")
    for number, death in zip(range(count), itertools.cycle(DEATHS), strict=False):
        if time.monotonic() > until:
            break
        name = f"{seed}/{number}"
        code, seconds, text = bereave(death, random.Random(name), pathlib.Path(folder, f"peers-{number}"))
        slow = "" if seconds is not None and seconds <= LIMIT else f"after {seconds} s"
        wrong = slow or ("" if code == PEER else f"exit code {code}")
        outcome.add(death, wrong and f"{name}, {death}: {wrong}: {text[-300:]!r}")
    return outcome


def start(workdir, heartbeat=HEARTBEAT, **values):
    """The two processes of a run, the coordinator first. They end with step 100,000."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = {"train__steps": 100_000, "log__every": 1, "checkpoint__every": 1000, "probe__every": 0}
    options |= {"train__heartbeat": float(heartbeat)} | values
    pair = []
    for number in range(2):
        variables = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
        before = dict(os.environ)
        os.environ |= variables | {"JAX_PROCESS_ID": str(number)}
        try:
            pair.append(running.start(running.command(workdir, **options), start_new_session=True))
        finally:
            for key in (*variables, "JAX_PROCESS_ID"):
                os.environ.pop(key)
            os.environ |= before
    return pair


def bereave(death, rng, workdir):
    """(exit code, seconds, what it said) of the one that is left; None where it had to be killed."""
    pair = start(workdir)
    victim, left = pair if death.startswith("coordinator") else pair[::-1]
    try:
        running.read_until(pair[0], "step 2/")  # the first process is the one that prints
        time.sleep(rng.uniform(0, 1))
        children = [pid for process in pair for pid in running.children(process.pid)]
        if death == "left":
            victim.send_signal(signal.SIGTERM), victim.send_signal(signal.SIGTERM)  # the second one: at once, 130
        else:
            victim.send_signal(signal.SIGSTOP if death.endswith("stopped") else signal.SIGKILL)
        went = time.monotonic()
        code, text = finish(left)
        seconds = time.monotonic() - went if code is not None else None
    finally:
        for process in pair:
            process.kill()
            process.communicate()
    orphans = "" if running.gone(children) else "a data worker is left; "
    shutil.rmtree(workdir, ignore_errors=True)
    return (code if not orphans else "orphans"), seconds and round(seconds, 1), orphans + text


def finish(process, seconds=6 * HEARTBEAT):
    """(exit code, stderr) of a process that should end; (None, "") of one that hangs."""
    try:
        return process.wait(seconds), process.communicate(timeout=10)[1]
    except running.subprocess.TimeoutExpired:
        return None, ""
