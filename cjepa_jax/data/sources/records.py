"""Materialised scenes (`python -m cjepa_jax.data.build`), read with random access through ArrayRecord."""

import dataclasses
import functools
import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf.message import DecodeError

from cjepa_jax.data import checks, kinds
from cjepa_jax.data.formats.files import inside
from cjepa_jax.data.materialise import builders, dataset_spec
from cjepa_jax.data.worlds.base import Outcomes, World, check_integer
from cjepa_jax.errors import ConfigError, DataError, printable

KEPT_SETUPS = 256  # of the scenes read last, so that an intervention does not read its scene again


@dataclass(frozen=True)
class Records:
    """Scenes of a world from the folder `path`. do(remove) is simulated again from the stored initial state.

    A scene has the same bits as from the world itself. With a smaller `size` than the stored one, frames are reduced
    (by area) and masks too (nearest). With fewer `frames`, each scene is the beginning of the stored clip.

    Those of a world with actions are episodes (`kind`), with `actions` and `proprio`.

    count: number of scenes, from the first (0: all). seed: unused, the scenes are drawn already. world: "module:Class"
    of your world, if `path` holds its scenes. The folder itself cannot name code of another package.

    Raises ConfigError for a size or a length above the stored one. Raises DataError, when built, for a folder that is
    unfinished, damaged or holds too few scenes, and when read, naming file and record, for an unreadable record.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 16
    count: int = 0
    seed: int = 0
    world: str = field(default="", metadata={"data": False})

    label_names: tuple[str, ...] = field(init=False)
    state_names: tuple[str, ...] = field(init=False)
    kind: str = field(init=False)
    channels: int = field(init=False)
    can_rerender: bool = field(init=False, default=True)
    spec: str = field(init=False, repr=False, compare=False)  # as JSON: a frozen dataclass holds no dict

    def __post_init__(self):
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that data.build has written")
        root = Path(self.path)
        if self.split not in dataset_spec.splits(root):
            held = ", ".join(dataset_spec.splits(root)) or "no materialised scenes"
            raise DataError(f"{root}: no manifest-{self.split}.json. It holds {held}")
        spec = dataset_spec.check_sizes(root, self.split)["spec"]
        if self.world and self.world != spec["world"]:
            raise ConfigError(
                f"data.options.world is {self.world!r}. {root} holds scenes of {printable(spec['world'])!r}"
            )
        try:
            world = builders.world_of(spec, self.world)
        except ConfigError as error:
            raise DataError(f"{dataset_spec.path_of(root, self.split)}: no world of this version: {error}") from error
        for name, least in (("size", 8), ("frames", 1), ("count", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)
        for name in ("size", "frames"):
            if getattr(self, name) > spec[name]:
                raise ConfigError(f"data.{name} is {getattr(self, name)}. The scenes in {root} have {spec[name]}")
        if self.count > spec["count"]:
            raise DataError(f"{root}: split {self.split} has {spec['count']} scenes, data.count asks for {self.count}")
        object.__setattr__(self, "count", self.count or spec["count"])
        object.__setattr__(self, "label_names", world.label_names)
        object.__setattr__(self, "state_names", world.state_names)
        object.__setattr__(self, "kind", kinds.of(world))
        object.__setattr__(self, "channels", checks.channels_of(world)[0])
        object.__setattr__(self, "spec", json.dumps(spec))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i with all fields of its world. Raises IndexError, DataError."""
        stored, values = self._files, self._files.read(self._index(i))
        scene = {name: value for name, value in values.items() if name in stored.of_scene}
        if self.frames < stored.world.frames:
            beginning = stored.replay(i, lambda setup: self._short.play(setup))
            scene = {
                name: cut(value, name, self.frames) if name in stored.pixels else beginning[name]
                for name, value in scene.items()
            }
        if self.size < stored.world.size:
            for name in stored.pixels:
                scene[name] = shrink(scene[name], self.size)
        return scene

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove), uint8 [T,H,W,C].

        Raises: IndexError, DataError. DataError also if the installed packages do not reproduce the stored scenes to
        the bit.
        """
        stored = self._files
        self._index(i)
        stored.check_replay(i)
        video = stored.replay(i, lambda setup: stored.world.film(setup, removed))[: self.frames]
        return shrink(video, self.size) if self.size < stored.world.size else video

    def rollout(self, i: int, removed: np.ndarray) -> dict[str, np.ndarray]:
        """All of scene i under do(remove), as its world simulates it. Raises IndexError, DataError."""
        stored = self._files
        self._index(i)
        stored.check_replay(i)
        world = dataclasses.replace(stored.world, frames=self.frames)
        scene = stored.replay(i, lambda setup: world.play(setup, removed))
        if self.size < stored.world.size:
            scene |= {name: shrink(scene[name], self.size) for name in stored.pixels}
        return scene

    def setup(self, i: int) -> Any:
        """The initial state of scene i, as its world drew it. Raises IndexError, DataError."""
        return self._files.replay(self._index(i), lambda setup: setup)

    @property
    def simulator(self) -> World:
        """The world that made the scenes, in this size and length."""
        return dataclasses.replace(self._files.world, size=self.size, frames=self.frames)

    @property
    def stored_size(self) -> int:
        """Pixels of the stored frames' sides."""
        return self._files.world.size

    @property
    def do(self) -> str:
        """What an intervention of its world is."""
        return getattr(self._files.world, "do", "remove")

    def changed(self, setup: Any, chosen: np.ndarray) -> np.ndarray:
        """See World."""
        return self._files.world.changed(setup, chosen)

    @property
    def question(self) -> str:
        """The question that `outcomes` answers, in words."""
        return self._files.world.question

    def questions(self, i: int) -> list[dict]:
        """The world's questions in words about scene i, [] for a world without any. Raises IndexError."""
        world = dataclasses.replace(self._files.world, frames=self.frames)
        return world.questions(self._index(i)) if hasattr(world, "questions") else []

    def outcomes(self, i: int) -> Outcomes:
        """The answers to the world's question about scene i. Raises IndexError, DataError."""
        stored = self._files
        values = stored.read(self._index(i))
        if any(f"outcomes/{name}" not in values for name in Outcomes._fields):
            raise DataError(f"{self.path}: the world {type(stored.world).__name__} asks no question")
        if self.frames < stored.world.frames:  # "at the end" is then earlier
            return self._short.outcomes(i)
        return Outcomes(*(values[f"outcomes/{name}"] for name in Outcomes._fields))

    def _index(self, i: int) -> int:
        i = operator.index(i)
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} is out of range: {self.path} has scenes 0 to {self.count - 1}")
        return i

    @property
    def _files(self) -> "Files":
        return open_files(self.path, self.spec, self.world)

    @property
    def _short(self) -> World:
        """The world with fewer frames and tiny pixels, for everything except pixels."""
        return dataclasses.replace(self._files.world, frames=self.frames, size=8)


