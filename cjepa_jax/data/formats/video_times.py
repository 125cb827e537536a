"""Frames of a video at given times. They are the frames that FFmpeg's filter `fps` takes.

Frames are found by their own timestamps, so a variable frame rate needs no care. A file is decoded by OpenCV's FFmpeg
or by PyAV's.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cjepa_jax.data.formats import bands, video_arrays, video_pyav
from cjepa_jax.data.formats.image_bytes import check_room
from cjepa_jax.data.formats.video_streams import TICK, Info, OpenCv, Stream
from cjepa_jax.errors import ConfigError, DataError

READERS = ("opencv", "pyav")
MARGINS = (2.0, 20.0)  # seconds before a clip at which decoding begins, tried in turn before the file's beginning
COUNTING = "its frames are counted"


class Window(NamedTuple):
    """`frames` frames from `start` (seconds), `fps` a second."""

    start: float
    frames: int
    fps: float

    @property
    def span(self) -> float:
        """Seconds from the first frame to the last."""
        return (self.frames - 1) / self.fps

    @property
    def bounds(self) -> list[float]:
        """For each frame k: the last frame of the file before this time is taken (FFmpeg's `round=near`)."""
        return [self.start + (k + 0.5) / self.fps for k in range(self.frames)]


@dataclass(frozen=True)
class Reader:
    """How files are opened. name: of READERS. rotate: whether frames are turned as the header says. channels, pixels:
    of .npy files (data/formats/bands.py), which have `rate` frames a second."""

    name: str = "opencv"
    rotate: bool = True
    channels: int = bands.RGB
    pixels: str = bands.PIXELS[0]
    rate: float = 1.0

    def open(self, path: Path, where: str) -> Stream:
        """Raises DataError, naming file and clip. Raises ConfigError if PyAV is wanted and not installed."""
        if path.suffix.lower() == bands.ARRAY:
            return video_arrays.Arrays(path, where, self.channels, self.pixels, self.rate)
        if self.name == "opencv":
            return OpenCv(path, where, self.rotate)
        return video_pyav.PyAv(path, where, self.rotate)


def check_reader(name: str) -> None:
    """Raises ConfigError for a reader that is unknown or not installed."""
    if name not in READERS:
        raise ConfigError(f"data.options.reader is {name!r}: must be one of {', '.join(READERS)}")
    if name == "pyav":
        video_pyav.load()


def read(
    path: Path,
    choose: Callable[[Info], Window],
    reader: Reader,
    where: str,
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """The frames of a window of the file, each converted from [H,W,C] (uint8 RGB): [T,...].

    `choose` gets the header's facts, with the duration measured by decoding if the header does not say it. `where` says
    which clip it is, for messages. A frame at which the file has no new one repeats the one before.

    Raises DataError for a file that is missing, not a video, unreadable, ends before the last wanted frame, or has
    frames that are too large or of several sizes. Passes on what `choose` raises.
    """
    stream = reader.open(path, where)
    try:
        info = stream.info
        if not info.duration:
            info = info._replace(duration=ending(path, reader))
        window = choose(info)
        seeks = [margin for margin in MARGINS if info.indexed and window.start > 2 * margin]
        for attempt, margin in enumerate((*seeks, None, None)):
            if attempt:
                stream.close()
                stream = reader.open(path, where)
            try:
                if margin is not None:
                    stream.seek(window.start - margin)
                found = _sample(stream, window, path, where, convert, begins=margin is None, every=attempt > len(seeks))
            except DataError:
                if margin is None:
                    raise
                found = None  # decided from the file's beginning
            if found is not None:
                return found
    finally:
        stream.close()
    raise AssertionError("a pass that converts every frame finds those that are wanted")


def numbers(path: Path, window: Window, reader: Reader) -> tuple[list[int], int]:
    """The numbers (from 0) of the frames that `read` takes, and how many the file has. Decodes the whole file once."""
    known = timestamps(path, reader)
    return [max(0, int(np.searchsorted(known, bound - TICK)) - 1) for bound in window.bounds], len(known)


def ending(path: Path, reader: Reader) -> float:
    """The time at which the last frame ends. Decodes the whole file once."""
    known = timestamps(path, reader)
    return float(known[-1] + (np.diff(known).mean() if len(known) > 1 else 0.0))


def timestamps(path: Path, reader: Reader) -> np.ndarray:
    """The time of every frame, float64 [N]. The last files' are remembered. Raises DataError."""
    state = os.stat(path)
    return _timestamps(path, reader, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1024)
def _timestamps(path: Path, reader: Reader, *state: int) -> np.ndarray:
    stream, found = reader.open(path, COUNTING), []
    try:
        while (time := stream.grab()) is not None:
            found.append(time)
    finally:
        stream.close()
    if not found:
        raise DataError(f"{path}: no frame can be decoded")
    return np.array(found)


def _sample(stream, window, path, where, convert, begins=False, every=False) -> np.ndarray | None:
    """The window's frames. None if the stream begins after the first one, or one that is needed was not converted.

    A frame must be converted before the next one is decoded, which is when it is known whether it is the last before a
    bound. So those that could be are converted, judged by the largest interval so far, or all of them (`every`).
    """
    out: list[np.ndarray] = []
    bounds, gap, time = window.bounds, stream.info.interval, stream.grab()
    if time is None:
        raise DataError(f"{path}: no frame can be decoded ({where})")
    if not begins and time >= bounds[0] - TICK:
        return None
    while len(out) < len(bounds):
        bound, picture = bounds[len(out)], None
        if every or time + 2 * gap >= bound:
            picture = convert(stream.picture())
            if out and picture.shape != out[0].shape:
                raise DataError(f"{path}: frames of several sizes, the second at {time:.2f} s ({where})")
            check_room(f"{path}: frames ({where})", len(bounds), *picture.shape)
        later = stream.grab()
        gap = gap if later is None else max(gap, later - time)
        while len(out) < len(bounds) and (later is None or later >= bounds[len(out)] - TICK):
            wanted = bounds[len(out)] - 0.5 / window.fps
            if later is None and wanted >= time + gap + TICK:
                raise DataError(f"{path}: ends at {time + gap:.2f} s, a frame at {wanted:.2f} s is wanted ({where})")
            if picture is None:
                return None
            out.append(picture)
        time = later
    return np.stack(out)
