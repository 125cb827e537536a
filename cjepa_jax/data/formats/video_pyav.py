"""Video files by PyAV (the extra `video`): FFmpeg with AV1, which also marks corrupt frames."""

import contextlib
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cjepa_jax.data.formats import video
from cjepa_jax.data.formats.image_bytes import MOST_PIXELS
from cjepa_jax.data.formats.video_streams import INDEXED, MOST_RATE, Info, believable, damaged, following
from cjepa_jax.errors import DataError
from cjepa_jax.host import optional


def load() -> ModuleType:
    """The package av. Raises ConfigError if it is not installed."""
    av = optional.need("av", "video", "data.options.reader = 'pyav'")
    av.logging.set_level(av.logging.ERROR)
    return av


class PyAv:
    """A Stream (data/formats/video_streams.py) of the file's first video stream, decoded in this thread.

    What FFmpeg reports as an error while a frame is decoded is raised as a DataError with its text.
    """

    def __init__(self, path: Path, where: str, rotate: bool):
        av = load()
        self._path, self._where, self._rotate, self._failure = path, where, rotate, av.error.FFmpegError
        head = video.check_kind(path, where)
        with contextlib.ExitStack() as stack:
            self._lines = stack.enter_context(av.logging.Capture())
            try:
                name, only = os.path.abspath(path), {"protocol_whitelist": "file"}
                container = stack.enter_context(av.open(name, options=only))
            except (self._failure, OSError, ValueError) as error:
                raise DataError(f"{path}: not readable as a video, or cut short ({where})") from error
            if not container.streams.video:
                raise DataError(f"{path}: has no video stream ({where})")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            context = stream.codec_context
            if not 0 < context.width * context.height <= MOST_PIXELS:
                size = f"{context.width}x{context.height}"
                raise DataError(f"{path}: frames of {size} pixels, at most {MOST_PIXELS} in all ({where})")
            self._container, self._stream, self._time = container, stream, -math.inf
            self._frames = container.decode(stream)
            self._frame: Any = None
            self._pending = self._next()  # the first frame knows the rotation
            rate = float(stream.average_rate or 0)
            measured = head.startswith(video.MPEG) or video.is_stream(head)
            length = container.duration / av.time_base if container.duration else 0.0
            if stream.duration and stream.time_base:
                length = float(stream.duration * stream.time_base)
            self.info = Info(
                duration=0.0 if measured else believable(length),
                interval=1 / rate if 0 < rate <= MOST_RATE else 0.0,
                rotation=-self._pending.rotation % 360 if self._pending else 0,
                codec=context.name.upper(),
                indexed=head[4:].startswith(INDEXED) or head.startswith(INDEXED),
            )
            self._start = float((stream.start_time or 0) * stream.time_base)
            self._close = stack.pop_all().close

    def grab(self) -> float | None:
        self._frame, self._pending = self._pending or self._next(), None
        if self._frame is None:
            return None
        time = -math.inf if self._frame.time is None else float(self._frame.time) - self._start
        if time == self._time == -math.inf:
            time = 0.0
        self._time = following(time, self._time, self.info.interval)
        return self._time

    def picture(self) -> np.ndarray:
        pixels = self._frame.to_ndarray(format="rgb24")
        turns = self._frame.rotation // 90 % 4 if self._rotate else 0
        return np.ascontiguousarray(np.rot90(pixels, turns))

    def seek(self, seconds: float) -> None:
        offset = int((max(0.0, seconds) + self._start) / self._stream.time_base)
        try:
            self._container.seek(offset, stream=self._stream, backward=True)
        except self._failure as error:
            raise DataError(f"{self._path}: no seek to {seconds:.2f} s ({self._where})") from error
        self._frames, self._pending, self._time = self._container.decode(self._stream), None, -math.inf

    def close(self) -> None:
        self._close()

    def _next(self) -> Any:
        """The next frame, None after the last one. Raises DataError."""
        try:
            frame = next(self._frames, None)
        except (self._failure, OSError, ValueError) as error:
            raise damaged(self._path, self._time, str(error), self._where) from error
        if self._lines or (frame is not None and frame.is_corrupt):
            text = self._lines[0][2] if self._lines else "FFmpeg calls a frame corrupt"
            raise damaged(self._path, self._time, text, self._where)
        return frame
