"""Stop signals, sent to real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cjepa_jax.signals import STOP, Signals

LOOP = """
import sys, time
from cjepa_jax.signals import Signals
with Signals() as signals:
    print("ready", flush=True)
    while not signals.received:
        time.sleep(0.01)
    print(signals.received.name, flush=True)
    time.sleep(float(sys.argv[1]))
print("saved")
"""


def start(linger):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(linger)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", STOP)
def test_first_signal_lets_the_process_finish(number):
    process = start(0)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, f"{number.name}\nsaved\n")
    assert err == f"{number.name}: saving, then stopping; again: at once\n"


def test_second_signal_ends_it_at_once():
    process = start(30)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    assert time.perf_counter() - begin < 5


def test_handlers_come_back():
    before = [signal.getsignal(number) for number in STOP]
    with Signals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received is signal.SIGUSR1
    assert [signal.getsignal(number) for number in STOP] == before
