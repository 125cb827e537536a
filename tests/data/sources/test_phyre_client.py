"""The trainer's end of PHYRE's pipe, against workers that die, hang and talk nonsense. No simulator is needed."""

import ast
import gc
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from cjepa_jax.data.sources import phyre_client, phyre_worker
from cjepa_jax.errors import ConfigError, DataError

# A worker that answers every request with its arguments, until it `misbehaves`.
WORKER = """
import importlib.util, os, struct, sys, time
spec = importlib.util.spec_from_file_location("phyre_worker", {path!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
source, sink = sys.stdin.buffer, sys.stdout.buffer
def misbehave(request):
{misbehave}
def say(data):
    sink.write(data)
    sink.flush()
def only(data):
    say(data)
    time.sleep(100)
while len(header := source.read(8)) == 8:
    request = worker.unpack(source.read(worker.length(header)))
    if request.pop("op") != "hello":
        misbehave(request)
    say(worker.pack({{"ok": request}}))
"""


@pytest.fixture
def simulator(tmp_path):
    """simulator(misbehave=...): a Simulator of such a worker."""

    def make(misbehave="pass", **options):
        file = tmp_path / "worker.py"
        body = textwrap.indent(textwrap.dedent(misbehave), "    ")
        file.write_text(WORKER.format(path=phyre_worker.__file__, misbehave=body))
        return phyre_client.Simulator([sys.executable, str(file)], **{"timeout": 20.0, **options})

    return make


