"""Sounds in a folder for each class, and ESC-50 as published.

    DIR/train/CLASS/NAME.{wav,flac,ogg}     your own
    DIR/eval/CLASS/NAME.*
    DIR/meta/esc50.csv, DIR/audio/*.wav     ESC-50 (github.com/karolpiczak/ESC-50): 2,000 sounds of 5 s, 50 classes

Of ESC-50's five folds, one is the eval split (400 sounds), by default the last.
"""

import csv
import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.data.formats import files, sound_files
from cjepa_jax.data.sources import annotations
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.weights import safety

SPLITS = ("train", "eval")
META, MOST_META = "meta/esc50.csv", 2**24
FOLDS = 5  # of ESC-50


@dataclass(frozen=True)
class SoundFiles:
    """Sounds sorted by class and name: a source of kind "spectrogram".

    A scene has `waveform` float32 [S] and `class`, int64 []: the number of its folder among the sorted folders of
    DIR/train, or ESC-50's target.

    Args:
      split, path, count, seed, frames, size: as for every source. Sounds have one frame, and no size in pixels.
      rate: Hz, to which files are resampled. seconds: of the middle of each file. Shorter ones are padded.
      times, bands: of the spectrogram.
      fold: of ESC-50, held out.
    Raises: ConfigError for values out of their limits. DataError for a folder that is missing or empty, and for a file
      that cannot be read.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 1
    count: int = 0
    seed: int = 0
    rate: int = 32_000
    seconds: float = 10.0
    times: int = 512
    bands: int = 96
    fold: int = FOLDS
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)  # path of each scene below DIR
    of: tuple[int, ...] = field(init=False, repr=False, compare=False)  # its class
    classes: tuple[str, ...] = field(init=False, repr=False, compare=False)

    kind: ClassVar[str] = "spectrogram"
    channels: ClassVar[int] = 1
    pixels: ClassVar[str] = "float32"
    label_names: ClassVar[tuple[str, ...]] = ()
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        check_integer("data.count", self.count, 0)
        for name, least in (("rate", sound_files.RATES[0]), ("times", 1), ("bands", 1), ("fold", 1)):
            check_integer(f"data.options.{name}", getattr(self, name), least)
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not 0 < self.seconds <= 3600:
            raise ConfigError(f"data.options.seconds is {self.seconds!r}: must be above 0 and at most 3600")
        if self.fold > FOLDS:
            raise ConfigError(f"data.options.fold is {self.fold!r}: must be at most {FOLDS}")
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds train/ and eval/, or ESC-50's")
        root = Path(self.path)
        classes, found = _esc50(root, self.split, self.fold) if (root / META).is_file() else _folders(root, self.split)
        order = annotations.first_of_each(found, self.count)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "names", tuple(order))
        object.__setattr__(self, "of", tuple(found[name] for name in order))

    @property
    def samples(self) -> int:
        """S."""
        return round(self.rate * self.seconds)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i. Raises IndexError, DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        waveform = sound_files.read(Path(self.path) / self.names[i], self.rate, self.samples)
        return {"waveform": waveform, "class": np.array(self.of[i], np.int64)}


def _folders(root: Path, split: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes, and the class of each file of a split."""
    found = [name for name in annotations.tree(root, sound_files.SUFFIXES) if name.count("/") >= 2]
    known = tuple(sorted({name.split("/")[1] for name in found if name.startswith("train/")}))
    own = {name: name.split("/")[1] for name in found if name.startswith(f"{split}/")}
    if not known or not own:
        raise DataError(f"{root}: no sounds in {'train' if not known else split}/CLASS")
    if strange := sorted(set(own.values()) - set(known)):
        raise DataError(f"{root}: class {strange[0]!r} has no sounds in train")
    return known, {name: known.index(own[name]) for name in own}


def _esc50(root: Path, split: str, held_out: int) -> tuple[tuple[str, ...], dict[str, int]]:
    """The same of ESC-50. Raises DataError for a table that is damaged or names files elsewhere."""
    table = root / META
    data = files.contents(table, MOST_META)
    try:
        rows = list(csv.DictReader(data.decode("utf-8").splitlines()))
        entries = [(row["filename"], row["fold"], int(row["target"]), row["category"]) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{table}: must have the columns filename, fold, target, category: {error}") from error
    names = {target: category for *_, target, category in entries}
    if not entries or sorted(names) != list(range(len(names))):
        raise DataError(f"{table}: its targets must be 0, 1, 2, ...")
    for filename, *_ in entries:
        if Path(filename).name != filename or not filename.lower().endswith(sound_files.SUFFIXES):
            raise DataError(f"{table}: {safety.short(filename)}: must be the name of a file in audio/")
    held = [
        (f"audio/{name}", target) for name, fold, target, _ in entries if (fold == str(held_out)) == (split == "eval")
    ]
    if not held:
        raise DataError(f"{table}: no sounds of the split {split!r}")
    return tuple(names[target] for target in sorted(names)), dict(held)
