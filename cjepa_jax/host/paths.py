"""Paths that a user types, and their file systems."""

import errno
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterable

from cjepa_jax.errors import ConfigError
from cjepa_jax.host import door

MOST_NAME, MOST_PATH = 255, 4095  # bytes of a name and of a path, on Linux
SHARED_MEMORY = pathlib.Path("/dev/shm")  # through which data workers pass batches
LOW = 16 * 2**20  # bytes below which a file system counts as full, if an error does not name it
ABSOLUTE = re.compile(r"(?<![\w/.])/[^\s'\":,;()]+")
ESCAPED = re.compile(r"\\([0-7]{3})")  # how the kernel's table of mounts writes spaces and the like


def given(text: str | os.PathLike, setting: str) -> pathlib.Path:
    """The path that a flag or a key names, `~` expanded.

    setting: what messages begin with, such as "--out".
    Raises ConfigError for an invalid path: empty, a name or a path that is too long, an unknown home, a NUL.
    """
    text = os.fspath(text)
    if not text:
        raise ConfigError(f"{setting} is empty: name a file or a folder")
    if "\0" in text:
        raise ConfigError(f"{setting}={shown(text)}: has a NUL in it")
    try:
        longest, length = max(len(os.fsencode(part)) for part in text.split("/")), len(os.fsencode(text))
    except UnicodeEncodeError as error:
        raise ConfigError(f"{setting}={shown(text)}: is not text that a path could have") from error
    if longest > MOST_NAME or length > MOST_PATH:
        limit = f"a name may have {MOST_NAME} bytes, a path {MOST_PATH}"
        raise ConfigError(f"{setting}={shown(text)}: is too long, {limit}")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        home = text.partition("/")[0]
        raise ConfigError(f"{setting}={shown(text)}: the home of {home} is not known") from error


def shown(text: str, most: int = 200) -> str:
    """A user's text for a message, cut to `most` letters."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} letters)"


def file_system(path: str | os.PathLike) -> str:
    """The file system of a path, in words: "the file system /dev/shm (tmpfs, 0.1 MiB of 64.0 MiB free)"."""
    place = pathlib.Path(os.path.realpath(path))
    while not place.exists() and place != place.parent:
        place = place.parent
    mount = place
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    try:
        usage, flags = shutil.disk_usage(place), os.statvfs(place).f_flag
    except OSError as error:
        return f"the file system {mount} ({error.strerror})"
    kind, only = _kind(mount), ", read-only" if flags & os.ST_RDONLY else ""
    return f"the file system {mount} ({kind}{_size(usage.free)} of {_size(usage.total)} free{only})"


def blamed(error: BaseException, places: Iterable[str | os.PathLike] = ()) -> str:
    """The file system that an error about space refers to, in words. "" if unknown.

    It is that of the path in the error. Without a path it is the first full one of those that a run writes to:
    `places`, the folder of temporary files, shared memory. If none is full, it is that of the first of `places`.
    """
    named = [name for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name]
    named += [] if named else ABSOLUTE.findall(str(error))
    for name in named:
        if isinstance(name, str | bytes | os.PathLike):
            return file_system(door.named(os.fsdecode(name)))
    places = list(map(pathlib.Path, places))
    full = [place for place in (*places, pathlib.Path(tempfile.gettempdir()), SHARED_MEMORY) if _is_full(place)]
    return file_system((full or places)[0]) if full or places else ""


def is_gone(error: OSError) -> bool:
    """Whether the error says that the file system no longer answers."""
    return error.errno in (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ENXIO, errno.EREMOTEIO)


def _is_full(place: pathlib.Path) -> bool:
    try:
        state = os.statvfs(place)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < LOW or bool(state.f_flag & os.ST_RDONLY)


def _kind(mount: pathlib.Path) -> str:
    """ "tmpfs, " of the file system mounted last at a place. "" if unknown."""
    try:
        lines = pathlib.Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    rows = [line.split() for line in lines]
    kinds = [row[2] for row in rows if len(row) > 2 and _plain(row[1]) == str(mount)]
    return f"{kinds[-1]}, " if kinds else ""


def _plain(text: str) -> str:
    return ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 10 * 2**30 else f"{count / 2**20:.1f} MiB"
