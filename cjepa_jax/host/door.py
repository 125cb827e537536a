"""Files in the folder of a run, an export or a comparison, which may come from another person.

Read: regular files of bounded size only. A pipe does not hang the reader, a device does not fill its memory.
Written: never through a symbolic link, and never into a file with a second name (a hard link).

The folder that the user names may itself be a link. Links below it are refused: `below` checks the folders between.
Refused files raise Refused: an OSError for callers that report the system's errors, with one line for the user.

A folder that a process owns (`owning`) may be renamed, deleted or replaced by others. Every function here that writes
below it first checks that the folder at that path, and its lock, are still the original ones.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Any, BinaryIO, TextIO

from cjepa_jax.errors import ConfigError, one_line

MOST_TEXT = 64 << 20  # bytes of a JSON or text file, unless a caller says otherwise
PIECE = 1 << 16  # bytes that are read at a time if the size is not known
MOST_DEPTH = 64  # of JSON, because it is walked by recursion
MOST_BYTES = 1 << 40  # of a file with arrays
LARGEST_STEP = 2**31 - 1  # optimisers count steps in int32
SAFE = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Refused(ConfigError, OSError):
    """A file or folder that is not opened. `strerror` is the reason, `str` names the path as well."""

    def __init__(self, path: str | os.PathLike, reason: str, code: int = errno.EINVAL):
        super().__init__(f"{path}: {reason}")
        self.errno, self.strerror, self.filename = code, reason, str(path)

    def __str__(self) -> str:
        return one_line(self.args[0])

    def __reduce__(self) -> tuple:
        return Refused, (self.filename, self.strerror, self.errno)


class Lost(Refused):
    """A folder that this process owned and that is no longer at its path: nothing is written there."""


@dataclasses.dataclass(frozen=True)
class Owned:
    """A folder by an open descriptor, which stays valid if the path changes. `lock`: its lock's file."""

    number: int
    folder: os.stat_result
    lock: os.stat_result | None


LOCK = ".lock"  # the name of the file that a folder's owner has locked
HERE = "/proc/self/fd"
_owned: dict[pathlib.Path, Owned] = {}  # by absolute path
_names: dict[int, pathlib.Path] = {}  # of descriptors that folders have had


@contextlib.contextmanager
def owning(root: str | os.PathLike, lock: IO | None = None) -> Iterator[None]:
    """Inside, `require_own` compares the folder `root` with the present one, and `root/.lock` with the open file
    `lock`, if one is given. Raises Lost if they have already been replaced, and OSError."""
    root = pathlib.Path(root).absolute()
    number = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _owned[root] = Owned(number, os.fstat(number), os.fstat(lock.fileno()) if lock else None)
        _names[number] = root
        require_own(root)
        yield
    finally:
        _owned.pop(root, None)
        os.close(number)


def require_own(path: str | os.PathLike) -> None:
    """Raises Lost if `path` is, or is below, a folder that this process owns and that is no longer there. Raises
    OSError if the system gives no answer."""
    path = pathlib.Path(os.path.abspath(path))
    for root in (path, *path.parents):
        if owned := _owned.get(root):
            _require_same(root, owned)


def through(path: str | os.PathLike) -> pathlib.Path:
    """The same file or folder by a path through the descriptor of the folder that this process owns. Writes there reach
    that folder even if it has been renamed. Returns `path` itself if there is no such folder, or no such paths (outside
    Linux)."""
    path = pathlib.Path(os.path.abspath(path))
    for root in (path, *path.parents):
        if (owned := _owned.get(root)) and os.path.isdir(f"{HERE}/{owned.number}"):
            return pathlib.Path(HERE, str(owned.number), path.relative_to(root))
    return path


def named(text: str) -> str:
    """The text with paths from `through` replaced by those that the user knows."""
    return re.sub(rf"{HERE}/(\d+)", lambda match: str(_names.get(int(match[1]), match[0])), text)


def _require_same(root: pathlib.Path, owned: Owned) -> None:
    found = _stat(root)
    if found is None or not os.path.samestat(found, owned.folder):
        raise Lost(root, _fate(owned, taken=found is not None))
    if owned.lock:
        lock = _stat(root / LOCK)
        if lock is None or not os.path.samestat(lock, owned.lock):
            raise Lost(root, f"its {LOCK} was deleted or replaced while the folder was in use. What was saved is there")