class Files:
    """The files of one split, opened at the first read, once per process, for any number of threads."""

    def __init__(self, root: str, spec: dict[str, Any], world: str):
        self.root, self.spec, self.fields = Path(root), spec, spec["fields"]
        self.world, self.features = builders.world_of(spec, world), builders.features_of(spec["fields"])
        self.pixels = [name for name, (kind, _) in self.fields.items() if name == "video" or kind == builders.BITS]
        self.of_scene = {name for name in self.fields if "/" not in name and name not in ("setup", "index")}
        files = [
            Whole(self.file(k), len(dataset_spec.scenes_of(spec, k))) for k in range(dataset_spec.shard_count(spec))
        ]
        self.records = ArrayRecordDataSource(files)
        self.setups: dict[int, bytes] = {}
        self.replays = False

    def file(self, shard: int) -> str:
        return str(inside(self.root, dataset_spec.shard_name(self.spec, shard)))

    def read(self, i: int) -> dict[str, np.ndarray]:
        """All fields of record i. Raises DataError, naming the file and the record."""
        try:
            record = self.records[i]
            values = builders.decode(self.fields, self.features.deserialize_example_np(record))
            if values["index"] != i:
                raise ValueError(f"it holds scene {values['index']}")
        except (DecodeError, OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise self.broken(i, "cannot be read", error) from error
        while len(self.setups) >= KEPT_SETUPS:
            self.setups.pop(next(iter(self.setups), None), None)
        self.setups[i] = values["setup"].tobytes()
        return values

    def replay(self, i: int, play: Callable[[Any], Any]) -> Any:
        """`play` of the initial state of scene i. Raises DataError, naming the file and the record."""
        packed = self.setups.get(i)
        packed = self.read(i)["setup"].tobytes() if packed is None else packed
        try:
            return play(self.world.unpack(packed))
        except DataError as error:
            raise self.broken(i, "cannot be simulated again", error) from error

    def broken(self, i: int, what: str, error: Exception) -> DataError:
        """The error of record i."""
        shard, place = divmod(i, self.spec["shard"])
        reason = str(error).strip().split("\n")[0][:200]
        return DataError(f"{self.file(shard)}: record {place} (scene {i}) {what}: {reason}")

    def check_replay(self, i: int) -> None:
        """Checks once that the installed packages reproduce the stored bits. Raises DataError otherwise."""
        if not self.replays:
            video = self.replay(i, self.world.film)
            if not np.array_equal(video, self.read(i)["video"]):
                made = ", ".join(f"{name} {version}" for name, version in self.spec["versions"].items())
                raise DataError(f"{self.root}: scene {i} is simulated otherwise here than where it was made ({made})")
            self.replays = True


@dataclass(frozen=True)
class Whole:
    """A file and the number of its records, known without opening it (array_record's protocol)."""

    filename: str
    take: int
    skip: int = 0

    @property
    def examples_in_shard(self) -> int:
        return self.take


@functools.lru_cache(maxsize=8)
def open_files(path: str, spec: str, world: str) -> Files:
    """The files of a split, once per process."""
    return Files(path, json.loads(spec), world)


def cut(value: np.ndarray, name: str, frames: int) -> np.ndarray:
    """The first frames of a video [T,H,W,C] or of masks [K,T,H,W]."""
    return value[:frames] if name == "video" else value[:, :frames]


def shrink(value: np.ndarray, size: int) -> np.ndarray:
    """A square video uint8 [T,S,S,C] (by area) or masks bool [K,T,S,S] (nearest) at size x size."""
    if value.dtype == bool:
        places = ((np.arange(size) + 0.5) * value.shape[-1] / size).astype(int)
        return value[..., places[:, None], places]
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in value])
