"""Processes that begin where modules are imported already, which takes two seconds for all of this package.

    python -m tests.forkserver FD MODULE...    serves requests from this socket until its other end is closed

A command is a real process: its own id, signals, pipes, exit code. It is its asker's child, as if that had started it.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings

from cjepa_jax.host import memory

COMMANDS = {name: name for name in ("cjepa_jax.train", "cjepa_jax.evaluate", "cjepa_jax.data.show")}
COMMANDS["cjepa_jax.bench"] = "cjepa_jax.bench.__main__"
PACKAGE = tuple(COMMANDS.values())
EARLY = ("cjepa_jax.cli",)  # what checks the command line and the config, before JAX is imported
FREE = ("XLA_FLAGS", "PYTEST_CURRENT_TEST", "FAIL_AT")  # read once a command runs, or never. Others may be read earlier
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
MOST = 1 << 20  # bytes of a request


class Process:
    """The part of subprocess.Popen that tests use, of a process with text pipes."""

    def __init__(self, pid: int, args: list[str], stdout: int, stderr: int):
        self.pid, self.args, self.returncode = pid, args, None
        self.stdout, self.stderr = os.fdopen(stdout), os.fdopen(stderr)

    def poll(self) -> int | None:
        self._look(os.WNOHANG)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if until is None:
                self._look(0)
            elif self.poll() is None:
                if time.monotonic() > until:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        said = ["", ""]

        def read(index, pipe):
            said[index] = pipe.read()

        # As with subprocess, a pipe that a test has closed is None.
        pipes = [each for each in enumerate((self.stdout, self.stderr)) if each[1] is not None]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in pipes]
        until = None if timeout is None else time.monotonic() + timeout
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if until is None else max(0, until - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        for _, pipe in pipes:
            pipe.close()
        self.wait(None if until is None else max(0.1, until - time.monotonic()))
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _look(self, options: int) -> None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)


class Server:
    """The process that has imported some modules, for one environment."""

    def __init__(self, environment: dict[str, str], folder: str, modules: tuple[str, ...]):
        tunables = ":".join(filter(None, (environment.get("GLIBC_TUNABLES"), memory.ALLOCATOR)))
        self._environment = environment | {"GLIBC_TUNABLES": tunables}  # with which commands start once more
        self._folder, self._modules = folder, modules
        self._lock = threading.Lock()
        self._process = None

    def start(
        self,
        argv: list[str],
        environment: dict[str, str],
        start_new_session: bool = False,
        cwd: str | None = None,
        path: str | None = None,
    ) -> Process:
        """The command; `path`: a folder in which to look for its module before others."""
        pipes = [os.pipe() for _ in range(2)]
        request = {"argv": argv, "free": {name: environment.get(name) for name in FREE}}
        request |= {"session": start_new_session, "cwd": cwd and str(cwd), "path": path and str(path)}
        with self._lock:
            self._begin()
            with _adopting():
                socket.send_fds(self._socket, [json.dumps(request).encode()], [write for _, write in pipes])
                answer = self._socket.recv(100)
        for _, write in pipes:
            os.close(write)
        assert answer, "the forkserver ended"
        return Process(int(answer), argv, *(read for read, _ in pipes))

    def _begin(self) -> None:
        if self._process is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            fd = theirs.fileno()
            argv = [sys.executable, "-m", "tests.forkserver", str(fd), *self._modules]
            self._process = subprocess.Popen(argv, env=self._environment, cwd=self._folder, pass_fds=[fd])
            theirs.close()


def fixed(environment: dict[str, str]) -> dict[str, str]:
    """What must be the same for commands of one server."""
    return {name: value for name, value in environment.items() if name not in FREE}


def serves(argv: list[str]) -> bool:
    """Whether this is a command of this package's, or code of a test's."""
    return argv[0] == sys.executable and (argv[1] == "-c" or (argv[1] == "-m" and argv[2] in COMMANDS))


@contextlib.contextmanager
def _adopting():
    """Grandchildren whose parent ends become this process's children."""
    prctl = ctypes.CDLL(None).prctl
    prctl(SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(SUBREAPER, 0, 0, 0, 0)


def serve(requests: socket.socket) -> list[str]:
    """Returns in each process that is to become a command: its argv."""
    while True:
        message, fds, _, _ = socket.recv_fds(requests, MOST, 2)
        if not message:
            os._exit(0)
        told = json.loads(message)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            pid = os.fork()
            if not pid:
                break
            os.write(write, str(pid).encode())
            os._exit(0)  # and the command is the asker's child
        os.waitpid(child, 0)
        requests.send(os.read(read, 100))
        for fd in (read, write, *fds):
            os.close(fd)
    for fd, number in zip(fds, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    for fd in (read, write):
        os.close(fd)
    requests.close()
    if told["session"]:
        os.setsid()
    if told["cwd"]:
        os.chdir(told["cwd"])
    sys.path[:0] = [folder for folder in (told["cwd"], told["path"]) if folder]
    for name, value in told["free"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    return told["argv"]


def become(argv: list[str]) -> None:
    """Runs what `python -m MODULE ...` or `python -c CODE ...` would, in a new __main__."""
    main = types.ModuleType("__main__", None)
    sys.orig_argv, sys.modules["__main__"] = argv, main
    if argv[1] == "-c":
        sys.argv, code = argv[1:2] + argv[3:], compile(argv[2], "<string>", "exec")
    else:
        spec = importlib.util.find_spec(COMMANDS.get(argv[2], argv[2]))
        sys.argv, code = [spec.origin, *argv[3:]], spec.loader.get_code(spec.name)
        main.__dict__.update(__spec__=spec, __file__=spec.origin, __loader__=spec.loader, __package__=spec.parent)
    exec(code, main.__dict__)


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 10, 10)  # looking through what a command makes takes a twentieth of its time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = serve(listening)
    become(wanted)
