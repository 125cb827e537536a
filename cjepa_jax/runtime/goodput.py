"""Where a run's time went, over all its restarts."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from cjepa_jax.host import door

MOST = 2**16  # bytes of the file
KINDS = ("init", "compile", "data", "step", "checkpoint", "probe", "replay", "other")


class Goodput:
    """Seconds by kind. Their sum is the time since the run began, without the time between its processes.

    init: up to the first step. compile: steps that compiled. data: the device waited for a batch. step: steps that
    counted. replay: steps that were done before and lost with a killed process. checkpoint: the loop waited for a save.
    probe: the probe and the other monitors. other: log lines and the rest.

        goodput = Goodput(folder / "goodput.json")
        goodput.spent("init")
        ...
        with goodput.spending("probe"): probe()
        goodput.stepped(step=1, compiled=True, waited=0.01)

    Args:
      file: stores the seconds. Its content is added to.
      now: a clock in seconds.
    """

    def __init__(self, file: str | os.PathLike, now: Callable[[], float] = time.perf_counter):
        self._file, self._now = pathlib.Path(file), now
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._reached = self._step = 0
        # A file that a full disk cut short, or that holds something else, is forgone.
        with contextlib.suppress(FileNotFoundError, door.Refused, ValueError, TypeError, OverflowError):
            kept = {"reached": 0, **door.read_json(self._file, MOST)}
            self._reached, seconds = int(kept["reached"]), {kind: float(kept[kind]) for kind in KINDS if kind in kept}
            self.seconds |= seconds
        self._since = now()

    @property
    def total(self) -> float:
        """Seconds of all kinds."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """Share of the time spent in steps that counted, from 0 to 1."""
        return self.seconds["step"] / self.total if self.total else 0.0

    def spent(self, kind: str, until: float | None = None) -> float:
        """Books the time since the last booking, up to now or to an earlier time, and returns it."""
        now = self._now() if until is None else max(until, self._since)
        seconds, self._since = now - self._since, now
        self.seconds[kind] += seconds
        return seconds

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Books the time inside. The time before it is "other"."""
        self.spent("other")
        try:
            yield
        finally:
            self.spent(kind)

    def stepped(self, step: int, waited: float = 0.0, compiled: bool = False, until: float | None = None) -> float:
        """Books the time since the last booking as step number `step`, without its wait for data. Returns it.

        until: when the step and its wait were over, if that was before now.
        """
        kind = "compile" if compiled else "replay" if step <= self._reached else "step"
        seconds = self.spent(kind, until)
        waited = min(waited, seconds)
        self.seconds[kind] -= waited
        self.seconds["data"] += waited
        self._step = step
        return seconds

    def save(self) -> None:
        """Stores the seconds for the next process. Not synced: after a power cut the previous ones remain."""
        self.spent("other")
        text = json.dumps(self.seconds | {"reached": max(self._step, self._reached)}) + "\n"
        door.write_atomically(self._file, text, sync=False)
