"""Slots that an encoder has extracted from videos: a folder of arrays, and windows of them as scenes.

The folder holds `slots.npy` float32 [F, K, D], the frames of all videos one after the other, perhaps `actions.npy` and
`proprio.npy` float32 [F, A], and `videos.json`: {split: {"names": [...], "starts": [...], "frames": [...]}}.
`python -m cjepa_jax.data.slot_files` makes it from the published pickles.
"""

import functools
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import numpy as np

from cjepa_jax.data.formats import episode_file
from cjepa_jax.data.formats.files import read_json
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door

ARRAYS = ("slots", "actions", "proprio")
INDEX = "videos.json"
OTHER = {"eval": "val", "val": "eval"}  # names of the same split


@dataclass(frozen=True)
class SlotFiles:
    """Windows of T frames, every `skip`-th one, from videos of slots (data/kinds/slots.py).

    A video of F frames has (F - skip T) // stride + 1 windows. With stride 1 these are the published ones: a window
    takes skip x T frames, of which the last skip - 1 are not seen. The actions of a step are those of its `skip`
    frames, one after the other [T, skip x A]. The action of a video's last frame leads nowhere: where it is NaN, it is
    given as 0 and does not count for `standardise`. Nothing says which slots are empty, so all are present.

    Args:
      split: "train", "eval" (or "val"), "test", as the folder names them. path: the folder. frames: T.
      count: number of windows that are used, evenly spread over all videos. 0: all. size, seed: not used.
      skip: frames from one to the next. stride: frames from one window to the next.
      standardise: whether actions and the agent's state are deviations from their means, in standard deviations. Both
        are those of all frames of the split "train", or of the split itself in a folder without it.
    Raises: ConfigError for a value outside its limits. DataError for a folder that is missing or does not fit together.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 16
    count: int = 0
    seed: int = 0
    skip: int = 1
    stride: int = 1
    standardise: bool = False
    starts: np.ndarray = field(init=False, repr=False, compare=False)  # first frame of each video
    lasts: np.ndarray = field(init=False, repr=False, compare=False)  # last frame of each video
    before: np.ndarray = field(init=False, repr=False, compare=False)  # windows before each video, and all
    spreads: dict = field(init=False, repr=False, compare=False)  # of the agent's arrays, to standardise them

    kind: ClassVar[str] = "slots"
    can_rerender: ClassVar[bool] = False
    label_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for name, least in (("frames", 1), ("count", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)
        for name in ("skip", "stride"):
            check_integer(f"data.options.{name}", getattr(self, name), 1)
        if not isinstance(self.standardise, bool):
            raise ConfigError(f"data.options.standardise is {self.standardise!r}: must be True or False")
        starts, lengths = self._videos(self.split)
        windows = [max((length - self.skip * self.frames) // self.stride + 1, 0) for length in lengths]
        if not any(windows):
            raise ConfigError(
                f"data.frames = {self.frames} with data.options.skip = {self.skip}: no video of {self.path} has "
                f"{self.skip * self.frames} frames"
            )
        object.__setattr__(self, "starts", np.array(starts, np.int64))
        object.__setattr__(self, "lasts", np.array(starts, np.int64) + np.array(lengths, np.int64) - 1)
        object.__setattr__(self, "before", np.concatenate([[0], np.cumsum(windows)]))
        object.__setattr__(self, "spreads", self._spreads() if self.standardise else {})

    def _spreads(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation of each number of the agent's arrays, float32 [A] each. Raises DataError."""
        split = "train" if "train" in self._index() else self.split
        starts, lengths = self._videos(split)
        found = {}
        for name in self._agent:
            array = self._array(name)
            videos = (array[start : start + length] for start, length in zip(starts, lengths, strict=True))
            mean, deviation = episode_file.spread_of(videos, f"{self.path}/{name}.npy:")
            found[name] = mean.astype(np.float32), deviation.astype(np.float32)
        return found

    def _videos(self, split: str) -> tuple[list[int], list[int]]:
        """The first frames and the lengths of a split's videos. Raises DataError."""
        index = self._index()
        name = own_name(index, split)
        if name not in index:
            text = f"has no split {split!r}, but {', '.join(map(str, index))[:80]}"
            text += " (evaluate takes evals.test_split=eval)" if split == "test" else ""
            raise DataError(f"{self.path}/{INDEX}: {text}")
        rows = len(self._array("slots"))
        given = index[name] if isinstance(index[name], dict) else {}
        starts, lengths = (given.get(key) for key in ("starts", "frames"))
        if not _whole(starts) or not _whole(lengths) or len(starts) != len(lengths):
            text = "must have lists of whole numbers of at least 0, starts and frames"
            raise DataError(f"{self.path}/{INDEX}: {name!r} {text}")
        if any(start + length > rows for start, length in zip(starts, lengths, strict=True)):
            raise DataError(f"{self.path}/slots.npy: has {rows} frames, fewer than {INDEX} says")
        for other in self._agent:
            if len(self._array(other)) != rows:
                count = len(self._array(other))
                raise DataError(f"{self.path}/{other}.npy: has {count} frames: must have the {rows} of slots.npy")
        return starts, lengths

    def _index(self) -> dict[str, Any]:
        """The content of videos.json. Raises DataError."""
        index = read_json(Path(self.path) / INDEX)
        if not isinstance(index, dict):
            raise DataError(f"{self.path}/{INDEX}: must be an object")
        return index

    @property
    def _agent(self) -> tuple[str, ...]:
        """Those of "actions" and "proprio" that the folder has."""
        return tuple(name for name in ARRAYS[1:] if (Path(self.path) / f"{name}.npy").exists())

    def _array(self, name: str) -> np.ndarray:
        return opened(self.path, name)

    def every(self, name: str) -> np.ndarray:
        """The array "slots", "actions" or "proprio" of all frames of the folder, mapped. Raises DataError."""
        return self._array(name)

    @property
    def spread(self) -> tuple[Any, Any]:
        """The mean and the standard deviation of an action of one frame that were taken away, [A] each or 0 and 1."""
        return self.spreads.get("actions", (0.0, 1.0))

    @property
    def slots(self) -> int:
        """K."""
        return int(self._array("slots").shape[1])

    @property
    def width(self) -> int:
        """D."""
        return int(self._array("slots").shape[2])

    def __len__(self) -> int:
        total = int(self.before[-1])
        return min(self.count, total) if self.count else total

    def video_of(self, i: int) -> int:
        """The place of window i's video among those of the split. Raises IndexError."""
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        return int(np.searchsorted(self.before, self._window(i), "right")) - 1

    def _window(self, i: int) -> int:
        """The place of window i among all."""
        return i * int(self.before[-1]) // len(self)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Window i: video float32 [T, 1, K, D], and `actions` [T, skip A] and `proprio` [T, P] where there are any.

        Raises IndexError, and DataError for a number that is not finite.
        """
        return {name: array[0] for name, array in self.windows(np.array([i])).items()}

    def windows(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """The windows of these numbers, int [B], with B as the first axis. One copy of all is faster than one of each.

        Raises as `__getitem__`.
        """
        total, count = int(self.before[-1]), len(self)
        if ((numbers < 0) | (numbers >= count)).any():
            self.video_of(int(numbers[(numbers < 0) | (numbers >= count)][0]))
        places = numbers.astype(np.int64) * total // count
        videos = np.searchsorted(self.before, places, "right") - 1
        stride = min(self.stride, len(self._array("slots")))  # a longer one moves no window
        first = self.starts[videos] + (places - self.before[videos]) * stride
        every = first[:, None] + np.arange(0, self.skip * self.frames, self.skip)
        out = {"video": _taken(self._array("slots"), every)[:, :, None]}
        for name in self._agent:
            rows = first[:, None] + np.arange(self.skip * self.frames) if name == "actions" else every
            taken = _taken(self._array(name), rows)
            if self.standardise:
                mean, deviation = self.spreads[name]
                taken = (taken - mean) / deviation
            if name == "actions":
                taken[(rows == self.lasts[videos, None]) & np.isnan(taken).all(-1)] = 0
            out[name] = taken.reshape(len(numbers), self.frames, -1)
        for name, array in out.items():
            if not _finite(array):
                what = "slots" if name == "video" else name
                bad = int(first[next(i for i, window in enumerate(array) if not _finite(window))])
                end = bad + self.skip * self.frames
                raise DataError(f"{self.path}: frames {bad} to {end - 1} have {what} that are not finite")
        return out

    def forget(self) -> None:
        """Asks the system to drop the files' pages from memory, so that the next read is from the disk. For tests of
        speed. Nothing happens where a system has no such call."""
        for name in ("slots", *self._agent):
            mapped = getattr(self._array(name), "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED") and hasattr(os, "posix_fadvise"):
                mapped.madvise(mmap.MADV_DONTNEED)
                with door.regular(Path(self.path) / f"{name}.npy", links=True) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def own_name(index: dict, split: str) -> str:
    """The name that a folder's index has for the split: "val" may be called "eval", and the other way round."""
    return split if split in index else OTHER.get(split, split)


