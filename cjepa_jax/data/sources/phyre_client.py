"""The trainer's end of PHYRE's pipe. It starts the worker when needed, and replaces one that died or hangs."""

import functools
import logging
import os
import selectors
import signal
import subprocess
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from cjepa_jax.data.sources import phyre_worker
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import clock

SETUP = "Make it with: python3.9 -m venv ~/phyre && ~/phyre/bin/pip install phyre msgpack"
RESTARTS = 10  # without an answer in between, after which every further request is refused
TRIES = 2  # of a request
HEADER = phyre_worker.HEADER.size
EPITAPH = 5.0  # seconds for a worker that closed its stdout to end
CHUNK = 1 << 16  # bytes written at a time: the capacity of a pipe


class Failure(Exception):
    """The worker did not answer. The text says what it did instead."""


class Simulator:
    """One worker process, started by the first request. Threads take turns. Another process needs its own worker.

    The worker keeps no state between requests, so a new worker can repeat a failed request. A request is tried twice.
    After ten restarts without an answer in between, no more worker is started. The worker ends with this object, with
    this process (even if that is killed), and with a request that takes too long.
    """

    def __init__(self, command: Sequence[str], timeout: float = 60.0, start_timeout: float = 120.0) -> None:
        """command: what starts the worker, without its SECONDS; timeouts in seconds, for a request and for the start
        (which imports the simulator's libraries)."""
        self._command, self._timeout, self._start_timeout = tuple(command), timeout, start_timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._starts = 0
        self._failed = 0  # starts since the last answer to a request

    def __call__(self, op: str, **arguments: Any) -> Any:
        """The worker's reply to one request.

        Raises ConfigError if the first worker cannot be started. Raises DataError, naming the request, if it fails in
        the worker, or if the worker died, hung or wrote invalid messages twice.
        """
        text = ", ".join(f"{key} {value}" for key, value in arguments.items() if isinstance(value, str | int))
        message = phyre_worker.pack({"op": op, **arguments})
        with self._lock:
            for attempt in range(TRIES):
                try:
                    self._start()
                    reply = self._exchange(message, self._timeout)
                    self._failed = 0
                    break
                except Failure as failure:
                    logging.warning("PHYRE's worker %s, in %s (%s)", failure, op, text)
                    if attempt == TRIES - 1:
                        raise DataError(f"PHYRE's worker {failure}, {TRIES} times in {op} ({text})") from failure
        if "error" in reply:
            raise DataError(f"PHYRE's worker, {op} ({text}): {reply['error']}")
        return reply["ok"]

    def _start(self) -> None:
        if self._process is not None:
            return
        if self._failed > RESTARTS:
            raise DataError(f"PHYRE's worker failed {self._failed} times: it is not started again")
        pipe = subprocess.PIPE
        try:
            # In a new session, so that Ctrl-C at the terminal reaches only the trainer, which finishes its batch.
            self._process = subprocess.Popen(
                [*self._command, str(self._timeout)], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            name, reason = self._command[0].replace("\0", "\\0"), getattr(error, "strerror", error)
            raise ConfigError(f"PHYRE's interpreter {name}: {reason}. {SETUP}") from error
        self._end = weakref.finalize(self, end, self._process)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            os.set_blocking(stream.fileno(), False)
        self._starts += 1
        self._failed += 1
        try:
            self._exchange(phyre_worker.pack({"op": "hello"}), self._start_timeout)
        except Failure as failure:
            if self._starts > 1:
                raise
            raise ConfigError(f"PHYRE's interpreter {self._command[0]}: the worker {failure}. {SETUP}") from failure

    def _exchange(self, message: bytes, seconds: float) -> dict:
        """Writes a message and reads one. Raises Failure."""
        try:
            return exchange(self._process, message, seconds)
        except BaseException:  # also Ctrl-C: half a reply in the pipe would answer the next request
            self._end()
            self._process = None
            raise


@functools.cache
def simulator(python: str, timeout: float) -> Simulator:
    """This process's worker under the interpreter `python`: all sources share it."""
    # -I: do not search the trainer's PYTHONPATH, nor the folder of phyre.py, which is not PHYRE.
    return Simulator([python, "-I", phyre_worker.__file__], timeout)


def exchange(process: subprocess.Popen, message: bytes, seconds: float) -> dict:
    """The reply to a message, while stderr is drained. Raises Failure.

    seconds: time limit, not counting the time for which this process was suspended.
    """
    unsent, deadline = memoryview(message), clock.Deadline(seconds)
    received = {process.stdout: bytearray(), process.stderr: bytearray()}
    answer, errors = received.values()
    size = None  # of the whole answer, once its header is there
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        for stream in received:
            selector.register(stream, selectors.EVENT_READ)
        while size is None or len(answer) < size:
            ready = selector.select(deadline.slice())
            if deadline.over:
                raise Failure(f"gave no answer in {seconds:.3g} s{last_line(errors)}")
            for stream in (key.fileobj for key, _ in ready):
                if stream is process.stdin:
                    unsent = unsent[write(stream, unsent[:CHUNK]) :]
                    if not unsent:
                        selector.unregister(stream)
                elif data := os.read(stream.fileno(), 1 << 20):
                    received[stream] += data
                elif stream is process.stdout:
                    raise Failure(epitaph(process, errors))
                else:
                    selector.unregister(stream)
            del errors[:-4096]  # only its end is ever shown
            if size is None and len(answer) >= HEADER:
                size = HEADER + length(answer)
    return value(answer[HEADER:])


def length(answer: bytearray) -> int:
    try:
        return phyre_worker.length(bytes(answer[:HEADER]))
    except ValueError as error:
        raise Failure(f"wrote something that is {error}") from error


def value(body: bytearray) -> dict:
    # Not only ValueError: the errors of msgpack and reshape for invalid messages have no common base.
    try:
        reply = phyre_worker.unpack(bytes(body))
    except Exception as error:
        raise Failure(f"wrote an unreadable message ({type(error).__name__}: {error})") from error
    if not isinstance(reply, dict) or reply.keys() not in ({"ok"}, {"error"}):
        raise Failure("wrote a message that is not a reply")
    return reply


def write(stream: Any, data: memoryview) -> int:
    """Number of bytes written. All of them if the reader is gone: the next read reports how it ended."""
    try:
        return os.write(stream.fileno(), data)
    except BrokenPipeError:
        return len(data)


def epitaph(process: subprocess.Popen, errors: bytearray) -> str:
    """How a worker that closed its stdout ended."""
    clock.wait(process, EPITAPH)
    while data := process.stderr.read(1 << 16):
        errors += data
    code = process.returncode
    if code is None:
        return "closed its pipe" + last_line(errors)
    if code >= 0:
        return f"died (exit code {code})" + last_line(errors)
    names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
    return f"died ({names.get(-code, f'signal {-code}')})" + last_line(errors)


def last_line(errors: bytearray) -> str:
    lines = bytes(errors[-4096:]).decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""


def end(process: subprocess.Popen) -> None:
    """Kills a worker, if it is alive, and waits for it, so that no zombie is left."""
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    process.wait()
