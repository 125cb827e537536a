"""Point clouds in a folder for each class, as ModelNet is published, and your own.

DIR/CLASS/train/NAME.off     ModelNet10 and ModelNet40 (Princeton): 3,991 and 908 meshes, 9,843 and 2,468
DIR/CLASS/test/NAME.off      the eval split
DIR/train/CLASS/NAME.*       your own: .npy, .ply or .off
DIR/eval/CLASS/NAME.*
"""

import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.formats import point_files
from cjepa_jax.data.sources import annotations
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

SPLITS = {"train": ("train",), "eval": ("eval", "test", "val")}  # split -> folders, the first that is there


@dataclass(frozen=True)
class PointClouds:
    """Point clouds sorted by class and name: a source of kind "points".

    A scene has `points` float32 [P, 3] and `class`, int64 []: the number of its folder among the sorted folders. What
    is drawn of a file follows from the seed and the scene's number, so that scene i is always the same points.

    Args:
      split, path, count, seed, frames, size: as for every source. Clouds have one frame, and no size in pixels.
      points: P. Of files with more points some are drawn, fewer are repeated, meshes are sampled.
    Raises: ConfigError for values out of their limits. DataError for a folder that is missing or empty, and for a file
      that cannot be read.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 1
    count: int = 0
    seed: int = 0
    points: int = 1024
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)  # path of each scene below DIR
    classes: tuple[str, ...] = field(init=False, repr=False, compare=False)
    of: tuple[int, ...] = field(init=False, repr=False, compare=False)  # the class of each scene

    kind: ClassVar[str] = "points"
    label_names: ClassVar[tuple[str, ...]] = ()
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        check_integer("data.count", self.count, 0)
        check_integer("data.options.points", self.points, 2)
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds the classes, or train/ and eval/")
        found = [name.split("/") for name in annotations.tree(Path(self.path), point_files.SUFFIXES)]
        first = {"/".join(parts): parts for parts in found if len(parts) >= 3}
        outside = next((i for i in (0, 1) if any(parts[i] in SPLITS["train"] for parts in first.values())), None)
        if outside is None:
            raise DataError(f"{self.path}: no files in train/CLASS or CLASS/train ({', '.join(point_files.SUFFIXES)})")
        there = {parts[outside] for parts in first.values()}
        folder = next((name for name in SPLITS[self.split] if name in there), None)
        if folder is None:
            raise DataError(f"{self.path}: no folder {' or '.join(SPLITS[self.split])} with files")
        known = sorted({parts[1 - outside] for parts in first.values() if parts[outside] in SPLITS["train"]})
        own = {name: parts[1 - outside] for name, parts in first.items() if parts[outside] == folder}
        if strange := sorted(set(own.values()) - set(known)):
            raise DataError(f"{self.path}: class {strange[0]!r} has no files in train")
        object.__setattr__(self, "classes", tuple(known))
        names = annotations.first_of_each(own, self.count)
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "of", tuple(known.index(own[name]) for name in names))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i. Raises IndexError, DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        rng = seeds.generator(self.seed, "points that are drawn of a file", i)
        points = point_files.read(Path(self.path) / self.names[i], self.points, rng)
        return {"points": points, "class": np.array(self.of[i], np.int64)}
