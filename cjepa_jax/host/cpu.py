"""This machine's kind of CPU, the user's folder of code compiled for it, and the attention kernel in it. No JAX."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping

from cjepa_jax.host import door

KERNEL = "CJEPA_CPU_KERNEL"  # 0: an attention kernel that is there is not used
SOURCE = pathlib.Path(__file__).parents[1] / "models" / "fused_cpu.cc"
FLAGS = ("-O3", "-std=c++17", "-march=native", "-fPIC", "-shared")


def kind() -> str:
    """A name for this kind of CPU.

    JAX's cache key ignores the CPU's features. If machines share a home, code compiled for a newer CPU would end with
    SIGILL on an older one.
    """
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = ("flags", "features", "model name", "cpu part")
    about = sorted({line for line in lines if line.lower().startswith(named)} | {platform.processor()})
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(about).encode()).hexdigest()[:12]}"


def folder(name: str, environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """cjepa_jax/NAME/KIND in $XDG_CACHE_HOME or ~/.cache, which may not exist yet. None without a home."""
    root, home = environment.get("XDG_CACHE_HOME", ""), environment.get("HOME", "")
    root = pathlib.Path(root) if os.path.isabs(root) else pathlib.Path(home, ".cache")  # XDG: relative paths are void
    return root / "cjepa_jax" / name / kind() if root.is_absolute() else None


@functools.cache
def version() -> str:
    """Of the attention kernel: a digest of its source, of how it is compiled, and of the interface that it uses."""
    about = "\n".join([*FLAGS, importlib.metadata.version("jaxlib"), SOURCE.read_text()])
    return hashlib.sha256(about.encode()).hexdigest()[:12]


def label(file: pathlib.Path) -> str:
    """The version of a kernel and a digest of its code, which differs between compilers."""
    return f"{version()} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def place(environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Where the attention kernel of this version and CPU belongs. None without a home."""
    kernels = folder("kernels", environment)
    return kernels and kernels / f"attention-{version()}.so"


def kernel(environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """The attention kernel, if this user has built it (`python -m cjepa_jax.bench.kernel`) and it is not turned off.

    It is code that this process will run. So one that another user owns or may change counts as absent.
    """
    file = None if environment.get(KERNEL) == "0" else place(environment)
    return file if file and file.is_file() and door.is_own(file) and door.is_own(file.parent) else None