def ended(pid, seconds=10.0):
    """Whether a process ends in time. One that nobody waits for, because its parent is gone, may stay as a zombie."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_the_worker_parses_under_its_own_python_and_needs_nothing_of_the_project():
    tree = ast.parse(pathlib.Path(phyre_worker.__file__).read_text(), feature_version=(3, 9))
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert imported - set(sys.stdlib_module_names) == {"msgpack", "numpy", "phyre"}


def test_values_come_back_as_they_went(simulator):
    ask = simulator()
    big = np.random.default_rng(0).integers(0, 256, (3, 1000, 1000), np.uint8)  # more than a pipe holds, both ways
    sent = {"text": "ä", "number": -3, "none": None, "list": [1, 2.5], "empty": np.zeros((0, 3)), "big": big}
    back = ask("echo", **sent)
    assert {k: v for k, v in back.items() if k not in ("big", "empty")} == {
        k: v for k, v in sent.items() if k not in ("big", "empty")
    }
    for name in ("big", "empty"):
        assert back[name].dtype == sent[name].dtype and np.array_equal(back[name], sent[name])


def test_threads_get_their_own_answers(simulator):
    ask, wrong = simulator(), []

    def work(k):
        wrong.extend((k, i) for i in range(20) if ask("echo", value=[k, i])["value"] != [k, i])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


@pytest.mark.parametrize(
    "misbehave, text",
    [
        (
            "print('no\\nmemory left', file=sys.stderr); sys.exit(3)",
            r"died \(exit code 3\): memory left, 2 times in echo",
        ),
        ("os.kill(os.getpid(), 40)", r"died \(signal 40\), 2 times"),
        ("os.kill(os.getpid(), 9)", r"died \(SIGKILL\), 2 times in echo \(name 00000:001\)"),
        ("os.close(1); time.sleep(100)", "closed its pipe"),
        ("only(b'Welcome to Box2D, version 2.3')", "wrote something that is not a message: b'Welcome "),
        ("only(struct.pack('<4sI', worker.MAGIC, 2**32 - 1))", "not a message"),
        ("only(struct.pack('<4sI', worker.MAGIC, 3) + bytes([0xc1] * 3))", "unreadable message"),
        ("only(worker.pack({'ok': 1})[:-1] + bytes([0xc1]))", "unreadable message"),
        ("only(worker.pack({'ok': {'dtype': '|O', 'shape': [1], 'raw': bytes(8)}}))", "an array of type '|O'"),
        ("only(worker.pack({'ok': {'dtype': '|u1', 'shape': [1 << 40], 'raw': bytes(8)}}))", "unreadable message"),
        ("only(worker.pack({'answer': 1}))", "not a reply"),
        ("only(worker.pack([1]))", "not a reply"),
    ],
)
def test_a_worker_that_fails_is_replaced_once_and_then_named(simulator, misbehave, text, monkeypatch):
    monkeypatch.setattr(phyre_client, "EPITAPH", 0.2)
    ask = simulator(misbehave)
    with pytest.raises(DataError, match=text) as error:
        ask("echo", name="00000:001")
    assert len(str(error.value).splitlines()) == 1
    assert ask._starts == 2 and ask._process is None


@pytest.mark.parametrize("misbehave", ["time.sleep(100)", "only(worker.pack({'ok': 1})[:9])"])
def test_a_worker_that_hangs_is_killed(simulator, misbehave):
    ask = simulator("print('step 17', file=sys.stderr, flush=True)\n" + misbehave, timeout=0.3)
    before = time.monotonic()
    with pytest.raises(DataError, match=r"gave no answer in 0\.3 s: step 17, 2 times in echo"):
        ask("echo")
    assert time.monotonic() - before < 10 and ask._process is None


def test_a_worker_that_does_not_even_read_is_killed(simulator):
    ask = simulator(timeout=0.3)
    ask("echo")
    os.kill(ask._process.pid, signal.SIGSTOP)
    ask._failed = phyre_client.RESTARTS + 1  # no second try
    with pytest.raises(DataError, match="not started again"):
        ask("echo", much=np.zeros(10_000_000, np.uint8))


def test_one_failure_costs_nothing_but_time(simulator, tmp_path):
    ask = simulator(f"if not os.path.exists({str(tmp_path / 'seen')!r}): open({str(tmp_path / 'seen')!r}, 'w'); 1 / 0")
    assert ask("echo", value=7)["value"] == 7
    assert ask._starts == 2
    ask("echo")
    assert ask._starts == 2


def test_what_it_prints_as_errors_does_not_fill_the_pipe(simulator):
    ask = simulator("sys.stderr.write('x' * 3_000_000); sys.stderr.flush()")
    assert ask("echo", value=1)["value"] == 1


def test_restarts_are_counted(simulator):
    ask = simulator("sys.exit(1)")
    ask._failed = phyre_client.RESTARTS - 1
    for _ in range(2):
        with pytest.raises(DataError):
            ask("echo")
    with pytest.raises(DataError, match=f"failed {phyre_client.RESTARTS + 1} times: it is not started again"):
        ask("echo")


def test_an_answer_ends_the_count(simulator, tmp_path):
    ask = simulator(f"if not os.path.exists({str(tmp_path / 'seen')!r}): open({str(tmp_path / 'seen')!r}, 'w'); 1 / 0")
    ask._failed = phyre_client.RESTARTS - 1
    assert ask("echo", value=7)["value"] == 7 and ask._failed == 0


def test_a_mistake_in_a_request_is_the_worker_s_answer_and_no_reason_to_replace_it(simulator):
    ask = simulator("only(worker.pack({'error': 'KeyError: 7'}))")
    with pytest.raises(DataError, match=r"PHYRE's worker, echo \(name x\): KeyError: 7"):
        ask("echo", name="x")
    assert ask._starts == 1 and ask._process is not None


@pytest.mark.parametrize(
    "command, text",
    [
        (["/no/such/python3.9"], "/no/such/python3.9: No such file or directory. Make it with: python3.9 -m venv"),
        (["/no/\0/python3.9"], r"/no/\\0/python3.9: embedded null byte. Make it with"),
        (["/etc/passwd"], "/etc/passwd: Permission denied"),
        (["/bin/true"], r"/bin/true: the worker died \(exit code 0\)"),
        (["/bin/echo", "hello there"], "/bin/echo: the worker wrote something that is not a message"),
        ([sys.executable, "-c", "import os, no_such_package"], "No module named 'no_such_package'. Make it with"),
    ],
)
def test_an_interpreter_that_will_not_do_is_named(command, text):
    with pytest.raises(ConfigError, match=text) as error:
        phyre_client.Simulator(command)("fold")
    assert len(str(error.value).splitlines()) == 1


def test_no_worker_outlives_its_owner_and_no_zombie_stays(simulator):
    ask = simulator()
    ask("echo")
    pid = ask._process.pid
    assert os.getsid(pid) == pid  # Ctrl-C at the terminal does not reach it
    del ask
    gc.collect()
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("how", ["pass", "os.kill(os.getpid(), 9)"])
def test_the_worker_ends_with_a_parent_that_exits_or_is_killed(simulator, how, tmp_path):
    simulator()  # writes the file
    code = f"""
import os, sys
from cjepa_jax.data.sources.phyre_client import Simulator
ask = Simulator([sys.executable, {str(tmp_path / "worker.py")!r}])
ask("echo")
print(ask._process.pid, flush=True)
{how}
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == (0 if how == "pass" else -9) and not run.stderr
    assert ended(int(run.stdout))


def test_an_interrupted_request_leaves_no_half_answer(simulator):
    ask = simulator("time.sleep(0.5)")
    ask("echo", value=1)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            ask("echo", value=2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ask("echo", value=3)["value"] == 3


def test_the_shared_simulator_is_one_per_interpreter():
    one = phyre_client.simulator("/no/python", 1.0)
    assert one is phyre_client.simulator("/no/python", 1.0) is not phyre_client.simulator("/no/other", 1.0)
    with pytest.raises(TypeError):
        pickle.dumps(one)  # a source holds the interpreter's name instead
