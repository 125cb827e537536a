"""The available memory, checked before something large is allocated. Returns free memory to the system."""

import ctypes
import os
import pathlib
import sys

from cjepa_jax.errors import ConfigError

GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # a container's limit
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


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
    meet the holes that initialisation and the steps left, 24 GiB instead of 18. What the steps need they get anew.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:  # glibc
        trim(0)
