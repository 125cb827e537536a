"""Writes a folder of slots video by video, and resumes what was written before its process was killed.

An unfinished folder holds

    slots.part      the array so far: the header of a .npy file, then the frames of one video after the other
    slots.jsonl     a journal: what the slots are made with, then a line for each video of slots.part

A video's line is written after its frames are on the disk. So frames without a line, which a kill leaves, do not belong
to the folder and are cut off. At the end slots.part becomes slots.npy, and videos.json is written
(data/sources/slot_files.py). The journal stays, so that the same command is known to be done. Without videos.json the
folder is not read as slots.
"""

import contextlib
import io
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from cjepa_jax.data.sources.slot_files import INDEX
from cjepa_jax.errors import ConfigError, DataError, printable
from cjepa_jax.host import door
from cjepa_jax.runtime.workdir import Workdir, write_atomically

Videos = dict[str, dict[str, tuple[int, int]]]  # split -> name -> (first frame, frames)
PART, JOURNAL, ARRAY = "slots.part", "slots.jsonl", "slots.npy"
ENCODER, BACKBONE = "--checkpoint of SHA-256", "--backbone of SHA-256"  # of extracted slots' settings
PIXELS = "pixels of an episode's frame"
PIECE = 1 << 24  # bytes that are read at a time
SHOWN = 60  # letters of a value in a message
log = logging.getLogger(__name__)


