"""Writes a folder of slots video by video, and resumes what was written before its process was killed.

An unfinished folder holds

    slots.part      the array so far: the header of a .npy file, then the frames of one video after the other
    slots.jsonl     a journal: what the slots are made with, then a line for each video of slots.part

A video's line is written after its frames are on the disk. So frames without a line, which a kill leaves, do not belong
to the folder and are overwritten. At the end slots.part becomes slots.npy, videos.json is written
(data/sources/slot_files.py), and the journal is deleted. Without videos.json the folder is not read as slots.
"""

import contextlib
import io
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from cjepa_jax.data.sources.slot_files import INDEX
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door
from cjepa_jax.runtime.workdir import Workdir, write_atomically

Videos = dict[str, dict[str, tuple[int, int]]]  # split -> name -> (first frame, frames)
PART, JOURNAL, ARRAY = "slots.part", "slots.jsonl", "slots.npy"
SYNC = 1.0  # seconds from one sync to the next: as much of the finished work is lost by a kill
PIECE = 1 << 24  # bytes that are read at a time
MOST_JOURNAL = 1 << 30  # bytes
SHOWN = 60  # letters of a value in a message


class SlotWriter:
    """The folder `out`, which is locked while it is entered:

        with SlotWriter(out, {"--seed": 0}) as writer:
            writer.write("train", "a.mp4", slots)
            writer.finish()

    With `settings` the videos of an unfinished folder are kept on leaving, also by an exception, and `has` says which
    ones there are. They are kept only for the same settings, a dict of JSON values by the names that messages use.
    Lists are compared item by item. Without settings (None) nothing is left of an unfinished folder.

    Raises (on entering): ConfigError for a folder that has slots, for one that another process writes, and for one
      that was begun with other settings. DataError for an unfinished folder that is damaged.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any] | None = None):
        self.out, self.videos = Path(out), Videos()
        self._settings = None if settings is None else json.loads(json.dumps(settings))
        self._shape: list[int] = []  # frames so far, K, D
        self._waiting: list[dict[str, Any]] = []  # lines of videos that may not be on the disk yet
        self._synced, self._finished = time.monotonic(), False

    def __enter__(self) -> "SlotWriter":
        self._require_none()
        with contextlib.ExitStack() as stack:
            stack.enter_context(Workdir(self.out, setting="--out="))
            self._require_none()  # another process may have just finished
            lines = self._read()
            if lines and lines[0]["made_with"] is None:  # what nobody can resume
                lines = []
            if lines:
                self._match(lines[0])
            else:
                write_atomically(self.out / JOURNAL, json.dumps({"made_with": self._settings}) + "\n")
            self._file = stack.enter_context(self._array(lines[1:]))
            self._journal = stack.enter_context(door.append(self.out / JOURNAL))
            _sync_folder(self.out)
            self._leaving = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self._finished:
                self._keep(error)
        finally:
            self._leaving.__exit__(kind, error, trace)

    def _keep(self, error: BaseException | None) -> None:
        """Syncs the finished videos, or deletes the files where nothing is to be kept."""
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            if self._settings is not None and self.videos:
                self._sync()
            else:
                door.require_own(self.out)
                for name in (PART, JOURNAL):
                    (self.out / name).unlink(missing_ok=True)

    def has(self, split: str, name: str) -> bool:
        """Whether this video is written."""
        return name in self.videos.get(split, {})

    @property
    def count(self) -> int:
        """The number of videos that are written."""
        return sum(map(len, self.videos.values()))

    def write(self, split: str, name: str, slots: np.ndarray) -> None:
        """Appends a video's slots, float [frames, K, D]. Raises DataError for slots of another shape than those before,
        and for a name that the split has already."""
        if self.has(split, name):
            raise DataError(f"{name}: split {split} has a video of this name already")
        if slots.ndim != 3 or not slots.size:
            text = "has no frame" if slots.ndim == 3 else f"slots have shape {list(slots.shape)}: must have 3 axes"
            raise DataError(f"{name}: {text}")
        if not self._shape:
            self._shape = [0, *slots.shape[1:]]
            _put(self._file, 0, head(self._shape))
        if list(slots.shape[1:]) != self._shape[1:]:
            raise DataError(f"{name}: has {list(slots.shape[1:])} slots and width, others {self._shape[1:]}")
        data = np.ascontiguousarray(slots, np.float32).data.cast("B")
        _put(self._file, _end(self._shape), data)
        entry = {"split": split, "name": name, "shape": list(slots.shape), "crc32": zlib.crc32(data)}
        self._waiting.append(entry)
        self._add(entry)
        if time.monotonic() - self._synced > SYNC:
            self._sync()

    def finish(self) -> None:
        """Completes the folder. Raises DataError where there is no video."""
        if not self.videos:
            raise DataError(f"{self.out}: there is no video")
        self._sync()
        _put(self._file, 0, head(self._shape))
        os.fsync(self._file.fileno())
        door.require_own(self.out)
        os.replace(self.out / PART, self.out / ARRAY)
        _sync_folder(self.out)
        write_index(self.out, self.videos)
        self._finished = True
        (self.out / JOURNAL).unlink(missing_ok=True)

    def _require_none(self) -> None:
        if (self.out / INDEX).exists():
            raise ConfigError(f"--out={self.out}: holds slots already")

    def _add(self, entry: Mapping[str, Any]) -> None:
        frames = entry["shape"][0]
        self.videos.setdefault(entry["split"], {})[entry["name"]] = self._shape[0], frames
        self._shape[0] += frames

    def _sync(self) -> None:
        """The frames first, then the journal's lines about them."""
        self._synced = time.monotonic()
        if not self._waiting:
            return
        door.require_own(self.out)
        os.fsync(self._file.fileno())
        self._journal.write("".join(json.dumps(entry) + "\n" for entry in self._waiting))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._waiting = []

    def _read(self) -> list[Any]:
        """The journal's lines, [] if there is none. What was cut off by a kill is cut from the file. Raises DataError
        for a damaged one."""
        file = self.out / JOURNAL
        try:
            text = door.read(file, MOST_JOURNAL)
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        try:
            lines = [door.parsed(line) for line in whole.splitlines()]
        except ValueError as error:
            raise self._damaged(f"{JOURNAL} is not readable as JSON") from error
        if lines and not (isinstance(lines[0], dict) and "made_with" in lines[0] and all(map(_is_entry, lines[1:]))):
            raise self._damaged(f"{JOURNAL} has lines of another form")
        if len(whole) < len(text):
            write_atomically(file, whole.decode())
        return lines

    def _match(self, first: dict[str, Any]) -> None:
        """Raises ConfigError for a folder that was begun with other settings."""
        differ = different(first["made_with"], self._settings)
        if self._settings is None:
            differ = "another command"
        if differ:
            text = f"holds unfinished slots that were begun with {differ}. The command that began them resumes"
            raise ConfigError(f"--out={self.out}: {text}. To start afresh, name another folder or delete {JOURNAL}")

    @contextlib.contextmanager
    def _array(self, entries: list[dict[str, Any]]) -> Iterator[BinaryIO]:
        """The array's file, opened for writing, with the videos of these lines and nothing after them."""
        part = self.out / PART
        if entries and not part.exists() and (self.out / ARRAY).exists():  # killed while it was finished
            door.require_own(self.out)
            os.replace(door.below(self.out, ARRAY), part)
        with door.update(part) as file:
            if entries:
                self._check(file, entries)
            for entry in entries:
                self._add(entry)
            file.truncate(_end(self._shape) if entries else 0)
            yield file

    def _check(self, file: BinaryIO, entries: list[dict[str, Any]]) -> None:
        """Raises DataError if the file does not hold the videos of the journal."""
        self._shape = [0, *entries[0]["shape"][1:]]
        names = {(entry["split"], entry["name"]) for entry in entries}
        if len(names) < len(entries) or any(entry["shape"][1:] != self._shape[1:] for entry in entries):
            raise self._damaged(f"{JOURNAL} has lines that contradict each other")
        file.seek(len(head(self._shape)))
        for entry in entries:
            left, sum32 = 4 * int(np.prod(entry["shape"], dtype=object)), 0
            while left and (piece := file.read(min(left, PIECE))):
                left, sum32 = left - len(piece), zlib.crc32(piece, sum32)
            if left or sum32 != entry["crc32"]:
                raise self._damaged(f"{PART} does not hold {entry['split']}/{entry['name']} as {JOURNAL} says")

    def _damaged(self, what: str) -> DataError:
        text = f"{self.out}: its unfinished slots are damaged: {what}"
        return DataError(f"{text}. To start afresh, name another folder or delete {JOURNAL}")


