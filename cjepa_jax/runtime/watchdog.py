"""Ends a process that cannot continue: no step finishes any more, or another process of the run is gone."""

import contextlib
import faulthandler
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn

from cjepa_jax.errors import PeerError
from cjepa_jax.host import clock, door

# Seconds beyond the limit after which even a process that never lets Python run is ended (exit code 1). That timer
# continues while the process is stopped, and may fire when it resumes. So it is longer than a night's suspension.
GRACE = 24 * 3600.0
RANK = 8  # digits of a rank in a greeting
CONNECTING = 10.0  # seconds after which a connection is tried again
BEATS = 5  # beats in the time after which a silent peer counts as dead


def end(line: str, code: int = PeerError.exit_code) -> NoReturn:
    """Ends the process at once, from any thread, even if something hangs. Its last line on stderr is `line`."""
    try:  # not print: the main thread may hold the lock of the stream
        stream = sys.__stderr__.fileno()
        reader = os.dup(stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)  # threads of C++, which nothing stops, log until the end
        os.write(reader, f"error: {line}\n".encode())
    finally:  # even if there is no stderr, or it has no reader
        os._exit(code)


class Watchdog:
    """While entered, ends the process (exit code 70) if `beat` has not been called for `seconds` seconds:

        with Watchdog(1800, workdir / "stacks.txt") as watchdog:
            for batch in batches:
                step(batch)
                watchdog.beat()

    The stacks of all threads go to stderr and to the file. Time in which the whole process was stopped (Ctrl-Z, a
    suspended job) does not count, up to a day. A C call that never lets Python run is ended only a day later, with exit
    code 1.

    Args:
      seconds: the limit (0: none).
      stacks: the file, written only then.
    """

    def __init__(self, seconds: float, stacks: str | os.PathLike):
        self._limit, self._file = seconds, pathlib.Path(stacks)
        self._beaten = clock.running()
        self._over = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._limit:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._limit:
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """Reports progress."""
        self._beaten = clock.running()

    def _watch(self) -> None:
        every = min(self._limit / 4, 1.0)
        while not self._over.wait(every):
            # A C call that never releases the interpreter stops this thread too. This timer needs no interpreter.
            faulthandler.dump_traceback_later(self._limit + GRACE, exit=True)
            if clock.running() - self._beaten > self._limit:
                self._end()

    def _end(self) -> None:
        where = self._file
        with contextlib.suppress(OSError, RuntimeError, AttributeError, ValueError):  # no stderr
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        try:
            with door.overwrite(self._file) as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:  # the file system may be what hangs or is full
            where = f"stderr alone ({error.strerror})"
        end(f"train.watchdog = {self._limit:g}: no step finished within these seconds. What each thread did: {where}")


class Heartbeat:
    """Heartbeats between process 0 and every other one. A process that misses a peer names it and ends (exit code 70).

    A process that dies closes its connections, which is detected at once. A frozen process, or one whose machine is
    gone, is detected after `seconds` of silence. Time in which this process was stopped does not count, because a whole
    run may be suspended. Process 0 tells the others before it ends, so that all name the same peer.

    Args:
      links: this process's open connections, by the rank of the process at their other end.
      seconds: of silence after which a peer counts as dead.
    """

    def __init__(self, links: Mapping[int, socket.socket], seconds: float):
        self._links, self._seconds = dict(links), seconds
        self._lock = threading.Lock()
        for rank, link in self._links.items():
            link.settimeout(seconds / BEATS)
            threading.Thread(target=self._listen, args=(rank, link), name=f"peer {rank}", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def bye(self) -> None:
        """This process is done. The others no longer watch it."""
        self._send("bye")

    def _send(self, line: str) -> None:
        for link in self._links.values():
            try:
                link.sendall(f"{line}\n".encode())
            except OSError:
                continue  # the thread that listens to this one detects it too, and reacts

    def _beat(self) -> None:
        while True:
            time.sleep(self._seconds / BEATS)
            self._send("alive")

    def _listen(self, rank: int, link: socket.socket) -> None:
        silence, text = clock.Deadline(self._seconds), b""
        while not silence.over:
            try:
                received = link.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                received = b""  # reset by a peer that died
            if not received:
                self._end(f"process {rank} has ended")
            silence = clock.Deadline(self._seconds)
            *lines, text = (text + received).split(b"\n")
            for line in lines:
                word, _, rest = line.decode().partition(" ")
                if word == "bye":
                    return
                if word == "lost":
                    self._end(rest)
        self._end(f"process {rank} has given no sign of life for train.heartbeat = {self._seconds:g} s")

    def _end(self, line: str) -> None:
        self._lock.acquire()  # never released: one thread reports
        self._send(f"lost {line}")
        if len(self._links) > 1:
            time.sleep(0.5)  # a connection that is closed with unread beats loses the last message
        end(line)


def gather(server: socket.socket, count: int, token: str, seconds: float) -> dict[int, socket.socket]:
    """Process 0: the other processes' connections by rank, once all `count` have connected with the run's token.

    Raises: TimeoutError if one has not connected within `seconds`.
    """
    links: dict[int, socket.socket] = {}
    deadline = clock.Deadline(seconds)
    while len(links) < count:
        server.settimeout(deadline.slice() or 0.001)
        try:
            link, _ = server.accept()
        except TimeoutError:
            if deadline.over:
                raise
            continue
        link.settimeout(5.0)
        try:
            given, rank = _read(link, len(token)), int(_read(link, RANK))
        except (OSError, ValueError):  # another program that scans open ports
            given = ""
        if given == token:
            links[rank] = link
        else:
            link.close()
    return links


def reach(host: str, port: int, token: str, rank: int, seconds: float) -> dict[int, socket.socket]:
    """Any other process: its connection to process 0. Raises: OSError if there is none within `seconds`."""
    deadline = clock.Deadline(seconds)
    while True:
        try:
            link = socket.create_connection((host, port), timeout=min(deadline.left, CONNECTING) or 0.001)
            break
        except TimeoutError:
            if deadline.over:
                raise
    link.sendall(f"{token}{rank:0{RANK}d}".encode())
    return {0: link}


def _read(link: socket.socket, length: int) -> str:
    text = b""
    while len(text) < length:
        part = link.recv(length - len(text))
        if not part:
            raise ConnectionError("closed")
        text += part
    return text.decode()