class SlotWriter:
    """The folder `out`, which is locked while it is entered:

        with SlotWriter(out, {"--seed": 0}) as writer:
            writer.write("train", "a.mp4", slots)
            writer.sync()
            writer.finish()

    With `settings` the videos of an unfinished folder are kept on leaving, also by an exception, and `has` says which
    ones there are. They are kept only for the same settings, a dict of JSON values by the names that messages use.
    Lists are compared item by item. So are `versions`, of the same form, but for an unfinished folder alone. Videos of
    which the file does not hold what the journal says are dropped on entering, with those after them, and a warning.
    Without settings (None) nothing is left of an unfinished folder.

    Attributes:
      finished: whether the folder is complete. On entering: with the same settings. Then nothing is to be written.

    Raises (on entering): ConfigError for a folder of slots that were made with other settings, finished or not, for an
      unfinished one of other or unknown versions, and for one that another process writes. DataError for an unfinished
      folder whose journal does not say its settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any] | None = None, versions: Mapping[str, Any] | None = None):
        self.out, self.videos, self.finished = Path(out), Videos(), False
        self._versions = dict(versions or {})
        self._settings = None if settings is None else json.loads(json.dumps({**settings, **self._versions}))
        self._shape: list[int] = []  # frames so far, K, D
        self._waiting: list[dict[str, Any]] = []  # lines of videos that may not be on the disk yet

    def __enter__(self) -> "SlotWriter":
        with contextlib.ExitStack() as stack:
            if not self._is_done():
                stack.enter_context(Workdir(self.out, setting="--out="))
            if not self._is_done():  # another process may have just finished
                begun, entries = self._read()
                if begun is None:  # what nobody can resume
                    entries = []
                if entries:
                    self._match(begun)
                self._file = stack.enter_context(self._array(entries))
                self._journal = stack.enter_context(door.append(self.out / JOURNAL))
            self._leaving = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self.finished:
                self._keep(error)
        finally:
            self._leaving.__exit__(kind, error, trace)

    def _keep(self, error: BaseException | None) -> None:
        """Syncs the finished videos, or deletes the files where nothing is to be kept."""
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            if self._settings is not None and self.videos:
                self.sync()
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
        """Appends a video's slots, float [frames, K, D], which the next `sync` keeps. Raises DataError for slots of
        another shape than those before, and for a name that the split has already."""
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

    def finish(self) -> None:
        """Completes the folder. Raises DataError where there is no video."""
        if not self.videos:
            raise DataError(f"{self.out}: there is no video")
        self.sync()
        _put(self._file, 0, head(self._shape))
        os.fsync(self._file.fileno())
        door.require_own(self.out)
        os.replace(self.out / PART, self.out / ARRAY)
        _sync_folder(self.out)
        write_index(self.out, self.videos)
        self.finished = True
        if self._settings is None:
            (self.out / JOURNAL).unlink(missing_ok=True)

    def sync(self) -> None:
        """Returns when the videos so far are on the disk: the frames first, then the journal's lines about them.

        Lines are written once. After a sync that has failed nobody knows which frames are on the disk, even if another
        one succeeds.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        door.require_own(self.out)
        os.fsync(self._file.fileno())
        self._journal.write("".join(json.dumps(entry) + "\n" for entry in waiting))
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _is_done(self) -> bool:
        """Whether the folder is finished. Raises ConfigError for one of other settings."""
        if not (self.out / INDEX).exists():
            return False
        begun, _ = self._read()
        if begun is None or self._settings is None:
            raise ConfigError(f"--out={self.out}: holds slots already")
        if differ := different(self._without_versions(begun), self._without_versions(self._settings)):
            raise ConfigError(f"--out={self.out}: holds slots already, made with {differ}")
        self.finished = True
        return True

    def _add(self, entry: Mapping[str, Any]) -> None:
        frames = entry["shape"][0]
        self.videos.setdefault(entry["split"], {})[entry["name"]] = self._shape[0], frames
        self._shape[0] += frames

    def _read(self) -> tuple[Any, list[dict[str, Any]]]:
        """(what the slots are made with or None, the journal's lines about videos before the first damaged one).

        A last line without its end, which a kill leaves, does not count. Raises DataError for a damaged first line.
        """
        try:
            lines = door.read(self.out / JOURNAL).split(b"\n")[:-1]
        except FileNotFoundError:
            return None, []
        first = _parsed(lines[0]) if lines else {"made_with": None}
        entries: list[dict[str, Any]] = []
        names: set[tuple[str, str]] = set()
        if not isinstance(first, dict) or "made_with" not in first:
            text = f"{self.out}: the first line of {JOURNAL} does not say what its slots are made with"
            raise DataError(f"{text}. To start afresh, name another folder or delete {JOURNAL}")
        for line in lines[1:]:
            entry = _parsed(line)
            if not _is_entry(entry) or (entry["split"], entry["name"]) in names:
                break
            if entries and entry["shape"][1:] != entries[0]["shape"][1:]:
                break
            entries.append(entry)
            names.add((entry["split"], entry["name"]))
        if len(entries) < len(lines) - 1:
            log.warning("%s: line %d of %s is damaged", self.out, len(entries) + 2, JOURNAL)
        return first["made_with"], entries

    def _without_versions(self, made_with: Any) -> Any:
        if not isinstance(made_with, dict):
            return made_with
        return {name: value for name, value in made_with.items() if name not in self._versions}

    def _match(self, begun: Any) -> None:
        """Raises ConfigError for a folder that was begun with other settings or versions."""
        differ = different(begun, self._settings)
        if self._settings is None:
            differ = "another command"
        if not differ:
            return
        text = f"holds unfinished slots that were begun with {differ}. The command that began them resumes"
        others = different(self._without_versions(begun), self._without_versions(self._settings))
        if not others and self._versions.keys() - begun:
            text = "holds unfinished slots that were written before versions were recorded. They are not resumed"
        raise ConfigError(f"--out={self.out}: {text}. To start afresh, name another folder or delete {JOURNAL}")

    @contextlib.contextmanager
    def _array(self, entries: list[dict[str, Any]]) -> Iterator[BinaryIO]:
        """The array's file, opened for writing, with those of these videos that it holds and nothing after them. The
        journal is written with the same ones."""
        part = self.out / PART
        if entries and not part.exists() and (self.out / ARRAY).exists():  # killed while it was finished
            door.require_own(self.out)
            os.replace(door.below(self.out, ARRAY), part)
        with door.update(part) as file:
            entries = self._held(file, entries)
            lines = [{"made_with": self._settings}, *entries]
            write_atomically(self.out / JOURNAL, "".join(json.dumps(line) + "\n" for line in lines))
            if entries:
                self._shape = [0, *entries[0]["shape"][1:]]
            for entry in entries:
                self._add(entry)
            file.truncate(_end(self._shape) if entries else 0)
            yield file

    def _held(self, file: BinaryIO, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The videos before the first one that the file does not hold as the journal says."""
        if entries:
            file.seek(len(head(entries[0]["shape"])))
        for number, entry in enumerate(tqdm(entries, "checking", unit="video", delay=2, leave=False)):
            left, sum32 = 4 * int(np.prod(entry["shape"], dtype=object)), 0
            while left and (piece := file.read(min(left, PIECE))):
                left, sum32 = left - len(piece), zlib.crc32(piece, sum32)
            if left or sum32 != entry["crc32"]:
                text = f"{PART} does not hold {entry['split']}/{entry['name']} as {JOURNAL} says"
                log.warning("%s: %s", self.out, printable(f"{text}: {number} of {len(entries)} videos are kept"))
                return entries[:number]
        return entries


def made_with(out: Path) -> dict[str, Any]:
    """What the slots of a folder were made with, as its journal says. Empty for slots of a pickle, which have none."""
    try:
        begun = _parsed(door.read(out / JOURNAL).split(b"\n", 1)[0])
    except FileNotFoundError:
        return {}
    settings = begun.get("made_with") if isinstance(begun, dict) else None
    return settings if isinstance(settings, dict) else {}


def different(before: Any, now: Any) -> str:
    """What differs between two settings, for a message. "" for equal ones. Earlier versions did not record PIXELS."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return "" if before == now else "other settings"
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old == new or (name == PIXELS and name not in before):
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


def _parsed(line: bytes) -> Any:
    """The value of a journal's line. None for one that is not JSON."""
    try:
        return door.parsed(line)
    except ValueError:
        return None


def _is_entry(line: Any) -> bool:
    """Whether this is a journal's line about a video."""
    if not isinstance(line, dict) or set(line) != {"split", "name", "shape", "crc32"}:
        return False
    shape = line["shape"]
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n < 2**40 for n in shape)
    return whole and isinstance(line["split"], str) and isinstance(line["name"], str) and type(line["crc32"]) is int