def _stat(path: pathlib.Path) -> os.stat_result | None:
    """Identity of a file or folder, None if there is none. A folder's path may be a link, a lock's may not."""
    try:
        return os.stat(path, follow_symlinks=path.name != LOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _fate(owned: Owned, taken: bool) -> str:
    """What happened to a folder that is not at its path."""
    now = ""
    with contextlib.suppress(OSError):
        now = os.readlink(f"{HERE}/{owned.number}")
    if os.fstat(owned.number).st_nlink == 0 or now.endswith(" (deleted)"):
        return "was deleted while it was in use" + (", and another folder has taken its place" if taken else "")
    where = f". What was saved is in {now}" if now else ""
    return ("is another folder than it was when it was taken" if taken else "was renamed while it was in use") + where


def regular(path: str | os.PathLike, most: int | None = None, links: bool = False) -> BinaryIO:
    """A regular file, opened to read bytes. The caller closes it.

    Args:
      most: bytes that it may have (None: any number).
      links: whether the path itself may be a symbolic link, as a path that the user typed may.
    Raises: Refused for a link, a pipe, a device, a larger file, or an invalid path. OSError.
    """
    try:
        _require_regular(path, os.stat(path) if links else os.lstat(path))  # opening some devices has effects
        number = os.open(path, os.O_RDONLY | SAFE | (0 if links else os.O_NOFOLLOW))
    except ValueError as error:  # a null byte
        raise Refused(path, str(error)) from error
    try:
        found = os.fstat(number)  # it may have been replaced since
        _require_regular(path, found)
        if most is not None and found.st_size > most:
            raise Refused(path, f"has {found.st_size} bytes, at most {most} are read")
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read(path: str | os.PathLike, most: int = MOST_TEXT, links: bool = False) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises as `regular`."""
    with regular(path, most, links) as file:
        data = file.read(os.fstat(file.fileno()).st_size)  # not `most`: Python asks for the memory at once
        while more := file.read(PIECE):  # it grows, or is a file of the system without a size
            data += more
            if len(data) > most:
                raise Refused(path, f"has more than {most} bytes, which are not read")
    return data


def read_text(path: str | os.PathLike, most: int = MOST_TEXT, errors: str = "strict") -> str:
    """A UTF-8 text of at most `most` bytes. Raises as `read`, and UnicodeDecodeError (a ValueError)."""
    return read(path, most).decode("utf-8", errors)


def read_json(path: str | os.PathLike, most: int = MOST_TEXT) -> Any:
    """The content of a JSON file. Raises as `read`, and ValueError for a text that is not JSON or nested too deeply."""
    return parsed(read(path, most))


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for other texts, and for nesting deeper than MOST_DEPTH."""
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deeply nested") from error
    level = [content]
    for _ in range(MOST_DEPTH):
        level = [item for value in level if isinstance(value, dict | list) for item in _items(value)]
        if not level:
            return content
    raise ValueError("too deeply nested")


def _items(value: dict | list) -> Iterable:
    return value.values() if isinstance(value, dict) else value


def below(root: str | os.PathLike, *names: str) -> pathlib.Path:
    """root/names..., where no folder or file below `root` is a symbolic link. It need not exist.

    Raises: Refused, naming the link. OSError.
    """
    path = pathlib.Path(root)
    for name in names:
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise Refused(path, f"{name!r} is not a file name")
        path = path / name
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise Refused(path, "is a symbolic link, which is not followed", errno.ELOOP)
    return path


def folder(root: str | os.PathLike, *names: str) -> pathlib.Path:
    """The folder root/names..., created if it is missing. No link below `root` is followed.

    Raises: Refused for a link, and for a file in place of a folder. OSError.
    """
    path = below(root, *names)
    require_own(path)
    for depth in range(len(names) + 1):
        here = pathlib.Path(root, *names[:depth])
        with contextlib.suppress(FileExistsError):
            here.mkdir(parents=not depth)
    if not path.is_dir():
        raise Refused(path, "is not a folder", errno.ENOTDIR)
    return path


def append(path: str | os.PathLike) -> TextIO:
    """A text file opened for appending, created if it is missing. Raises Refused as `overwrite`, OSError."""
    return os.fdopen(_writable(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8")


def overwrite(path: str | os.PathLike) -> TextIO:
    """A text file opened for overwriting, created if it is missing. It is for texts that cannot wait for a second file,
    such as a report of a crash. Raises Refused for a link, for anything but a regular file, and for one with a second
    name. Raises OSError."""
    number = _writable(path, os.O_WRONLY)
    os.ftruncate(number, 0)  # only now that it is known to be the right file
    return os.fdopen(number, "w", encoding="utf-8")


def update(path: str | os.PathLike) -> BinaryIO:
    """A file of bytes without a buffer, for reading and writing, created if it is missing, its content unchanged.
    Raises as `append`."""
    return os.fdopen(_writable(path, os.O_RDWR), "r+b", buffering=0)


def lock_file(path: str | os.PathLike) -> TextIO:
    """A lock's file, opened for reading and appending, created if it is missing, its text unchanged. Raises as
    `append`."""
    return os.fdopen(_writable(path, os.O_RDWR | os.O_APPEND), "a+", encoding="utf-8", errors="replace")


@contextlib.contextmanager
def replacing(path: str | os.PathLike, sync: bool = True) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block ends without an error. A reader, or a run killed at any moment,
    sees the old content or the new one. With `sync` this also holds after a power cut. A link at `path` is replaced,
    not followed. Raises OSError."""
    path = pathlib.Path(path)
    require_own(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    beside.unlink(missing_ok=True)  # of a killed process, or put there by others. O_EXCL follows no link
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def write_atomically(path: str | os.PathLike, text: str, sync: bool = True) -> None:
    """Replaces the file's content with a text, as `replacing`."""
    with replacing(path, sync) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # a page may quote a lone surrogate of a JSON file


def step_of(name: str) -> int | None:
    """The step that a checkpoint's folder is named after: ASCII digits without leading zeros, at most LARGEST_STEP.
    None for every other name."""
    plain = name.isascii() and name.isdecimal() and len(name) <= len(str(LARGEST_STEP)) and str(int(name)) == name
    return int(name) if plain and int(name) <= LARGEST_STEP else None


def steps(checkpoints: str | os.PathLike) -> list[int]:
    """The steps in a folder of checkpoints, in order. [] if there is no such folder."""
    try:
        names = os.listdir(checkpoints)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(step for name in names if (step := step_of(name)) is not None)


def is_own(path: str | os.PathLike) -> bool:
    """Whether a folder belongs to this user and no other user may write into it. Raises OSError."""
    found = os.lstat(path)
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def require_plain(root: str | os.PathLike, most: int = MOST_BYTES) -> None:
    """For folders whose files other libraries open by their paths. Files that are deleted in the meantime do not count.

    Raises: Refused, naming it, for anything below `root` that is neither a folder nor a regular file of at most `most`
      bytes. OSError.
    """
    for where, folders, names in os.walk(root, onerror=_unless_gone):
        for name in (*folders, *names):
            path = os.path.join(where, name)
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(found.st_mode):
                _require_regular(path, found)
            if found.st_size > most:
                raise Refused(path, f"has {found.st_size} bytes, at most {most} are read")


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _writable(path: str | os.PathLike, flags: int) -> int:
    require_own(path)
    try:
        number = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | SAFE, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(path, "is a symbolic link, which is not followed", errno.ELOOP) from error
        if error.errno == errno.ENXIO:  # a pipe without a reader, a socket
            raise Refused(path, "is not a regular file") from error
        raise
    try:
        found = os.fstat(number)
        _require_regular(path, found)
        if found.st_nlink > 1:
            raise Refused(path, "has a second name (a hard link), whose content would change too")
    except BaseException:
        os.close(number)
        raise
    return number


def _require_regular(path: str | os.PathLike, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Refused(path, "is a symbolic link, which is not followed", errno.ELOOP)
    if stat.S_ISDIR(found.st_mode):
        raise Refused(path, "is a folder", errno.EISDIR)
    if not stat.S_ISREG(found.st_mode):
        raise Refused(path, "is not a regular file")