def _taken(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """array[rows] of a memory map, in one copy."""
    flat = np.asarray(array).reshape(len(array), -1)
    found = np.take(flat, rows.ravel(), axis=0, mode="clip")  # the rows are there: see _videos
    return found.reshape(*rows.shape, *array.shape[1:])


def _finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite. Without an array of flags: the least and the largest are not if one is not."""
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


@functools.lru_cache(maxsize=16)
def opened(path: str, name: str) -> np.ndarray:
    """A memory map of the folder's array, float32. Raises DataError for another file. Do not modify it."""
    file, axes = Path(path) / f"{name}.npy", 3 if name == "slots" else 2
    try:
        with door.regular(file, links=True):
            pass
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or 'is not an array'}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{file}: {str(error).splitlines()[0][:200]}") from error
    if array.ndim != axes or array.dtype != np.float32 or 0 in array.shape[1:]:
        raise DataError(f"{file}: is {array.dtype} {list(array.shape)}: must be float32 with {axes} axes")
    if not array.flags.c_contiguous:
        text = "is stored in Fortran order: must be in C order, since each read of a window would copy the whole file"
        raise DataError(f"{file}: {text}")
    return array


def _whole(values: Any) -> TypeGuard[list[int]]:
    """Whether `values`, of JSON, is a list of whole numbers of at least 0."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
