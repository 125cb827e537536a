"""The available memory, checked before something large is allocated. How processes get it and give it back."""

import contextlib
import ctypes
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import ClassVar

from cjepa_jax.errors import ConfigError

GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # a container's limit
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# Settings of glibc's allocator (2.35 or newer), which it reads only when a process starts. The heap keeps its memory,
# in huge pages. So arrays that are allocated again and again cause no page faults.
ALLOCATOR = ":".join(
    f"glibc.malloc.{setting}" for setting in ("hugetlb=1", "mmap_max=0", "trim_threshold=1000000000000", "arena_max=1")
)
LEAST_HOLE, MOST_HOLE = 1024, 2**20  # bytes of free pieces that are searched: there are few larger ones
DONTNEED = 4  # madvise's MADV_DONTNEED
TUNABLES = "GLIBC_TUNABLES"  # the variable with the settings


def tunables(given: str) -> str | None:
    """The value of TUNABLES with ALLOCATOR. None if `given` already sets huge pages, or outside Linux."""
    if sys.platform != "linux" or ALLOCATOR.split("=")[0] in given:
        return None
    return ":".join(filter(None, (given, ALLOCATOR)))


@contextlib.contextmanager
def heaps_kept() -> Iterator[None]:
    """Processes that start inside have ALLOCATOR's settings. This process has what it started with."""
    before = os.environ.get(TUNABLES)
    wanted = tunables(before or "")
    if wanted is not None:
        os.environ[TUNABLES] = wanted
    try:
        yield
    finally:
        os.environ.pop(TUNABLES, None)
        if before is not None:
            os.environ[TUNABLES] = before


def total() -> int:
    """Bytes of memory available to this process: the machine's, or its container's."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in GROUPS:
        try:
            found.append(int(pathlib.Path(group).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(found)


def require(needed: float, what: str, have: float | None = None) -> None:
    """Raises ConfigError, "WHAT takes ... of memory", if that is more than there is.

    needed: bytes, a lower bound: the check finds what cannot work. have: bytes (None: the machine's).
    """
    have = total() if have is None else have
    if needed > have:
        raise ConfigError(f"{what} takes {in_words(needed)} of memory or more, and there are {in_words(have)}")


def in_words(count: float) -> str:
    """ "14.6 TiB"."""
    power = 0
    while count >= 1024 and power < len(UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.0f} {UNITS[0]}" if not power else f"{count:.1f} {UNITS[power]}"


def release() -> None:
    """Gives the system back what is free of a heap that never shrinks (`cli.restart_with_huge_pages`).

    For the moments between steps and other work that needs as much: a ViT-L/16's first save and probe would otherwise
    meet the holes that initialisation and the steps left, 24 GiB instead of 18. What the steps need they get again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:  # glibc
        trim(0)


class _Info(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


def set_aside(least: int = LEAST_HOLE, most: int = MOST_HOLE) -> int:
    """Takes the free pieces of `least` to `most` bytes below the heap's top out of use, for good. Returns their bytes.

    A compilation leaves tens of thousands of such holes. glibc looks through them at every allocation of a step, under
    a lock for which all threads wait, so that each step takes about 1.3 times as long as in a process that has loaded
    its program. The system gets their whole pages back. Does nothing without ALLOCATOR's settings, by which all threads
    share one heap.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" and ALLOCATOR in os.environ.get(TUNABLES, "") else None
    if libc is None or not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = _Info
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page, info = os.sysconf("SC_PAGE_SIZE"), libc.mallinfo2()
    top = libc.sbrk(0) - info.keepcost - page
    size, taken, larger = max(info.fordblks - info.keepcost, most), 0, []
    while size >= least:
        piece = libc.malloc(size)
        if piece is None or piece >= top:  # no hole is as large
            libc.free(piece)
            size -= max(size // 4, 16)
        elif size > most:  # else smaller pieces would be cut from it
            larger.append(piece)
        else:
            taken += size
            first, end = -(-piece // page) * page, (piece + size) // page * page
            if end > first:
                libc.madvise(first, end - first, DONTNEED)
    for piece in larger:
        libc.free(piece)
    return taken
