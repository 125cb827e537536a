"""Clips of any number of channels as NumPy files: NAME.npy, [T, H, W, C], or [T, H, W] of one channel."""

import math
from pathlib import Path

import numpy as np

from cjepa_jax.data.formats import bands
from cjepa_jax.data.formats.video_streams import Info
from cjepa_jax.errors import DataError

CODEC = "NPY"


class Arrays:
    """A Stream (data/formats/video_streams.py) of a .npy file. Frame t has the time t / rate.

    Raises DataError, naming file and clip, for files that are unreadable or of another number of channels.
    """

    def __init__(self, path: Path, where: str, channels: int, pixels: str, rate: float):
        self._path, self._where, self._pixels, self._rate = path, where, pixels, rate
        self._file, self._next = bands.Npy(path), 0
        shape = self._file.shape
        self._flat = channels == 1 and len(shape) == 3
        if not self._flat and (len(shape) != 4 or shape[3] != channels):
            self.close()
            hint = ""
            if len(shape) == 4 and channels in shape[:2]:
                hint = f". Channels come last: np.moveaxis(x, {shape.index(channels)}, -1)"
            wanted = f"must be [T, H, W, {channels}] (data.options.channels)"
            raise DataError(f"{path}: has the shape {list(shape)}: {wanted}{hint} ({where})")
        count = shape[0]
        self.info = Info(duration=count / rate, interval=1 / rate, rotation=0, codec=CODEC, indexed=True)

    def grab(self) -> float | None:
        if self._next >= self._file.shape[0]:
            return None
        self._next += 1
        return (self._next - 1) / self._rate

    def picture(self) -> np.ndarray:
        """The frame that was grabbed last, [H,W,C] of the type `pixels`. Raises DataError."""
        frame = self._file[self._next - 1 : self._next][0]
        frame = frame[..., None] if self._flat else frame
        return bands.converted(frame, self._pixels, f"{self._path}: frame {self._next - 1} ({self._where})")

    def seek(self, seconds: float) -> None:
        self._next = min(max(0, math.floor(seconds * self._rate)), self._file.shape[0])

    def close(self) -> None:
        self._file.close()
