"""Untrusted files and JSON: opened, parsed and followed only as far as is safe."""

import json as json_lib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cjepa_jax.errors import CheckpointError
from cjepa_jax.host import door

MOST_JSON = 10 << 20  # bytes
MOST_NUMBERS = 1 << 40  # of an array
CACHE = re.compile(r"(models|datasets|spaces)--[^/]+")  # a repository in Hugging Face's cache


def short(name: Any) -> str:
    """A name from a file, quoted on one line, of bounded length."""
    text = str(name)
    return repr(text if len(text) <= 100 else f"{text[:97]}...")


def member(folder: str | os.PathLike, name: str) -> Path:
    """folder / name, a file directly in that folder, for a name from a JSON file.

    A symbolic link must stay in the folder. In a snapshot of Hugging Face's cache, where every file is a link, it must
    stay within the same repository.

    Raises: CheckpointError if it is not a plain file name, is missing, leads out of the folder or is not a file.
    """
    folder = Path(folder)
    if not isinstance(name, str) or not name or name in (".", "..") or re.search(r"[/\\\0-\x1f\x7f]", name):
        raise CheckpointError(f"{folder}: {short(name)} is not a plain file name")
    home = Path(os.path.realpath(folder))
    allowed, snapshots = [home], home.parent
    if snapshots.name == "snapshots" and CACHE.fullmatch(snapshots.parent.name):
        allowed.append(snapshots.parent / "blobs")
    try:
        real = Path(os.path.realpath(folder / name))
        inside = any(place in real.parents for place in allowed)
    except OSError as error:
        raise CheckpointError(f"{folder}: {short(name)}: {error.strerror}") from error
    if not inside:
        raise CheckpointError(f"{folder}: {short(name)} leads out of this folder: put the file itself in its place")
    regular(folder / name).close()
    return folder / name


def regular(path: Path, links: bool = True) -> BinaryIO:
    """A file opened for reading bytes. Raises CheckpointError if it is missing, unreadable, a pipe or a device, and
    without `links` for a symbolic link."""
    try:
        return door.regular(path, links=links)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def contents(file: BinaryIO, count: int, path: str | os.PathLike) -> bytes:
    """`count` bytes of an open file, or as many as are left. Raises CheckpointError if the system cannot read them, as
    for /proc/self/mem."""
    try:
        return file.read(count)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def require_small(where: str, shape: Sequence[int]) -> None:
    """Raises CheckpointError for an axis of 0 together with huge axes: such an array has no bytes, but NumPy refuses
    it."""
    if 0 in shape and math.prod(max(1, int(axis)) for axis in shape) > MOST_NUMBERS:
        raise CheckpointError(f"{where}: shape = {short(list(shape))}: its other axes are too large")


def json(path: str | os.PathLike, limit: int = MOST_JSON, links: bool = False) -> dict[str, Any]:
    """The object of a JSON file of at most `limit` bytes. With `links` the path may be a symbolic link (`member` has
    checked its target).

    Raises: CheckpointError if it is missing, larger, not JSON, too deeply nested, not an object, or has a duplicate key
      or a number that is not finite.
    """
    with regular(Path(path), links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise CheckpointError(f"{path}: has {size} bytes, JSON has at most {limit}")
        data = contents(file, size, path)
    return parse(data, str(path))


def parse(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in these bytes. See `json`."""
    try:
        found = json_lib.loads(data, object_pairs_hook=_unique, parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or one of ours below
        text = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{where}: is not JSON that can be read: {text}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: must be a JSON object, not {type(found).__name__}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {short(key)} is there twice")
        found[key] = value
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value
