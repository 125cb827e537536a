"""Several processes on this machine as one run: they agree, and end together."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from cjepa_jax.errors import PREEMPTED, ConfigError
from cjepa_jax.runtime import distributed
from tests import running

HEARTBEAT = 5.0
PEERS = """
import os, signal, sys, time, types
from cjepa_jax import cli; from cjepa_jax.runtime import distributed as processes
from cjepa_jax.errors import DataError
from cjepa_jax.runtime.preemption import Signals

config = types.SimpleNamespace(train=types.SimpleNamespace(heartbeat=float(sys.argv[1])))

def work():
    if sys.argv[2] == "before":
        with Signals() as signals:
            processes.start(config)
            return run(signals)
    processes.start(config)
    with Signals() as signals:
        return run(signals)

def run(signals):
    with processes.blame():
        print("agreed", processes.agree(7 * processes.first(), os.getpid()), processes.first(), flush=True)
        while True:
            time.sleep(0.02)
            if processes.agree(signals.received is not None)[0]:
                return 75
            if os.path.exists(sys.argv[3]) and not processes.first():
                raise DataError("a bad scene")

raise SystemExit(processes.leave(cli.guard(work)))
"""


def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def environments(count):
    """Of `count` processes that are to find each other."""
    where = f"127.0.0.1:{port()}"
    for rank in range(count):
        by_hand = {"JAX_COORDINATOR_ADDRESS": where, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(rank)}
        yield os.environ | by_hand | {"JAX_PLATFORMS": "cpu"}


def peers(tmp_path, count=3, heartbeat=HEARTBEAT, signals="after"):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": running.ROOT}
    argv = [sys.executable, "-c", PEERS, str(heartbeat), signals, str(tmp_path / "fail")]
    started = [subprocess.Popen(argv, env=environment, **pipes) for environment in environments(count)]
    for rank, process in enumerate(started):
        line = running.read_until(process, "agreed")
        assert line == f"agreed [7, {max(other.pid for other in started)}] {rank == 0}\n"
    return started


def ended(started, code, line, but=()):
    """Whether all but some end soon, with this code and this last line."""
    try:
        for rank, process in enumerate(started):
            if rank not in but:
                _, err = process.communicate(timeout=60)
                assert process.returncode == code, err
                assert not line or err.splitlines()[-1] == line, err
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_one_process_needs_nothing():
    assert distributed.agree(3, True, 0) == [3, 1, 0] and distributed.first()
    assert distributed.leave(5) == 5
    tree = {"a": object()}
    assert distributed.local(tree) is tree


@pytest.mark.parametrize(
    "given, message",
    [
        ({"JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS is not set: several processes need"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID is not set"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES = 'two': must be a whole number above 0"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID = '2': must be a whole number from 0 to 1"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "JAX_COORDINATOR_ADDRESS = 'host': must be host:port"),
    ],
)
def test_a_description_in_part_or_wrong_is_refused(given, message):
    whole = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    environment = given if "not set" in message else whole | given
    with pytest.raises(ConfigError, match=re.escape(message)):
        distributed._by_hand(environment)


def test_what_stands_for_one_process_is_none():
    assert distributed._by_hand({"JAX_COORDINATOR_ADDRESS": "a:1"}) == {}
    one = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    assert distributed._by_hand(one) == {}


@pytest.mark.parametrize(
    "per_node, gpus, wanted",
    [("1(x4)", "8", range(8)), ("1", "2", range(2)), ("8(x4)", "8", None), ("1,2", "4", None), ("1(x4)", "", None)],
)
def test_one_process_per_machine_takes_all_its_gpus(per_node, gpus, wanted):
    environment = {"SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_GPUS_ON_NODE": gpus}
    found = distributed._whole_node(environment)
    assert found == ({} if wanted is None else {"local_device_ids": list(wanted)})
    assert distributed._whole_node(environment | {"JAX_LOCAL_DEVICE_IDS": "0"}) == {}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number, how", [(signal.SIGKILL, "has ended"), (signal.SIGSTOP, "has given no sign of life")])
def test_survivors_end_and_name_the_peer_that_is_gone(tmp_path, rank, number, how):
    started = peers(tmp_path)
    sent = time.monotonic()
    started[rank].send_signal(number)
    silence = f" for train.heartbeat = {HEARTBEAT:g} s" if number == signal.SIGSTOP else ""
    ended(started, 70, f"error: process {rank} {how}{silence}", but=[rank])
    assert time.monotonic() - sent < 2 * HEARTBEAT


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path):
    started = peers(tmp_path, 2)
    pathlib.Path(tmp_path, "fail").touch()
    _, err = started[1].communicate(timeout=30)
    assert (started[1].returncode, err.splitlines()[-1]) == (3, "error: a bad scene")
    ended(started, 70, "error: process 1 has ended", but=[1])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_signal_to_one_is_heard_by_all_whoever_installed_its_handler_first(tmp_path, order):
    started = peers(tmp_path, 2, signals=order)
    started[1].send_signal(signal.SIGTERM)
    ended(started, PREEMPTED, "")


@pytest.mark.slow
def test_who_cannot_be_reached_is_said_in_a_line(tmp_path):
    _, alone = environments(2)
    argv = running.command(tmp_path, train__heartbeat=0.5)
    done = subprocess.run(argv, env=alone, cwd=running.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 70, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the run's other processes cannot be reached within 5 s")


# ---------------------------------------------------------------------- training


@pytest.fixture
def train(tmp_path):
    """Starts the training command in two processes."""
    started = []

    def start(**values):
        argv = running.command(tmp_path, log__every=1, train__heartbeat=HEARTBEAT, **({"train__steps": 40} | values))
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        for environment in environments(2):
            started.append(running.start(["env", *(f"{name}={environment[name]}" for name in names), *argv]))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_signal_to_one_trainer_saves_the_same_step_of_all_and_one_alone_goes_on(train, tmp_path):
    started = train(checkpoint__every=1000)
    running.read_until(started[0], "step 3/")
    started[1].send_signal(signal.SIGUSR1)
    out, _ = started[0].communicate(timeout=60)
    assert [process.wait(timeout=30) for process in started] == [PREEMPTED] * 2
    last = out.splitlines()[-1]
    assert last.startswith("stopped by a signal to another process ")
    stopped = running.stopped_at(last)
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    out, _ = running.run(running.command(tmp_path, log__every=1, train__steps=40))
    assert f"resumed at {stopped}" in out
    assert [line["step"] for line in running.metrics(tmp_path)[0]] == list(range(1, 41))


@pytest.mark.slow
def test_a_trainer_that_is_killed_ends_the_other(train):
    started = train(train__steps=10_000)
    running.read_until(started[0], "step 3/")
    started[0].kill()  # the coordinator
    killed = time.monotonic()
    _, err = started[1].communicate(timeout=60)
    assert time.monotonic() - killed < 2 * HEARTBEAT
    assert started[1].returncode == 70 and err.splitlines()[-1] == "error: process 0 has ended", err
