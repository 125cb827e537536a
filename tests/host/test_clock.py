"""Time in which a process was stopped counts for no time limit."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cjepa_jax.data.sources import phyre_worker
from cjepa_jax.host import clock


def suspended(code, seconds, *arguments):
    """stdout of a Python program that is stopped for this number of seconds once it has printed a line."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGCONT)
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    return said + rest


EVERYTHING = """
import os, socket, sys, threading, time
from cjepa_jax.host import clock
from cjepa_jax.data.sources import phyre_client; from cjepa_jax.data import pipeline
from cjepa_jax.runtime.watchdog import Watchdog, gather

ask = phyre_client.Simulator([sys.executable, "-c", sys.argv[1]], timeout=1.5)  # starts at the first request
ask("hello")
pipeline._start_worker(0, 1, 1.5, os.getppid())  # as a data worker does, at a scene that takes as long as the rest here
pipeline._BUSY[0] = 5, clock.running()
server, wall, ran = socket.create_server(("127.0.0.1", 0)), time.monotonic(), clock.running()
threading.Timer(0.1, print, ("ready",), {"flush": True}).start()
with Watchdog(1.5, "stacks"):
    assert ask("slow") == 7
    try:
        gather(server, 1, "token", 0.5)
    except TimeoutError:
        print(time.monotonic() - wall, clock.running() - ran)
pipeline._BUSY.clear()
"""
WORKER = f"""
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("worker", {phyre_worker.__file__!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
while header := sys.stdin.buffer.read(8):
    request = worker.unpack(sys.stdin.buffer.read(worker.length(header)))
    time.sleep(0.4 if request["op"] == "slow" else 0)
    sys.stdout.buffer.write(worker.pack({{"ok": 7}}))
    sys.stdout.buffer.flush()
"""


def test_whoever_waits_goes_on_waiting_when_a_suspended_process_goes_on():
    """The watchdog, a data worker, PHYRE's client and the start of several processes, stopped for 2.5 s in the middle
    of what may take them 1.5 s and 0.5 s."""
    wall, ran = map(float, suspended(EVERYTHING, 2.5, WORKER).split()[1:])
    assert 0.8 < ran < 1.6 + clock.MOST and wall - ran > 2.4 - clock.MOST


def test_running_time_is_the_systems_while_nothing_is_stopped():
    ran, wall = clock.running(), time.monotonic()
    clock.sleep(0.5)
    assert clock.running() - ran == pytest.approx(time.monotonic() - wall, abs=0.3)
    assert clock.running() - ran >= 0.5


def test_a_deadline_ends():
    deadline = clock.Deadline(0.3)
    assert 0 < deadline.slice() <= clock.TICK and not deadline.over
    clock.sleep(0.3)
    assert deadline.over and deadline.left == 0 and deadline.slice() == 0


def test_threads_may_share_it():
    start, found = clock.running(), []

    def look():
        found.extend(clock.running() for _ in range(2000))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8000 and start <= min(found) and max(found) <= clock.running()


def test_a_child_that_was_forked_has_a_clock_of_its_own():
    code = """
import os, time
from cjepa_jax.host import clock
clock.running()
child = os.fork()
if child == 0:
    before = clock.running()
    time.sleep(1.0)
    os._exit(round(10 * (clock.running() - before)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert 9 <= int(done.stdout) <= 20, done.stderr


def test_what_a_command_prints_and_how_it_may_fail():
    assert clock.output(["printf", "%d", "7"], 20) == b"7"
    with pytest.raises(subprocess.CalledProcessError):
        clock.output(["false"], 20)
    with pytest.raises(subprocess.TimeoutExpired):
        clock.output(["sleep", "30"], 0.2)
    with pytest.raises(FileNotFoundError):
        clock.output(["no-such-command"], 1)
    assert len(clock.output(["head", "-c", "300000", "/dev/zero"], 20)) == 300000  # more than a pipe holds


def test_waiting_for_a_process():
    with subprocess.Popen(["sleep", "30"]) as process:
        assert clock.wait(process, 0.2) is None
        process.kill()
        assert clock.wait(process, 20) == -signal.SIGKILL
