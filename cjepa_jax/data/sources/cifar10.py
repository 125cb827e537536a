"""CIFAR-10 (Krizhevsky, 2009), the binary version: 60,000 pictures of 32 x 32 pixels in ten classes.

    DIR/data_batch_1.bin, ..., DIR/data_batch_5.bin     10,000 records each: the training split
    DIR/test_batch.bin                                  10,000 records: the eval split
    DIR/batches.meta.txt                                names of the classes (not read)

A record has 3073 bytes: the class (0 to 9), then 1024 red, 1024 green and 1024 blue values, row by row. DIR is
cifar-10-batches-bin of cifar-10-binary.tar.gz. The Python version consists of pickles, which are not read.
"""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door

SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE * SIDE  # bytes
PER_FILE = 10_000
FILES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "eval": ("test_batch.bin",)}
PICKLES = "data_batch_1"  # a file of the Python version


@dataclass(frozen=True)
class Cifar10:
    """Photographs, each of one of ten classes. A source of scenes with T = 1, without masks (K = 0) and labels.

    A scene also holds `class`, int64 []: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Raises ConfigError for values out of their limits. Raises DataError, naming the file: when built, for files that are
    missing or of another size; when read, for a class out of range.
    """

    split: str = "train"
    path: str = ""
    size: int = 32  # unused: scenes have 32 x 32 pixels, and a crop brings them to size x size
    frames: int = 1
    count: int = 0  # scenes, 0 for all
    seed: int = 0  # unused: nothing is drawn here

    label_names: ClassVar[tuple[str, ...]] = ()
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in FILES:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(FILES)}")
        check_integer("data.count", self.count, 0)
        if self.frames != 1:
            raise ConfigError(f"data.frames is {self.frames}: CIFAR-10 has 1 frame per scene")
        if not self.path:
            raise ConfigError("data.path is empty: name the folder cifar-10-batches-bin")
        for name in FILES[self.split]:
            file = Path(self.path) / name
            if not file.is_file():
                pickles = (Path(self.path) / PICKLES).is_file()
                hint = ": this is the Python version, which is pickles. Take cifar-10-binary.tar.gz" if pickles else ""
                raise DataError(f"{file}: no such file{hint}")
            if file.stat().st_size != PER_FILE * RECORD:
                size = f"{file.stat().st_size} bytes, must be {PER_FILE * RECORD}"
                raise DataError(f"{file}: has {size} ({PER_FILE} records of {RECORD})")

    def __len__(self) -> int:
        total = PER_FILE * len(FILES[self.split])
        return min(self.count or total, total)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video uint8 [1,32,32,3] (RGB), masks bool [0,1,32,32], labels float32 [0], class int64 []. Raises
        IndexError, DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        number, place = divmod(i, PER_FILE)
        file = Path(self.path) / FILES[self.split][number]
        try:
            with door.regular(file, links=True) as stream:
                stream.seek(place * RECORD)
                record = np.frombuffer(stream.read(RECORD), np.uint8)
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}") from error
        if len(record) != RECORD or record[0] >= CLASSES:
            raise DataError(f"{file}: record {place} is cut short or its class is above {CLASSES - 1}")
        image = record[1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        return {
            "video": np.ascontiguousarray(image)[None],
            "masks": np.zeros((0, 1, SIDE, SIDE), bool),
            "labels": np.zeros(0, np.float32),
            "class": np.array(record[0], np.int64),
        }
