"""Running time of this process: time for which it is stopped (Ctrl-Z, a suspended SLURM job) counts for no timeout.

    deadline = clock.Deadline(60)
    while not ready(timeout=deadline.slice()):
        if deadline.over: ...

The system's clocks continue while a process is stopped. A thread that wakes every TICK seconds therefore counts the
time, and counts no wait as longer than MOST. A longer wait means that the process was stopped or got no processor.
"""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

TICK = 0.2  # seconds between two readings of the system's clock
MOST = 0.6  # the longest time between two readings that is counted


class Running:
    """Calling it returns the seconds for which this process has been running since a fixed moment. Threads may share
    it."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock, self._thread = threading.Lock(), None
        self._seconds, self._looked = 0.0, time.monotonic()

    def __call__(self) -> float:
        with self._lock:
            if self._thread is None:
                self._looked = time.monotonic()  # nothing has been counted so far
                self._thread = threading.Thread(target=self._tick, name="clock", daemon=True)
                self._thread.start()
            return self._look()

    def _look(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._looked, MOST)
        self._looked = now
        return self._seconds

    def _tick(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                self._look()


running = Running()
os.register_at_fork(after_in_child=running._begin)  # a child has only the thread that forked


class Deadline:
    """A deadline after `seconds` of running time from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = running() + seconds

    @property
    def left(self) -> float:
        """Seconds, 0 when it is over."""
        return max(0.0, self._end - running())

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return not self.left

    def slice(self) -> float:
        """How long to wait before checking the deadline again. A longer wait would continue while the process is
        stopped."""
        return min(self.left, TICK)


def sleep(seconds: float) -> None:
    """Returns after `seconds` of running time."""
    deadline = Deadline(seconds)
    while not deadline.over:
        time.sleep(deadline.slice())


def wait(process: subprocess.Popen, seconds: float) -> int | None:
    """The exit code of a process, or None if it has not ended after `seconds` of running time."""
    deadline = Deadline(seconds)
    while (code := process.poll()) is None and not deadline.over:
        try:
            return process.wait(deadline.slice())
        except subprocess.TimeoutExpired:
            continue
    return code


def output(command: Sequence[str], seconds: float, **options: Any) -> bytes:
    """stdout of a command, as subprocess.run(check=True) gives it.

    Raises: OSError if it cannot be started. subprocess.SubprocessError if it fails, or takes longer than `seconds` of
      running time.
    """
    deadline = Deadline(seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options) as process:
        while True:
            try:
                out, _ = process.communicate(timeout=deadline.slice())
                break
            except subprocess.TimeoutExpired:
                if deadline.over:
                    process.kill()
                    raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out)
    return out
