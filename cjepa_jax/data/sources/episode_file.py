"""Recorded episodes: one HDF5 file in stable-worldmodel's layout (data/formats/episode_file.py)."""

import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.data.formats import episode_file, video
from cjepa_jax.data.worlds.base import check_integer, check_share
from cjepa_jax.errors import ConfigError, DataError


@dataclass(frozen=True)
class Windows:
    """Base of sources of recorded episodes: which windows of them are scenes.

    The last `held` of the episodes, in their order, are the splits eval and test: its first half, rounded up, and its
    second. Windows of an episode begin `hop` frames apart. Shorter episodes have none. With `stride` n, the action of a
    window's frame is the n actions up to its next frame in one row.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 4
    count: int = 0
    seed: int = 0
    stride: int = 1
    hop: int = 0  # 0: frames x stride, so windows do not overlap
    held: float = 0.1
    windows: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [n] their first frames, of all episodes'

    kind: ClassVar[str] = "episodes"
    can_rerender: ClassVar[bool] = False
    label_names: ClassVar[tuple[str, ...]] = ()
    splits: ClassVar[tuple[str, ...]] = ("train", "eval", "test")

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def span(self) -> int:
        """Frames from a window's first to its last one, with those that the stride skips."""
        return (self.frames - 1) * self.stride + 1

    def check(self) -> None:
        """Raises ConfigError for values out of their limits."""
        if self.split not in self.splits:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(self.splits)}")
        for name, least in (("size", 8), ("frames", 2), ("count", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)
        for name, least in (("stride", 1), ("hop", 0)):
            check_integer(f"data.options.{name}", getattr(self, name), least)
        check_share("data.options.held", self.held)

    def chosen(self, lengths: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The first frames of the split's windows, of episodes of these lengths that begin at these frames. Raises
        DataError if there are fewer than `count`, or none."""
        own = splits_of(len(lengths), self.held)[self.split]
        hop = self.hop or self.frames * self.stride
        starts = [np.arange(offsets[e], offsets[e] + lengths[e] - self.span + 1, hop) for e in own]
        windows = np.concatenate([np.zeros(0, np.int64), *starts])
        if self.count > len(windows) or not len(windows):
            raise DataError(
                f"{self.path}: {self.count or 'any'} windows are asked for, {self.split} has {len(windows)}"
            )
        return windows[: self.count or None]

    def checked(self, i: int) -> int:
        """The number of a window. Raises IndexError for one that does not exist."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        return i

    def joined(self, each: np.ndarray) -> np.ndarray:
        """The actions of a window's frames, float32 [T, stride A], from those of all frames [span, A]. The row of the
        last frame is 0."""
        actions = np.zeros((self.frames, self.stride * each.shape[1]), np.float32)
        actions[:-1] = each[:-1].reshape(self.frames - 1, -1)
        return actions


def splits_of(episodes: int, held: float) -> dict[str, np.ndarray]:
    """The numbers of each split's episodes. eval and test divide the last ones, which are the share `held`."""
    every, first = np.arange(episodes), episodes - round(held * episodes)
    half = first + (episodes - first + 1) // 2
    return {"train": every[:first], "eval": every[first:half], "test": every[half:]}


@dataclass(frozen=True)
class EpisodeFile(Windows):
    """Windows of recorded episodes. Splits, `stride` and `hop` are those of `Windows`.

    path: the file. size: frames with a longer short side are reduced to it. frames: T, at least 2. count: number of
    windows, in order (0: all). seed: unused. column: which one becomes the agent's state `proprio`. Without a column
    "proprio" there is no such state. "state" must be in the file. standardise: whether actions are given as deviations
    from the mean of all actions of the file, in standard deviations, as LeWorldModel's training does.

    Raises, when built, ConfigError for values out of their limits and DataError for a file that does not fit. Raises
    DataError, when read, for a broken window.
    """

    column: str = "proprio"  # or "state"
    standardise: bool = False
    agent: tuple = field(init=False, repr=False, compare=False)
    spread: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        self.check()
        if self.column not in episode_file.AGENT:
            raise ConfigError(f"data.options.column is {self.column!r}: must be proprio or state")
        if not self.path:
            raise ConfigError("data.path is empty: name the file of episodes")
        if not Path(self.path).is_file():
            raise DataError(f"data.path {self.path}: no such file")
        index = episode_file.index(self.path)
        object.__setattr__(self, "windows", self.chosen(index.lengths, index.offsets))
        if self.column != "proprio" and self.column not in index.columns:
            raise DataError(f"{self.path}: has no {self.column}, which data.options.column names")
        object.__setattr__(self, "agent", tuple(name for name in (self.column,) if name in index.columns))
        if not isinstance(self.standardise, bool):
            raise ConfigError(f"data.options.standardise is {self.standardise!r}: must be True or False")
        object.__setattr__(self, "spread", episode_file.spread(self.path) if self.standardise else (0.0, 1.0))

    @property
    def stored_size(self) -> int:
        """Pixels of the stored frames' shorter side. Raises DataError."""
        return min(episode_file.read(self.path, 0, 1, 1, ())[episode_file.PIXELS].shape[1:3])

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Window i: `video` uint8 [T,H,W,3], `actions` float32 [T, stride A] and perhaps `proprio` [T,S].

        The row of actions of the last frame is 0. No model uses it. Raises DataError, IndexError.
        """
        first = int(self.windows[self.checked(i)])
        raw = episode_file.read(self.path, first, self.frames, self.stride, self.agent)
        mean, deviation = self.spread
        each = raw[episode_file.ACTION]
        actions = self.joined((each - mean) / deviation if self.standardise else each)
        agent = {"proprio": raw[self.column]} if self.agent else {}
        for name, array in (("action", actions), *((self.column, array) for array in agent.values())):
            if not np.isfinite(array).all():
                raise DataError(f"{self.path}: {name} of window {i} is not finite")
        frames = video.reduce_frames(raw[episode_file.PIXELS], self.size)
        return {"video": frames, "actions": actions, **agent}
