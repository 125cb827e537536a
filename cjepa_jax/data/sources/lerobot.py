"""Recorded episodes in the layout of LeRobot (data/formats/lerobot_files.py): parquet files and videos."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cjepa_jax.data.formats import files, lerobot_files, video, video_times
from cjepa_jax.data.formats.lerobot_files import ACTION
from cjepa_jax.data.formats.video_times import Reader, Window
from cjepa_jax.data.sources.episode_file import Windows
from cjepa_jax.errors import ConfigError, DataError


@dataclass(frozen=True)
class LeRobot(Windows):
    """Windows of recorded episodes. Splits, `stride` and `hop` are those of `Windows`.

    path: the folder that has `meta`. size: frames with a longer short side are reduced to it. camera: the key of the
    video, such as "observation.images.top" ("": the only one). state: the feature that becomes the agent's state
    `proprio` ("": none). reader: "opencv" or "pyav", which some codecs need.

    Raises, when built, ConfigError for values out of their limits and DataError for a folder that does not fit. Raises
    DataError, when read, for a broken window.
    """

    camera: str = ""
    state: str = lerobot_files.STATE
    reader: str = "opencv"
    index: lerobot_files.Index = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        self.check()
        video_times.check_reader(self.reader)
        lerobot_files.load()
        if not self.path:
            raise ConfigError("data.path is empty: name the folder of episodes")
        if not Path(self.path).is_dir():
            raise DataError(f"data.path {self.path}: no such folder")
        index = lerobot_files.index(Path(self.path), self.state)
        if not index.cameras:
            raise DataError(f"{self.path}: has no video. Images within parquet files are not read")
        if self.camera not in index.cameras and (self.camera or len(index.cameras) > 1):
            known = ", ".join(index.cameras)
            raise ConfigError(f"data.options.camera is {self.camera!r}: must be one of {known}")
        offsets = np.cumsum(index.lengths) - index.lengths
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "windows", self.chosen(index.lengths, offsets))

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Window i: `video` uint8 [T,H,W,3], `actions` float32 [T, stride A] and perhaps `proprio` [T,S].

        The row of actions of the last frame is 0. No model uses it. Raises DataError, IndexError.
        """
        index, root = self.index, Path(self.path)
        window = int(self.windows[self.checked(i)])
        ends = np.cumsum(index.lengths)
        episode = int(np.searchsorted(ends, window, side="right"))
        first = window - int(ends[episode] - index.lengths[episode])
        raw = lerobot_files.columns(
            root,
            lerobot_files.data_name(index, episode),
            [*index.columns, "episode_index", "frame_index"],
            most=lerobot_files.MOST_ROWS,
            first=int(index.rows[episode]) + first,
            count=self.span,
        )
        where = f"{self.path}: window {i}"
        expected = np.arange(first, first + self.span)
        if (raw["episode_index"] != episode).any() or (raw["frame_index"] != expected).any():
            raise DataError(f"{where}: rows are not frames {first} to {first + self.span - 1} of episode {episode}")
        for name, width in index.columns.items():
            if raw[name].shape != (self.span, width) or not np.isfinite(raw[name]).all():
                raise DataError(f"{where}: {name} must be {width} finite numbers in each row")
        scene = {"video": self._frames(episode, first, where), "actions": self.joined(raw[ACTION])}
        if self.state in index.columns:
            scene["proprio"] = raw[self.state][:: self.stride].astype(np.float32)
        return scene

    def _frames(self, episode: int, first: int, where: str) -> np.ndarray:
        """The window's frames, found by their times: 1 / fps apart from the episode's start in the video on."""
        index, camera = self.index, self.camera or self.index.cameras[0]
        path = files.inside(Path(self.path), lerobot_files.video_name(index, camera, episode))
        start = float(index.videos[camera][episode, 2]) + first / index.fps
        window = Window(start, self.span, index.fps)  # all of them: a lower rate takes frames between its times
        shrink = functools.partial(_reduced, short=self.size)
        return video_times.read(path, lambda info: window, Reader(self.reader), where, shrink)[:: self.stride]


def _reduced(frame: np.ndarray, short: int) -> np.ndarray:
    return video.reduce_frames(frame[None], short)[0]