def different(before: Any, now: Any) -> str:
    """What differs between two settings, for a message. "" for equal ones."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return "" if before == now else "other settings"
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if not isinstance(old, list) or not isinstance(new, list):
            return f"{name} = {_short(old)}, not {_short(new)}"
        place = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), None)
        if place is None:
            return f"{len(old)} {name}, not {len(new)}"
        return f"other {name}: number {place} was {_short(old[place])}, and is {_short(new[place])}"
    return ""


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def head(shape: list[int]) -> bytes:
    """The header of a .npy file of float32. It has the same length for any number of frames (shape[0])."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()


def write_index(out: Path, videos: Videos) -> None:
    """Writes videos.json, which makes the folder one of slots."""
    index = {
        split: {
            "names": list(found),
            "starts": [start for start, _ in found.values()],
            "frames": [count for _, count in found.values()],
        }
        for split, found in videos.items()
    }
    write_atomically(out / INDEX, json.dumps(index))


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _end(shape: list[int]) -> int:
    """Bytes of a file with this array."""
    return len(head(shape)) + 4 * shape[0] * shape[1] * shape[2]


def _put(file: BinaryIO, place: int, data: bytes | memoryview) -> None:
    """Writes all of `data` at this byte. The file has no buffer, so a write may be short."""
    left = memoryview(data)
    while left:
        done = os.pwrite(file.fileno(), left, place)
        place, left = place + done, left[done:]


def _is_entry(line: Any) -> bool:
    """Whether this is a journal's line about a video."""
    if not isinstance(line, dict) or set(line) != {"split", "name", "shape", "crc32"}:
        return False
    shape = line["shape"]
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n < 2**40 for n in shape)
    return whole and isinstance(line["split"], str) and isinstance(line["name"], str) and type(line["crc32"]) is int
