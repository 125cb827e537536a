"""Watchdog and heartbeat, in processes that they end."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from cjepa_jax.runtime.watchdog import Watchdog, gather, reach

STUCK = """
import sys, time
from cjepa_jax.runtime.watchdog import Watchdog
def stuck(): time.sleep(60)
with Watchdog(float(sys.argv[1]), sys.argv[2]) as watchdog:
    for _ in range(6):
        time.sleep(0.25)
        watchdog.beat()
    print("stuck", flush=True)
    stuck()
"""
PEER = """
import socket, sys, time
from cjepa_jax.runtime.watchdog import Heartbeat, gather, reach
rank, port, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
if rank:
    links = reach("127.0.0.1", port, "token", rank, 10)
else:
    server = socket.socket(fileno=port)
    stranger = socket.create_connection(server.getsockname())
    stranger.sendall(b"GET / HTTP/1.1")
    links = gather(server, 2, "token", 10)
heartbeat = Heartbeat(links, seconds)
print("up", flush=True)
sys.stdin.readline()
heartbeat.bye()
sys.stdin.readline()
"""
LOGGING = """
import os
from cjepa_jax.runtime import watchdog
leave = os._exit
def late(code):  # a thread of C++ logs after the reason, before the process is gone
    os.write(2, b"C++ says\\n")
    leave(code)
os._exit = late
os.write(2, b"before\\n")
watchdog.end("the reason")
"""
PIPES = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_no_step_for_too_long_ends_the_process_and_says_where_it_was(tmp_path):
    file = tmp_path / "stacks.txt"
    done = subprocess.run([sys.executable, "-c", STUCK, "1", file], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (70, "stuck\n")
    wanted = f"train.watchdog = 1: no step finished within these seconds. What each thread did: {file}"
    assert done.stderr.splitlines()[-1] == f"error: {wanted}"
    assert "in stuck" in done.stderr and "in stuck" in file.read_text()


def test_it_ends_though_nobody_reads_stderr(tmp_path):
    file = tmp_path / "stacks.txt"
    read, write = os.pipe()
    os.close(read)
    code = "import sys, time; from cjepa_jax.runtime.watchdog import Watchdog\n"
    code += "with Watchdog(0.1, sys.argv[1]): time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, file], stderr=write)
    os.close(write)
    assert process.wait(timeout=20) == 70 and "<module>" in file.read_text()


def test_the_reason_is_the_last_line_though_threads_log_until_the_end():
    done = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (70, "before\nerror: the reason\n")


def test_zero_is_never(tmp_path):
    with Watchdog(0, tmp_path / "stacks.txt") as watchdog:
        watchdog.beat()
    assert not list(tmp_path.iterdir())


def peers(seconds):
    """Three processes that watch each other."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PEER, str(rank), str(port if rank else server.fileno()), str(seconds)],
            pass_fds=() if rank else (server.fileno(),),
            **PIPES,
        )
        for rank in range(3)
    ]
    server.close()
    assert [process.stdout.readline() for process in started] == ["up\n"] * 3
    return started


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    "number, line",
    [
        (signal.SIGKILL, "has ended"),
        pytest.param(signal.SIGSTOP, "has given no sign of life", marks=pytest.mark.slow),
    ],
)
def test_who_is_gone_is_named_by_all_others(rank, number, line):
    seconds = 1.5 if number == signal.SIGSTOP else 30.0
    started = peers(seconds)
    sent = time.monotonic()
    os.kill(started[rank].pid, number)
    for other, process in enumerate(started):
        if other != rank:
            assert process.wait(timeout=20) == 70
            err = process.stderr.read()
            assert err.startswith(f"error: process {rank} {line}"), err
            assert err.count("\n") == 1
    assert time.monotonic() - sent < 2 * seconds
    started[rank].kill()
    started[rank].communicate()


@pytest.mark.slow
def test_all_of_them_may_be_suspended_for_long():
    started = peers(1.5)
    for number, seconds in ((signal.SIGSTOP, 4), (signal.SIGCONT, 3)):
        for process in started:
            os.kill(process.pid, number)
        time.sleep(seconds)
    assert [process.poll() for process in started] == [None] * 3
    for process in started:
        process.kill()
        process.communicate()


def test_whoever_says_goodbye_may_go():
    started = peers(30.0)
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        _, err = process.communicate("\n", timeout=20)
        assert (process.returncode, err) == (0, "")


def test_whoever_does_not_come_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(TimeoutError):
            gather(server, 1, "token", 0.1)
        address = server.getsockname()
    with pytest.raises(OSError):
        reach(*address, "token", 1, 0.1)
