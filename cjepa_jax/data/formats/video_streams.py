"""Open video files, decoded frame by frame, with the time of each frame. By OpenCV's FFmpeg.

Times are seconds after the stream's start.
"""

import math
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from cjepa_jax.data.formats import video, video_errors
from cjepa_jax.errors import DataError, one_line

TICK = 1e-6  # seconds: times that differ by less are equal. No container counts finer
MOST_RATE, MOST_SECONDS = 1e4, 1e7  # frames a second and seconds that a header may claim
INDEXED = (*video.MP4, b"RIFF", b"\x1aE\xdf\xa3")  # kinds in which a seek finds a frame that needs no earlier one


class Info(NamedTuple):
    """What a file's header says."""

    duration: float  # seconds, 0 if it does not say so reliably
    interval: float  # mean seconds from frame to frame, 0 if unknown
    rotation: int  # degrees by which a player turns the frames: 0, 90, 180 or 270
    codec: str  # name or tag, in capitals
    indexed: bool  # whether a seek can be relied on


class Stream(Protocol):
    """An open video file, decoded from its beginning or from where `seek` has moved to."""

    info: Info

    def grab(self) -> float | None:
        """Decodes the next frame. Returns its time, None after the last one. Raises DataError."""

    def picture(self) -> np.ndarray:
        """The frame that was grabbed last, [H,W,C]: uint8 RGB of a video file. Raises DataError."""

    def seek(self, seconds: float) -> None:
        """Moves to a frame at about this time, which needs no earlier one."""

    def close(self) -> None: ...


class OpenCv:
    """A Stream of OpenCV's VideoCapture. What FFmpeg reports as an error while it decodes is raised (video_errors)."""

    def __init__(self, path: Path, where: str, rotate: bool):
        head = video.check_kind(path, where)
        self._path, self._where = path, where
        self._capture = video.capture(path, where)
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, int(rotate))
        fps, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        interval = 1 / fps if math.isfinite(fps) and 0 < fps <= MOST_RATE else 0.0
        measured = head.startswith(video.MPEG) or video.is_stream(head)  # FFmpeg guesses from the file's size
        self.info = Info(
            duration=0.0 if measured else believable(count * interval),
            interval=interval,
            rotation=int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360,
            codec=tag(int(self._capture.get(cv2.CAP_PROP_FOURCC))),
            indexed=head[4:].startswith(INDEXED) or head.startswith(INDEXED),
        )
        self._time = -math.inf

    def grab(self) -> float | None:
        try:
            more = self._capture.grab()
        except cv2.error as error:
            raise DataError(
                f"{self._path}: unreadable after {self._time:.2f} s: {error.err} ({self._where})"
            ) from error
        if fault := video_errors.heard():
            raise damaged(self._path, self._time, fault, self._where)
        if not more:
            return None
        self._time = following(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, self._time, self.info.interval)
        return self._time

    def picture(self) -> np.ndarray:
        try:
            done, frame = self._capture.retrieve()
        except cv2.error as error:
            raise DataError(f"{self._path}: unreadable at {self._time:.2f} s: {error.err} ({self._where})") from error
        if not done or frame.dtype != np.uint8:
            raise DataError(f"{self._path}: the frame at {self._time:.2f} s is unreadable ({self._where})")
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB if frame.ndim == 2 else cv2.COLOR_BGR2RGB)

    def seek(self, seconds: float) -> None:
        self._capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * seconds)
        self._time = -math.inf

    def close(self) -> None:
        self._capture.release()


def damaged(path: Path, time: float, text: str, where: str) -> DataError:
    """The error for what FFmpeg reports after a frame at `time` (-inf: before the first)."""
    after = f"after {time:.2f} s" if math.isfinite(time) else "at its beginning"
    return DataError(f"{path}: damaged {after}: {one_line(text)[:200].strip()} ({where})")


def following(time: float, before: float, interval: float) -> float:
    """The time of a frame after one at `before`. An AVI gives no time for delayed frames."""
    return time if time > before else before + (interval or TICK)


def believable(seconds: float) -> float:
    """A duration from a header, 0 if it is none."""
    return seconds if math.isfinite(seconds) and 0 < seconds <= MOST_SECONDS else 0.0


def tag(number: int) -> str:
    """The text of a codec's tag of four characters."""
    return number.to_bytes(4, "little", signed=number < 0).decode("latin-1").strip(" \0").upper()
