"""Converts pickles of extracted slots to a folder that cjepa_jax.data.sources.slot_files:SlotFiles reads.

    python -m cjepa_jax.data.slot_files --slots=clevrer_videosaur_slots.pkl --out=DIR
    python -m cjepa_jax.data.slot_files --slots=pusht_slots.pkl --actions=A.pkl --proprio=P.pkl --out=DIR

A pickle holds {split: {video: float array [frames, slots, width]}}, as the published ones do. It is not executed
(data/formats/array_pickle.py), and no more than one video is in memory. Videos of --actions and --proprio have the same
names and lengths [frames, n]. --out must not hold slots yet.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cjepa_jax import cli
from cjepa_jax.data import slot_writer
from cjepa_jax.data.formats import array_pickle
from cjepa_jax.data.slot_writer import Videos
from cjepa_jax.data.sources.slot_files import ARRAYS, INDEX
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door


def parser() -> cli.Parser:
    """The command line."""
    flags = cli.Parser(
        prog="python -m cjepa_jax.data.slot_files", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    flags.add_argument("--slots", type=cli.path_argument, required=True, help="the pickle of slots")
    flags.add_argument("--actions", type=cli.path_argument, help="a pickle of actions")
    flags.add_argument("--proprio", type=cli.path_argument, help="a pickle of the agent's states")
    flags.add_argument("--out", type=cli.path_argument, required=True, help="the folder to write, made if need be")
    return flags


def main(argv: list[str]) -> int:
    """Runs the command. Raises ConfigError, DataError or StorageError."""
    flags = parser().parse_args(argv)
    given = {name: Path(getattr(flags, name)) for name in ARRAYS if getattr(flags, name)}
    videos = convert(given, Path(flags.out))
    for split, found in videos.items():
        print(f"{flags.out}: split {split}, {len(found)} videos, {sum(n for _, n in found.values())} frames")
    return 0


def convert(given: dict[str, Path], out: Path) -> Videos:
    """Writes the folder `out` from pickles by name (ARRAYS), and returns where each video is.

    Raises: ConfigError for a folder that has slots already. DataError for a pickle that is refused or does not fit.
    """
    if (out / INDEX).exists():
        raise ConfigError(f"--out={out}: holds slots already")
    out.mkdir(parents=True, exist_ok=True)
    videos: Videos = {}
    for name, path in given.items():
        found = _write(path, out / f"{name}.npy", 3 if name == "slots" else 2, videos if name != "slots" else None)
        videos = videos or found
    slot_writer.write_index(out, videos)
    return videos


@contextlib.contextmanager
def writing(out: Path) -> Iterator[Callable[[str, str, np.ndarray], None]]:
    """Writes the folder `out` video by video, by a function of (split, name, slots [frames, K, D]). One is in memory.

    An error leaves no slots in the folder. slot_writer.SlotWriter keeps finished videos.

    Raises: ConfigError for a folder that has slots already. DataError for slots of another shape than those before, for
      a name that a split has already, and where no video was written.
    """
    with slot_writer.SlotWriter(out) as writer:
        yield writer.write
        writer.finish()


def _write(path: Path, to: Path, axes: int, videos: Videos | None) -> Videos:
    """Streams a pickle's arrays to a file. With `videos` their lengths are compared, and they are put in that order."""
    with door.replacing(to) as file:
        frames: list[tuple[int, int]] = []
        inner: list[tuple[int, ...]] = []

        def take(array: np.ndarray) -> int:
            if array.ndim != axes or 0 in array.shape[1:]:
                raise ValueError(f"an array has shape {list(array.shape)}: must have {axes} axes")
            if inner and array.shape[1:] != inner[0]:
                raise ValueError(f"arrays have shapes {[0, *inner[0]]} and {list(array.shape)}")
            if not inner:
                _head(file, (0, *array.shape[1:]))
            inner.append(array.shape[1:])
            frames.append((sum(frames[-1]) if frames else 0, len(array)))
            file.write(np.ascontiguousarray(array, np.float32).tobytes())
            return len(frames) - 1

        numbers = array_pickle.read(path, take)
        found = {split: {name: frames[n] for name, n in arrays.items()} for split, arrays in numbers.items()}
        if videos is not None and found != videos:
            raise DataError(f"{path}: must have the videos of the slots, with the same lengths, in the same order")
        if not frames:
            raise DataError(f"{path}: holds no array")
        _head(file, (sum(frames[-1]), *inner[0]))
    return found


def _head(file: BinaryIO, shape: tuple[int, ...]) -> None:
    file.seek(0)
    file.write(slot_writer.head(list(shape)))


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
