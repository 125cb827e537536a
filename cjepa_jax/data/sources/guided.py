"""Scenes with an embedding from elsewhere: features of another model from a file, or the simulator's outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from cjepa_jax.configuration import seeds
from cjepa_jax.data import checks
from cjepa_jax.data.base import Source
from cjepa_jax.data.formats.bands import Npy
from cjepa_jax.data.sources import wrapped
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

MOST_STEPS, MOST = 256, 1 << 20  # steps and numbers of an embedding
MOST_OBJECTS = 64
OCTAVES = 4  # of the waves that write a place
NUMBERS = 2 * (1 + 2 * OCTAVES)  # of an object: x and y, each with sines and cosines
STATES = ("present", "position/x", "position/y")  # that the outcome is made of


@dataclass(frozen=True)
class Guided:
    """The scenes of another source, each with `embedding` float32 [S, E]: S steps of a slow stream, in order of time.

    Options:
      of: the source, "module:Class", which is given split, path, size, frames, count and seed. of_options: its options.
      embeddings: a folder with SPLIT.npy of each split, floats [n, S, E] as np.save writes them. Row i belongs to scene
        i of that split. There is one row for each scene, or more where `count` leaves scenes out. "": the outcome,
        from the source's `states`. It needs data.crop = False.
      steps: S of the outcome. Step s is the last frame of the s-th of S equal parts of the clip, also of the future.
      objects: of the outcome, the first ones of the scene. Each has its place and sines and cosines of it, 18 numbers,
        which are 0 for an object that is not there.
      shuffled: scene i gets the embedding of another scene, drawn from the seed. A control.
    Raises, when built, ConfigError for options that cannot work and DataError for a file that does not fit. Raises
    DataError, when read, for numbers that are not finite.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 4
    count: int = 10_000
    seed: int = 0
    of: str = "cjepa_jax.data.worlds:Balls"
    of_options: Mapping[str, Any] = field(default_factory=dict)
    embeddings: str = ""
    steps: int = 2
    objects: int = 4
    shuffled: bool = False
    source: Source = field(init=False, repr=False, compare=False)
    kind: str = field(init=False, default="video", repr=False, compare=False)  # the source's
    embedding_shape: tuple[int, int] = field(init=False, default=(0, 0), repr=False, compare=False)  # (S, E)

    def __post_init__(self):
        for name, most in (("steps", min(MOST_STEPS, self.frames)), ("objects", MOST_OBJECTS)):
            check_integer(f"data.options.{name}", getattr(self, name), 1)
            if getattr(self, name) > most:
                raise ConfigError(f"data.options.{name} is {getattr(self, name)}: must be at most {most}")
        if not isinstance(self.shuffled, bool):
            raise ConfigError(f"data.options.shuffled = {self.shuffled!r}: must be True or False")
        if not isinstance(self.embeddings, str):
            raise ConfigError(f"data.options.embeddings = {self.embeddings!r}: must be a folder's name, or empty")
        object.__setattr__(self, "of_options", dict(self.of_options))
        object.__setattr__(self, "source", wrapped.inner(self))
        object.__setattr__(self, "kind", getattr(self.source, "kind", "video"))
        if self.shuffled and len(self) < 2:
            raise ConfigError("data.options.shuffled = True: needs at least 2 scenes")
        if self.embeddings:
            self._check_file()
        elif not set(STATES) <= set(self.state_names):
            raise ConfigError(
                f"data.options.embeddings = '': {type(self.source).__name__} has no states with {', '.join(STATES)}, "
                "so there is no outcome: name a folder of embeddings"
            )
        else:
            object.__setattr__(self, "embedding_shape", (self.steps, NUMBERS * self.objects))

    @property
    def _file(self) -> Path:
        return Path(self.embeddings) / f"{self.split}.npy"

    def _check_file(self) -> None:
        with Npy(self._file) as found:
            shape, kind = found.shape, found.dtype
        if len(shape) != 3 or kind.kind != "f":
            raise DataError(f"{self._file}: is {kind} {list(shape)}: must be floats [n, S, E]")
        if shape[1] > MOST_STEPS or shape[1] * shape[2] > MOST:
            raise DataError(f"{self._file}: is {list(shape)}: S is at most {MOST_STEPS}, and S E at most {MOST}")
        cut = self.count and len(self) == self.count  # the file may be of all scenes
        if shape[0] < len(self) or (shape[0] > len(self) and not cut):
            raise DataError(f"{self._file}: has {shape[0]} rows: must have one for each of the {len(self)} scenes")
        object.__setattr__(self, "embedding_shape", shape[1:])

    @property
    def fixed_view(self) -> bool:
        """Whether a crop or a flip of the video would make the embedding wrong: the outcome says places."""
        return not self.embeddings

    @property
    def can_rerender(self) -> bool:
        return self.source.can_rerender

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.source.label_names

    @property
    def state_names(self) -> tuple[str, ...]:
        return getattr(self.source, "state_names", ())

    @property
    def channels(self) -> int:
        return checks.channels_of(self.source)[0]

    @property
    def pixels(self) -> str:
        return checks.channels_of(self.source)[1]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i of the source, with `embedding` float32 [S, E]. Raises DataError, IndexError."""
        scene = self.source[i]
        other = self.partner(i) if self.shuffled else i
        if self.embeddings:
            return {**scene, "embedding": self._row(other)}
        return {**scene, "embedding": self.outcome(scene if other == i else self.source[other])}

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The source's video under do(remove)."""
        return self.source.intervene(i, removed)

    def partner(self, i: int) -> int:
        """Another scene than i, uniform among all others."""
        step = seeds.generator(self.seed, "embeddings of other scenes", int(i)).integers(1, len(self))
        return int((i + step) % len(self))

    def _row(self, i: int) -> Float32[np.ndarray, "S E"]:
        with Npy(self._file) as found:
            if i >= found.shape[0]:
                raise DataError(f"{self._file}: has no row {i}")
            with np.errstate(over="ignore"):  # of float64: infinite, which is refused below
                row = found[i : i + 1][0].astype(np.float32)
        if not np.isfinite(row).all():
            raise DataError(f"{self._file}: row {i} is not finite")
        return row

    def outcome(self, scene: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "S E"]:
        """The places of the first objects at the end of each of S parts of the clip."""
        columns = [self.state_names.index(name) for name in STATES]
        ends = [self.frames * (s + 1) // self.steps - 1 for s in range(self.steps)]
        known = np.asarray(scene["states"], np.float32)[ends][:, : self.objects, columns]  # [S,K,3]
        angle = known[..., 1:, None] * (np.pi * 2.0 ** np.arange(OCTAVES))
        place = np.concatenate([known[..., 1:, None], np.sin(angle), np.cos(angle)], -1).reshape(*known.shape[:2], -1)
        place = np.where(known[..., :1] > 0, place, 0).astype(np.float32)
        missing = self.objects - place.shape[1]
        return np.pad(place, ((0, 0), (0, missing), (0, 0))).reshape(self.steps, -1)
