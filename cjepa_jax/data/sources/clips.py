"""Base of the readers of published videos: their fields, and windows of clips of equal length."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.formats import video
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

# Labels of a source that knows its objects' motion in 3-D: their number, and means over them.
MOTION_LABELS = ("count", *(f"{what}/{axis}" for what in ("position", "velocity") for axis in "xyz"))


@dataclass(frozen=True)
class Clips:
    """A source of windows of video clips. A clip of L frames holds L // (frames * stride) windows, one scene each, with
    consecutive indices. frames = 1 gives single images.

    split: a key of `splits`. path: the data set's folder. size: frames with a longer short side are reduced to it.
    frames: T. count: number of scenes, in order (0: all). seed: unused, nothing is drawn here. stride: frames from one
    used frame to the next.

    Raises, when built, ConfigError for values out of their limits and DataError for a folder without the expected
    contents. Raises errors.DataError, when read, for a broken clip.
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 16
    count: int = 0
    seed: int = 0
    stride: int = 1
    clips: tuple = field(init=False, repr=False, compare=False)  # one entry per clip, from `scan`

    splits: ClassVar[dict[str, str]] = {}  # our name -> the data set's name
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in self.splits:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(self.splits)}")
        for name, least in (("size", 8), ("frames", 1), ("count", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)
        check_integer("data.options.stride", self.stride, 1)
        self.check()
        if not self.per_clip:
            span = f"data.frames x data.options.stride is {self.frames} x {self.stride}"
            raise ConfigError(f"{span}. The clips have {self.length} frames")
        if not self.path:
            raise ConfigError("data.path is empty: name the data set's folder")
        if not Path(self.path).is_dir():
            raise DataError(f"data.path {self.path}: no such folder")
        object.__setattr__(self, "clips", tuple(self.scan(Path(self.path))))
        if self.count > len(self.clips) * self.per_clip:
            has = f"its {self.splits[self.split]} split has {len(self.clips) * self.per_clip}"
            raise DataError(f"{self.path}: {self.count} scenes are asked for, {has}")

    @property
    def length(self) -> int:
        """Frames of every clip."""
        raise NotImplementedError

    @property
    def per_clip(self) -> int:
        """Windows of a clip."""
        return self.length // (self.frames * self.stride)

    def check(self) -> None:
        """Refuse options out of their limits with a ConfigError."""

    def scan(self, root: Path) -> Sequence[Any]:
        """The split's clips in their order, without decoding any. Raises DataError."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count or len(self.clips) * self.per_clip

    def locate(self, i: int) -> tuple[Any, np.ndarray]:
        """Scene i's clip and its frames' numbers, int [T]. Raises IndexError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        clip, window = divmod(i, self.per_clip)
        return self.clips[clip], (window * self.frames + np.arange(self.frames)) * self.stride

    def reduce(self, frames: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Video [T,H,W,3] and masks [K,T,H,W], reduced together."""
        return {"video": video.reduce_frames(frames, self.size), "masks": video.reduce_masks(masks, self.size)}


def mean_labels(states: np.ndarray, present: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Probe targets float32 [1 + columns]: the number of present objects (bool [K]), and the means of columns of states
    [K,S] over them (0 if there is none)."""
    means = states[present][:, columns].mean(0) if present.any() else np.zeros(len(columns))
    return np.concatenate([[present.sum()], means]).astype(np.float32)


def absent(what: str, names: Sequence[str]) -> str:
    """The text "N WHAT: a, b, c, ..."."""
    return f"{len(names)} {what}: {', '.join(map(str, names[:5]))}{', ...' if len(names) > 5 else ''}"
