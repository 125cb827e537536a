"""python -m cjepa_jax.bench.kernel: compile the attention kernel for this CPU, check it and time it.

It needs a C++ compiler ($CXX, else c++, g++ or clang++) and is optional. Every later run on this kind of CPU with one
device uses it. CJEPA_CPU_KERNEL=0 turns it off, and --remove deletes it. docs/PERFORMANCE.md has its measured gain.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import numpy as np

from cjepa_jax import cli
from cjepa_jax.bench import measuring
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import cpu, paths
from cjepa_jax.models import fused_cpu

COMPILERS = ("c++", "g++", "clang++")
SIZES = ((8, 3, 162, 64), (8, 3, 196, 64), (32, 4, 80, 16), (2, 3, 1568, 64), (3, 2, 21, 12))  # scenes, heads, T, width
ALLOWED = {"float32": 1e-5, "bfloat16": 0.06}  # difference to the reference, for values of order 1
CHILD = """
import pathlib, sys
from cjepa_jax.bench import kernel
raise SystemExit(kernel.check(pathlib.Path(sys.argv[1])))
"""


def main(argv: list[str] | None = None) -> int:
    return cli.guard(lambda: run(_arguments(argv)))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m cjepa_jax.bench.kernel", description=__doc__.partition(": ")[2].split("\n")[0])
    parser.add_argument("--remove", action="store_true", help="delete the kernel instead")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> int:
    """Raises ConfigError if there is no home, no compiler, or if the compiled kernel is wrong."""
    place = cpu.place()
    if place is None:
        raise ConfigError("HOME is not set: must name the folder in whose .cache the kernel is kept")
    if arguments.remove:
        for file in place.parent.glob("attention-*.so"):
            file.unlink()
            print(f"deleted: {file}")
        return 0
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = compiled(pathlib.Path(folder))
        # In a child process, because wrong code may end it.
        done = subprocess.run([sys.executable, "-c", CHILD, str(made)], env=os.environ | {"JAX_PLATFORMS": "cpu"})
        if done.returncode:
            raise ConfigError(f"the compiled kernel fails on this CPU (exit code {done.returncode}), so it is not kept")
        made.chmod(0o700)  # code that others may change is not run
        os.replace(made, place)
    if cpu.kernel({**os.environ, cpu.KERNEL: ""}) is None:
        raise ConfigError(f"{place}: it or its folder can be changed by other users, so no run will use it")
    print(f"{place}\nRuns on this kind of CPU use it from now on. {cpu.KERNEL}=0 turns it off.")
    return 0


def compiled(folder: pathlib.Path) -> pathlib.Path:
    """The kernel, compiled into `folder`. Raises ConfigError if there is no compiler or if it fails."""
    named = os.environ.get("CXX", "")
    compiler = next(filter(None, map(shutil.which, [named] if named else COMPILERS)), None)
    if compiler is None:
        wanted = f"CXX = {named!r}: there is no such command" if named else "no C++ compiler: install g++ or clang++"
        raise ConfigError(wanted)
    made = folder / "attention.so"
    command = [compiler, *cpu.FLAGS, "-isystem", jax.ffi.include_dir(), str(cpu.SOURCE), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or [""]
        raise ConfigError(f"{compiler} failed on {cpu.SOURCE}: {paths.shown(lines[0], 300)}")
    return made


def check(library: pathlib.Path) -> int:
    """Compares a compiled kernel with `attention.einsum` and prints both times. 1 if a difference is too large."""
    try:
        fused_cpu.register(library)
    except (OSError, AttributeError) as error:
        print(error, file=sys.stderr)
        return 1
    print("scenes, heads, tokens, width   type      difference   kernel      XLA   (ms, with gradients)")
    wrong = 0
    for sizes in SIZES:
        for dtype, allowed in ALLOWED.items():
            found = {kernel: _measured(kernel, sizes, dtype) for kernel in ("fused", "einsum")}
            (have, fast), (wanted, slow) = found.values()
            far = max(float(np.abs(one - other).max()) for one, other in zip(have, wanted, strict=True))
            wrong += not far <= allowed  # NaN too
            print(f"{str(sizes)[1:-1]:30} {dtype:9} {far:10.1e} {fast:8.2f} {slow:8.2f}")
    return int(wrong > 0)


def _measured(kernel: str, sizes: tuple[int, ...], dtype: str) -> tuple[list[np.ndarray], float]:
    """The output and the gradients of q, k and v, and the milliseconds of a call. Tokens of segment 0 see nothing."""
    q, k, v = (measuring.normal(*sizes, seed=seed) for seed in range(3))
    segment = jax.random.randint(jax.random.key(3), (sizes[0], sizes[2]), 0, 3)
    function = measuring.with_gradient(kernel, dtype)
    (_, out), gradients = function(q, k, v, segment)
    seconds = measuring.median(function, q, k, v, segment, count=5, first=1)
    return [np.asarray(x, np.float32) for x in (out, *gradients)], 1e3 * seconds


if __name__ == "__main__":
    raise SystemExit(main())
