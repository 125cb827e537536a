"""Data sets that TensorFlow Datasets has prepared, read without it: dataset_info.json and the shards of a split.

DIR/dataset_info.json                                   the splits, and how many records each shard holds
DIR/NAME-SPLIT.{tfrecord,array_record}-00000-of-00010   the records, each a tf.train.Example
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from cjepa_jax.data.formats import files, tfrecord
from cjepa_jax.errors import DataError

FORMATS = ("tfrecord", "array_record")
NAME = re.compile(r"\w{1,100}")
MOST_RECORDS = 1 << 48  # so that their numbers are 64-bit ones
MOST_SHARDS = 10**5  # five digits in their names
OPEN_FILES = 64  # of a process (a split may have more shards than a process may open)


@dataclass(frozen=True)
class Prepared:
    """The records of one split. Record i is always the same bytes. `count`: number of records in use, from the first
    (0: all).

    Raises DataError, when built, for a folder that is not such a data set, lacks the split, has fewer records than
    `count`, or lacks one of the shards in use. Raises DataError, when read, for an unreadable record.
    """

    root: str
    split: str
    count: int = 0
    name: str = field(init=False)
    format: str = field(init=False)
    ends: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [shards]: records up to each one's end

    def __post_init__(self):
        file = Path(self.root) / "dataset_info.json"
        info = files.read_json(file, limit_bytes=1 << 26)
        try:
            lengths = {str(split["name"]): [int(n) for n in split["shardLengths"]] for split in info["splits"]}
            name, kind = str(info["name"]), str(info.get("fileFormat", FORMATS[0]))
        except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"{file}: must hold name and splits, each with name and shardLengths") from error
        if not NAME.fullmatch(name) or kind not in FORMATS:
            raise DataError(f"{file}: name {name[:40]!r} or fileFormat {kind[:40]!r} is none that can be read")
        if self.split not in lengths:
            raise DataError(f"{file}: no split {self.split}. There are {', '.join(sorted(lengths))[:200]}")
        few = len(lengths[self.split]) <= MOST_SHARDS
        if not few or not 0 < sum(lengths[self.split]) < MOST_RECORDS or min(lengths[self.split]) < 0:
            raise DataError(f"{file}: the shardLengths of split {self.split} are not numbers of records")
        for key, value in (("name", name), ("format", kind), ("ends", np.cumsum(lengths[self.split]))):
            object.__setattr__(self, key, value)
        if self.count > self.ends[-1]:
            raise DataError(f"{file}: split {self.split} has {self.ends[-1]} records, {self.count} are asked for")
        needed = 1 + int(np.searchsorted(self.ends, self.count or self.ends[-1]))
        missing = [self.file(k).name for k in range(needed) if not self.file(k).is_file()]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise DataError(f"{self.root}: {len(missing)} of the {needed} shards needed are not there: {shown}")

    def __len__(self) -> int:
        return self.count or int(self.ends[-1])

    def file(self, shard: int) -> Path:
        return files.inside(
            Path(self.root), f"{self.name}-{self.split}.{self.format}-{shard:05d}-of-{len(self.ends):05d}"
        )

    def place(self, i: int) -> tuple[Path, int, int]:
        """(file of record i, its number there, how many records the file should hold)."""
        shard = int(np.searchsorted(self.ends, i, side="right"))
        first = int(self.ends[shard - 1]) if shard else 0
        return self.file(shard), i - first, int(self.ends[shard]) - first

    def where(self, i: int) -> str:
        """The name of record i in errors."""
        file, number, _ = self.place(i)
        return f"{file}: record {number}"

    def read(self, i: int, names: tuple[str, ...]) -> dict[str, tfrecord.Values]:
        """These features of record i. Raises DataError, naming file and record."""
        file, number, total = self.place(i)
        if self.format == FORMATS[0]:
            data = tfrecord.read(file, number, total)
        else:
            data = _read_array_record(file, number, total)
        return tfrecord.example(data, names, self.where(i))


def _read_array_record(file: Path, number: int, total: int) -> bytes:
    try:
        reader = _open_array_record(str(file))
        held = reader.num_records()
        data = reader.read([number])[0] if held == total else b""
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise DataError(f"{file}: record {number} cannot be read: {reason}") from error
    if held != total:
        why = "" if held else ": cut short or damaged"
        raise DataError(f"{file}: holds {held} records, it should hold {total}{why}")
    return data


@functools.lru_cache(maxsize=OPEN_FILES)
def _open_array_record(file: str) -> ArrayRecordReader:
    return ArrayRecordReader(file, options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15)
