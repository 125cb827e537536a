"""Stop signals: SIGTERM (preemption), SIGUSR1 and SIGUSR2 (SLURM's warning), SIGINT (Ctrl-C)."""

import atexit
import contextlib
import ctypes
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import TypeVar

from cjepa_jax.errors import PREEMPTED
from cjepa_jax.host import clock

STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
SAVING = "saving, then stopping"  # in the line printed after the first signal
PARENT = "CJEPA_JAX_PARENT"  # the variable with which a command passes its process id to those that it starts
WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl
PATIENCE = 10.0  # seconds for work that needs no saving, and for cleaning up after the last save
Result = TypeVar("Result")


def leave_at_once() -> None:
    """From here on a stop signal ends the process (75), because nothing is unsaved before `Signals` is entered, or
    after.

    A thread waits for it, because the main thread may be in a C call that takes minutes.
    """
    received, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)

    def watch() -> None:
        with open(received, "rb", buffering=0) as numbers:
            while (byte := numbers.read(1)) and byte[0] not in STOP:
                pass
        _flush_and_leave()

    threading.Thread(target=watch, name="early signals", daemon=True).start()
    for number in STOP:
        signal.signal(number, _wake)
    # Called last at Python's exit, which removes handlers. A later signal no longer changes the exit code.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in STOP])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)  # see hold_back


def end_with_parent(environment: Mapping[str, str] = os.environ) -> None:
    """If a command of ours has started this process (PARENT), the end of that command, even by SIGKILL, sends SIGTERM
    here.

    On Linux the kernel does this. On other systems a thread checks once a second.
    """
    parent = environment.get(PARENT, "")
    if not parent.isdecimal():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(WITH_PARENT, int(signal.SIGTERM), 0, 0, 0)
    else:

        def watch() -> None:
            while os.getppid() == int(parent):
                time.sleep(1.0)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, name="parent", daemon=True).start()
    if os.getppid() != int(parent):  # it has already ended
        os.kill(os.getpid(), signal.SIGTERM)


def hold_back() -> None:
    """Blocks stop signals across `os.exec*`, which resets handlers, until the new program calls `leave_at_once`.

    Does nothing unless this program has called it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [number for number in STOP if signal.getsignal(number) is _wake])


def _wake(number: int, frame: FrameType | None) -> None:
    """An empty handler, which is needed for C to write to the pipe. The thread at its other end reacts."""


def ended(code: int) -> int:
    """Returns the exit code of a command whose work is saved. If a signal stopped it (PREEMPTED), ends the process.

    Python's clean-up is left out: after work that was broken off, such as a compilation, destructors of C++ have
    crashed.
    """
    if code == PREEMPTED:
        _flush_and_leave()
    return code


def _flush_and_leave() -> None:
    try:
        sys.stdout.flush()
    finally:  # even if it has no reader any more
        os._exit(PREEMPTED)


class Stopped(BaseException):
    """A signal came while nothing needed saving. Not an Exception, so that no handler treats it as a failure."""


class Signals:
    """While entered, the first stop signal sets `received`. The loop then saves and leaves at a suitable time:

        with Signals() as signals:
            while not signals.received: ...

    Two kinds of work are interrupted: `unless_stopped` and `nothing_to_save`.

    A second signal ends the process at once with exit code 130. Python runs handlers only between two steps of the main
    thread, which may be compiling for minutes, so a separate thread watches for the second signal. The previous
    handlers are restored on leaving.

    Args:
      alone: whether this is the run's only process. Otherwise a signal sets `received` even when nothing needs saving,
        because the others must be told first.
    """

    def __init__(self, alone: bool = True) -> None:
        self._alone = alone
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._break_off = self._nothing_to_save = False

    def __enter__(self) -> "Signals":
        self._bytes, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wakeup)  # a byte per signal, from the handler in C
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        self._before = {number: signal.signal(number, self._handle) for number in STOP}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wakeup)  # ends the thread

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """The result of `work`. None if a signal has come, or interrupts the work."""
        try:
            self._break_off = True
            return None if self.received else work()
        except Stopped:
            return None
        finally:
            self._break_off = False

    @contextlib.contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """A signal ends the block by `Stopped`. If a C call prevents this, the process ends (75) soon."""
        try:
            self._break_off = self._nothing_to_save = self._alone
            if self.received and self._alone:
                raise Stopped
            yield
        finally:
            self._break_off = self._nothing_to_save = False

    def leave_soon(self) -> None:
        """Everything is saved. From here on the process does not wait for anything that hangs, such as a data worker
        (exit code 75)."""
        self._later(lambda: True)

    def _watch(self) -> None:
        with open(self._bytes, "rb", buffering=0) as received:
            stops = 0
            while byte := received.read(1):
                stops += byte[0] in STOP
                if stops > 1:
                    os._exit(130)
                if stops:
                    self._later(lambda: self._nothing_to_save)

    def _later(self, condition: Callable[[], bool]) -> None:
        def leave() -> None:
            clock.sleep(PATIENCE)
            if condition():
                _flush_and_leave()

        threading.Thread(target=leave, name="leaving", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(130)  # not sys.exit: a hanging save or a stuck data worker must not keep the process alive
        self.received = signal.Signals(number)
        # os.write, not print: the signal may have interrupted a print, whose lock is not re-entrant.
        # It may have no reader (`2>&1 | tee`, stopped by the same Ctrl-C), or there is no stderr.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            line = f"{self.received.name}: {SAVING}. Again: at once\n"
            os.write(sys.__stderr__.fileno(), line.encode())
        if self._break_off:
            self._break_off = False
            raise Stopped


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks the signals that ask to stop, for processes that are started inside.

    Ctrl-C and SLURM send these signals to every process of a group. Only the trainer may handle them, since it ends its
    helper processes itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    multiprocessing.resource_tracker.ensure_running()  # Python's helper process. This call lifts the mask
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
