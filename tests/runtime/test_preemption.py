"""Stop signals, sent to real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cjepa_jax.errors import PREEMPTED
from cjepa_jax.runtime.preemption import STOP, Signals, Stopped

LOOP = """
import sys, time
from cjepa_jax.runtime.preemption import Signals
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
    assert err == f"{number.name}: saving, then stopping. Again: at once\n"


@pytest.mark.parametrize("stderr", ["broken", "closed"])
def test_a_stderr_that_nobody_reads_does_not_keep_it_from_saving(stderr):
    argv = [sys.executable, "-c", LOOP, "0"]
    if stderr == "closed":
        argv = ["sh", "-c", 'exec "$@" 2>&-', "sh", *argv]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stderr.close()
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "SIGTERM\nsaved\n" and process.wait(timeout=10) == 0
    process.stdout.close()


EARLY = """
import os, signal, sys, time
from cjepa_jax.runtime import preemption as signals
if sys.argv[1] == "held back":  # by the program before, until this one is ready
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP)
    os.kill(os.getpid(), signal.SIGTERM)
signals.leave_at_once()
if sys.argv[1] == "after":
    with signals.Signals():
        pass
print("ready", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize("when", ["before", "after", "held back"])
def test_outside_the_run_it_leaves_at_once(when):
    process = subprocess.Popen([sys.executable, "-c", EARLY, when], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if when != "held back":
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == b"" and process.returncode == PREEMPTED


ENDING = """
import os, signal, sys
from cjepa_jax.runtime import preemption as signals
signals.leave_at_once()
class Last:
    def __del__(self, kill=os.kill, own=os.getpid(), number=signal.SIGTERM):
        kill(own, number)
sys.last = Last()
raise SystemExit(3)
"""


def test_while_python_ends_the_exit_code_stays():
    assert subprocess.run([sys.executable, "-c", ENDING], timeout=10).returncode == 3


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


def test_work_that_can_be_done_again_is_broken_off():
    with Signals() as signals:
        assert signals.unless_stopped(lambda: "done") == "done"

        def interrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

        begin = time.monotonic()
        assert signals.unless_stopped(interrupted) is None and signals.received is signal.SIGTERM
        assert signals.unless_stopped(lambda: "done") is None, "it does not even begin"
        with pytest.raises(Stopped), signals.nothing_to_save():
            raise AssertionError("it does not even begin")
        assert time.monotonic() - begin < 10


def test_nothing_to_save_ends_at_once_unless_others_must_hear_of_it():
    with Signals() as signals:
        with pytest.raises(Stopped), signals.nothing_to_save():
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(30)
    with Signals(alone=False) as signals:
        with signals.nothing_to_save():
            os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.received is signal.SIGUSR2


BLOCKED = """
import ctypes, sys, time
from cjepa_jax.runtime import preemption as signals
signals.PATIENCE = 0.5

lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
lock(mutex)

def hang():
    lock(mutex)  # one call in C that lets other threads run but no handler, as a compilation
with signals.Signals() as asked:
    if sys.argv[1] == "nothing to save":
        with asked.nothing_to_save():
            print("ready", flush=True)
            hang()
    else:
        print("ready", flush=True)
        while not asked.received:
            time.sleep(0.01)
        asked.leave_soon()
        hang()
"""


@pytest.mark.parametrize("where", ["nothing to save", "all is saved"])
def test_a_call_that_hangs_in_c_is_not_waited_for(where):
    process = subprocess.Popen([sys.executable, "-c", BLOCKED, where], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.2)  # until it hangs
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) == PREEMPTED
