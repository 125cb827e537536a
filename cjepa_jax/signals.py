"""Requests to stop: SIGTERM (preemption), SIGUSR1 and SIGUSR2 (SLURM's warning), SIGINT (Ctrl-C)."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType

STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class Signals:
    """While entered, the first stop signal only sets `received`; the loop saves and leaves when it suits it:

        with Signals() as signals:
            while not signals.received: ...

    A second signal ends the process at once, exit code 130, whatever it is doing: Python runs handlers only between
    two steps of the main thread, which may be compiling for minutes, so a thread of its own watches for the second.
    The handlers that were there come back on leaving.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

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

    def _watch(self) -> None:
        with open(self._bytes, "rb", buffering=0) as received:
            stops = 0
            while byte := received.read(1):
                stops += byte[0] in STOP
                if stops > 1:
                    os._exit(130)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(130)  # not sys.exit: a hanging save or a stuck data worker must not keep the process alive
        self.received = signal.Signals(number)
        # os.write, not print: the signal may have interrupted a print, whose lock is not re-entrant.
        os.write(sys.__stderr__.fileno(), f"{self.received.name}: saving, then stopping; again: at once\n".encode())
