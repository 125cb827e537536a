"""Pictures in a folder for each class, as Imagenette and many others are published.

    DIR/train/CLASS/NAME.{png,jpg,jpeg,webp,bmp,tif,tiff}    sub-folders of CLASS belong to it
    DIR/val/CLASS/NAME.*                                     the eval split

Imagenette (fastai, ten classes of ImageNet): 9,469 and 3,925 pictures, DIR is imagenette2, imagenette2-320 or
imagenette2-160.
"""

import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.data.formats import image_files, video
from cjepa_jax.data.sources import annotations
from cjepa_jax.data.sources.folder import SUFFIXES, pictures
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

SPLITS = {"train": "train", "eval": "val"}  # split -> folder


@dataclass(frozen=True)
class ClassFolders:
    """Pictures sorted by class and name. A source of scenes with T = 1, without masks (K = 0) and labels.

    Pictures are turned as their EXIF says. One whose short side exceeds 2 x size is first reduced to 2 x size. A scene
    also holds `class`, int64 []: the number of its folder among the sorted folders of DIR/train.

    white: the value that is white in 16-bit pictures (0: 65535).

    Raises ConfigError for values out of their limits. Raises DataError: when built, for a folder that is missing or
    empty, and for a class of DIR/val that DIR/train does not have; when read, naming the file, for pictures that cannot
    be read.
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 1
    count: int = 0  # scenes, 0 for all. Of several classes: the first of each in turn
    seed: int = 0  # unused: nothing is drawn here
    white: int = 0
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)  # CLASS/NAME of each scene
    classes: tuple[str, ...] = field(init=False, repr=False, compare=False)

    label_names: ClassVar[tuple[str, ...]] = ()
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        check_integer("data.count", self.count, 0)
        check_integer("data.size", self.size, 8)
        if self.frames != 1:
            raise ConfigError(f"data.frames is {self.frames}: pictures have 1 frame per scene")
        image_files.check_options("", self.white)
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds train/ and val/")
        known = _by_class(Path(self.path) / SPLITS["train"])
        own = known if self.split == "train" else _by_class(Path(self.path) / SPLITS[self.split])
        if strange := sorted(own.keys() - known):
            raise DataError(f"{self._root / strange[0]}: {Path(self.path) / SPLITS['train']} has no such class")
        object.__setattr__(self, "classes", tuple(sorted(known)))
        names = annotations.first_of_each({name: key for key in own for name in own[key]}, self.count)
        object.__setattr__(self, "names", tuple(names))

    @property
    def _root(self) -> Path:
        return Path(self.path) / SPLITS[self.split]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video uint8 [1,H,W,3] (RGB), masks bool [0,1,H,W], labels float32 [0], class int64 []. Raises
        IndexError, DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        image, _ = image_files.read(self._root / self.names[i], white=self.white)
        frames = video.reduce_frames(image[None], 2 * self.size)
        return {
            "video": frames,
            "masks": np.zeros((0, *frames.shape[:3]), bool),
            "labels": np.zeros(0, np.float32),
            "class": np.array(self.classes.index(self.names[i].split("/", 1)[0]), np.int64),
        }


def _by_class(root: Path) -> dict[str, list[str]]:
    """The pictures of each class, sorted by name. Raises DataError if there is none."""
    found: dict[str, list[str]] = {}
    for name in pictures(root):
        if "/" not in name:
            raise DataError(f"{root / name}: is in no class: pictures are in {root}/CLASS/")
        found.setdefault(name.split("/", 1)[0], []).append(name)
    if not found:
        raise DataError(f"{root}: no pictures ({', '.join(SUFFIXES)})")
    return found
