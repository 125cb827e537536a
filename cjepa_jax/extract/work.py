"""Work on many videos: it is shown, stopped by a signal, and resumed."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cjepa_jax import __version__
from cjepa_jax.data.slot_writer import SlotWriter
from cjepa_jax.errors import PREEMPTED
from cjepa_jax.runtime.preemption import Signals

Result = TypeVar("Result")


class Work:
    """Writes slots of `total` videos. A stop signal ends `unless_stopped`, and with it the work.

    Attributes:
      writer: the folder, with the videos that an earlier process has written.
    """

    def __init__(self, writer: SlotWriter, signals: Signals, bar: tqdm, total: int):
        self.writer, self.total = writer, total
        self._signals, self._bar = signals, bar
        self._frames, self._began = 0, time.monotonic()

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """The result of `work`. None if a signal stops it, or has come."""
        return self._signals.unless_stopped(work)

    def counted(self, frames: Iterable[Any]) -> Iterator[Any]:
        """The same frames, which are counted for the display."""
        for frame in frames:
            yield frame
            self.saw(1)

    def saw(self, frames: int) -> None:
        """More frames are done."""
        self._frames += frames
        seconds = max(time.monotonic() - self._began, 1e-3)
        self._bar.set_postfix_str(f"{self._frames / seconds:.1f} frames/s", refresh=False)
        self._bar.update(0)

    def write(self, split: str, name: str, slots: Any) -> None:
        """Writes a video's slots, which the writer's `sync` keeps. Raises as SlotWriter.write."""
        self.writer.write(split, name, slots)
        self.done()

    def begin(self, what: str, count: int) -> None:
        """The display starts from 0, with other work on `count` videos."""
        self._bar.initial = 0  # of an earlier process's videos
        self._bar.set_postfix_str("", refresh=False)
        self._bar.set_description(what, refresh=False)
        self._bar.reset(count)

    def done(self) -> None:
        """One more video is done."""
        self._bar.update(1)

    def stopped(self) -> int:
        """Says that a signal has stopped the work. Returns the exit code."""
        signal = self._signals.received
        text = f"stopped by {signal.name if signal else 'a signal'}: {self.writer.out} keeps {self.writer.count} of"
        self._bar.close()
        print(f"{text} {self.total} videos. The same command resumes")
        return PREEMPTED

    def already(self) -> int:
        """Says that an earlier process has done the work. Returns the exit code."""
        self._bar.close()
        print(f"{self.writer.out}: done already, with the same weights, flags and videos")
        return 0


@contextlib.contextmanager
def on(out: Path, settings: Mapping[str, Any], total: int) -> Iterator[Work]:
    """The work on a folder that is made with these settings and the present versions. Raises as SlotWriter.

    Signals are caught inside: before, while an unfinished folder is checked, there is nothing to save.
    """
    import jax  # only after the command line has been checked

    versions = {"version of cjepa_jax": __version__, "version of JAX": jax.__version__}
    with SlotWriter(out, settings, versions) as writer, Signals() as signals, logging_redirect_tqdm():
        begun = total if writer.finished else writer.count
        with tqdm(total=total, initial=begun, unit="video", smoothing=0.05, mininterval=1) as bar:
            yield Work(writer, signals, bar, total)
