"""Which videos there are: the files of a folder, or the lines of a CSV or JSONL file.

A list's columns (CSV) or keys (JSONL) are `path`, relative to the list's folder, and, each optional, `start` and `end`
in seconds and `label`, the name of a class. Lists are UTF-8 or, with a byte order mark, UTF-16.
"""

import codecs
import csv
import io
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cjepa_jax.data.formats import files
from cjepa_jax.data.sources import annotations, folder
from cjepa_jax.errors import DataError, did_you_mean
from cjepa_jax.host import door

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv"),
    *(".wmv", ".asf", ".ogv"),
)
LISTS = (".csv", ".jsonl")
COLUMNS = ("path", "start", "end", "label")
SPLITS = {"train": "train", "eval": "eval"}
MOST_BYTES = 1 << 30  # of a list


class Entry(NamedTuple):
    """A video, or the part of it from `start` to `end` (seconds). `line`: of the list, 0 for a folder's file."""

    name: str
    start: float = 0.0
    end: float = math.inf
    label: str = ""
    line: int = 0


def of_folder(root: Path, split: str, leave: str, endings: tuple[str, ...] = SUFFIXES) -> list[Entry]:
    """The videos below `root`, or below root/eval, sorted by name. `leave`: a folder of masks that is left out.
    `endings`: of the videos.

    Without root/eval a tenth of the names, chosen by their hash, is held out. Raises DataError if there is none.
    """
    names = annotations.tree(root, endings)
    if leave:
        names = [name for name in names if not name.startswith(f"{leave}/")]
    if (root / "eval").is_dir():
        return [Entry(name) for name in names if name.startswith("eval/") == (split == "eval")]
    return held_out([Entry(name) for name in names], split)


def of_list(file: Path) -> list[Entry]:
    """All lines of a list, in order. Raises DataError, naming file and line."""
    text = _text(file)
    rows = _csv(text, file) if file.suffix.lower() == ".csv" else _jsonl(text, file)
    found = [_entry(row, line, f"{file}: line {line}") for line, row in rows]
    labelled = [entry for entry in found if entry.label]
    if labelled and len(labelled) < len(found):
        bare = next(entry for entry in found if not entry.label)
        raise DataError(f"{file}: line {bare.line} has no label, {len(labelled)} others have one")
    return found


def held_out(entries: Sequence[Entry], split: str) -> list[Entry]:
    """The entries of a split: those whose video's name is held out (`folder.hold_out`), or all others."""
    names = sorted({entry.name for entry in entries})
    if len(names) < 2:
        return list(entries)
    chosen = folder.hold_out(names)
    return [entry for entry in entries if (entry.name in chosen) == (split == "eval")]


def there(root: Path, entries: Sequence[Entry], source: Path, skip: bool) -> list[Entry]:
    """Those entries whose file exists. Raises DataError for names that leave `root`, and for missing files unless
    `skip`, which counts them in a warning."""
    known: dict[str, bool] = {}
    for entry in entries:
        if entry.name not in known:
            known[entry.name] = os.path.isfile(files.inside(root, entry.name))
    missing = sorted(name for name, found in known.items() if not found)
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        text = f"{source}: {len(missing)} videos are not in {root}: {shown}"
        if not skip:
            raise DataError(f"{text} (data.options.missing='skip' leaves them out)")
        logging.getLogger(__name__).warning("%s. They are left out", text)
    return [entry for entry in entries if known[entry.name]]


def classes(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The labels that occur, in the order of their numbers, or else of their texts."""
    names = {entry.label for entry in entries} - {""}
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int if numbers else str))


def _text(file: Path) -> str:
    try:
        data = door.read(file, MOST_BYTES, links=True)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is not text in UTF-8") from error


def _csv(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    try:
        for row in reader:
            if not row:
                continue
            if not names:
                names = [name.strip() for name in row]
                if "path" not in names:
                    raise DataError(f"{file}: the first line must name the columns, {', '.join(COLUMNS)}: {row!r:.80}")
                _warn_unknown(names, file)
                continue
            if len(row) != len(names):
                raise DataError(f"{file}: line {reader.line_num} has {len(row)} columns, the first line {len(names)}")
            yield reader.line_num, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num} is not CSV ({error})") from error


def _jsonl(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            row = json.loads(words)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: line {line} is not JSON ({error})") from error
        if not isinstance(row, dict) or "path" not in row:
            raise DataError(f"{file}: line {line} must be a JSON object with a path")
        if line == 1:
            _warn_unknown(list(row), file)
        yield line, row


def _warn_unknown(names: Sequence[str], file: Path) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        hints = [f"{name!r:.40}{did_you_mean(name, COLUMNS)}" for name in unknown[:5]]
        logging.getLogger(__name__).warning("%s: columns that are not used: %s", file, ", ".join(hints))


def _entry(row: dict[str, Any], line: int, where: str) -> Entry:
    name, label = row["path"], row.get("label")
    name = name.strip() if isinstance(name, str) else name
    if not files.is_name(name):
        raise DataError(f"{where}: path is {name!r:.80}: must be a file's name")
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise DataError(f"{where}: label is {label!r:.40}: must be a text or a whole number")
    text = "" if label is None else str(label).strip()
    if files.BREAKS.search(text):
        raise DataError(f"{where}: label is {text!r:.40}: must be on one line")
    start, end = _seconds(row.get("start"), 0.0, f"{where}: start"), _seconds(row.get("end"), math.inf, f"{where}: end")
    if start >= end:
        raise DataError(f"{where}: start is {start:g}, end is {end:g}. The end must be later")
    return Entry(name, start, end, text, line)


def _seconds(value: Any, default: float, where: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return default
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{where} is {value!r:.40}: must be seconds, 0 or more")
    return seconds
