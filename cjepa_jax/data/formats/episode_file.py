"""One HDF5 file of episodes in the layout of stable-worldmodel 0.1.1, read and written. Needs the extra `episodes`.

    pixels [N,H,W,3] uint8, action [N,A], and perhaps proprio [N,S], state [N,D]: the frames of all episodes in a row
    ep_len [E], ep_offset [E]: how many frames an episode has, and which is its first

action[n] leads from frame n to the next one of the episode. In an episode's last frame it is NaN. The package's writer
stores without compression. Its reader also takes files that are compressed with Blosc, as the reader here does.

What is read may be someone else's: links to other files, virtual and external data and filters other than shuffle,
gzip, Blosc and checksums are refused. Sizes are checked before anything is allocated, those that chunks unpack to as
well.
"""

import contextlib
import itertools
import math
import os
import pathlib
import uuid
import zlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.data.formats.image_bytes import check_room
from cjepa_jax.errors import DataError, one_line
from cjepa_jax.host import door, optional

SIGNATURE = b"\x89HDF\r\n\x1a\n"
PIXELS, ACTION, LENGTHS, OFFSETS = "pixels", "action", "ep_len", "ep_offset"
AGENT = ("proprio", "state")  # optional columns
MOST_EPISODES = 1 << 24
MOST_WIDTH = 1 << 16  # numbers of a row of action, proprio or state
DEFLATE, SHUFFLE, FLETCHER, BLOSC = 1, 2, 3, 32001  # numbers of the HDF5 filters that are read
COMPRESSION = DEFLATE, BLOSC
PLUGINS = 256  # filters from this number on are not part of HDF5
CHECKSUM = 4  # bytes that a filter may append to a chunk before it is compressed
EXTRA = 4096  # bytes by which a chunk may be larger than twice what it unpacks to
BLOCK = 1 << 16  # most rows of a column that are read at a time
VALUES = 1 << 22  # and most numbers, unless one row has more
BLOSC_HEADER = 16  # bytes of a chunk, of which 4 to 7 are the size that it unpacks to


def load() -> ModuleType:
    """The package h5py. Raises ConfigError if it is not installed."""
    return optional.need("h5py", "episodes", "a file of episodes")


def load_blosc() -> None:
    """Registers the filter Blosc. Raises ConfigError if the package hdf5plugin is not installed."""
    optional.need("hdf5plugin", "episodes", "a file compressed with Blosc")  # importing registers its filters


class Index(NamedTuple):
    """Where the episodes are."""

    lengths: np.ndarray  # int64 [E]
    offsets: np.ndarray  # int64 [E]
    columns: tuple[str, ...]  # those of AGENT that the file has


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Any]:
    """The file, for reading. Raises DataError if it is none, or for what h5py cannot read."""
    h5py = load()
    try:
        with door.regular(path, links=True) as raw:
            if raw.read(len(SIGNATURE)) != SIGNATURE:
                raise DataError(f"{path}: no HDF5 file")
            raw.seek(0)
            with h5py.File(raw, "r") as file:
                yield file
    except door.Refused as error:
        raise DataError(str(error)) from error
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: unreadable: {one_line(str(error))}") from error


def column(file: Any, name: str, path: str | os.PathLike) -> Any:
    """A data set that is stored in this file itself. Raises DataError for anything else, and ConfigError for Blosc
    without its package."""
    h5py = load()
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise DataError(f"{path}: has no data set {name!r} within the file")
    dataset = file[name]
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{path}: {name} is stored in other files, which are not opened")
    if dataset.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} is {_described(dataset)}: must be numbers")
    check_room(f"{path}: a chunk of {name}", *(dataset.chunks or ()))
    numbers = _filters(dataset)
    if unknown := sorted({n for n in numbers if n not in (SHUFFLE, FLETCHER, *COMPRESSION)}):
        kind = (
            "compressed by a plugin other than Blosc"
            if unknown[0] >= PLUGINS
            else "stored by a filter that is not read"
        )
        raise DataError(f"{path}: {name} is {kind} (filter {unknown[0]}). Repack it with gzip")
    if len(set(numbers)) < len(numbers) or set(COMPRESSION) <= set(numbers):
        raise DataError(f"{path}: {name} is compressed more than once. Repack it with gzip")
    packed = next((place for place, number in enumerate(numbers) if number in COMPRESSION), len(numbers))
    if set(numbers[packed + 1 :]) - {FLETCHER}:  # a chunk's bytes would not be those of the compression
        raise DataError(f"{path}: {name} is compressed before another filter. Repack it with gzip")
    if BLOSC in numbers:
        load_blosc()
    return dataset


def rows(file: Any, name: str, path: str | os.PathLike, taken: range) -> np.ndarray:
    """These rows of a data set, none of whose chunks unpacks to more than a chunk has.

    HDF5 itself allocates all that a compressed chunk unpacks to. Raises DataError.
    """
    dataset = column(file, name, path)
    for place, how in enumerate(_filters(dataset)):
        if how in COMPRESSION:
            whole = math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM
            for skipped, stored in _stored(dataset, taken, 2 * whole + EXTRA):
                # A filter is skipped for a chunk that it would not make smaller.
                if stored is None or (not skipped >> place & 1 and _unpacked(stored, how, whole) > whole):
                    raise DataError(f"{path}: a chunk of {name} unpacks to more than its {whole - CHECKSUM} bytes")
    return dataset[taken.start : taken.stop : taken.step]


def pieces(file: Any, name: str, path: str | os.PathLike, taken: range) -> Iterator[np.ndarray]:
    """These rows one after the other, at most BLOCK rows and VALUES numbers in an array. Raises as `rows`."""
    width = math.prod(column(file, name, path).shape[1:])
    step = min(BLOCK, max(VALUES // max(width, 1), 1))
    for start in range(0, len(taken), step):
        yield rows(file, name, path, taken[start : start + step])


def _filters(dataset: Any) -> list[int]:
    """The numbers of a data set's filters, in the order in which they store."""
    made = dataset.id.get_create_plist()
    return [made.get_filter(i)[0] for i in range(made.get_nfilters())]


def _stored(dataset: Any, taken: range, most: int) -> Iterator[tuple[int, bytes | None]]:
    """(a bit for each filter that was skipped, the compressed bytes) of each chunk that holds some of these rows. None
    for more than `most` bytes."""
    along = [np.unique(np.asarray(taken) // dataset.chunks[0] * dataset.chunks[0]).tolist()]
    along += [range(0, size, chunk) for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    for corner in itertools.product(*along):
        found = dataset.id.get_chunk_info_by_coord(corner)
        if found.byte_offset is not None:  # else it has nothing but zeros
            yield dataset.id.read_direct_chunk(corner) if found.size <= most else (0, None)


def _unpacked(stored: bytes, how: int, most: int) -> int:
    """The bytes that a chunk unpacks to, or any number above `most` if there are more."""
    if how == BLOSC:
        return int.from_bytes(stored[4:8], "little") if len(stored) >= BLOSC_HEADER else 0
    try:
        return len(zlib.decompressobj().decompress(stored, most + 1))
    except zlib.error:  # HDF5 will report it
        return 0


def index(path: str | os.PathLike) -> Index:
    """Where the episodes are. Raises DataError unless the file has this layout."""
    with opened(path) as file:
        whole = {name: column(file, name, path) for name in (PIXELS, ACTION, LENGTHS, OFFSETS)}
        agent = tuple(name for name in AGENT if name in file)
        whole |= {name: column(file, name, path) for name in agent}
        frames = whole[PIXELS].shape[0] if whole[PIXELS].ndim == 4 else -1
        if whole[PIXELS].dtype != np.uint8 or frames < 0 or whole[PIXELS].shape[3] != 3:
            raise DataError(f"{path}: pixels are {_described(whole[PIXELS])}: must be uint8 [N, H, W, 3]")
        for name in (ACTION, *agent):
            dataset = whole[name]
            rowed = dataset.ndim == 2 and len(dataset) == frames and dataset.shape[1] <= MOST_WIDTH
            if dataset.dtype.kind not in "fiu" or not rowed:
                raise DataError(f"{path}: {name} is {_described(dataset)}: must be numbers [{frames}, n]")
        for name in (LENGTHS, OFFSETS):
            dataset = whole[name]
            if dataset.dtype.kind not in "iu" or dataset.ndim != 1 or not 0 < len(dataset) <= MOST_EPISODES:
                raise DataError(f"{path}: {name} is {_described(dataset)}: must be integers [E]")
        if len(whole[LENGTHS]) != len(whole[OFFSETS]):
            raise DataError(f"{path}: ep_len and ep_offset have {len(whole[LENGTHS])} and {len(whole[OFFSETS])} rows")
        episodes = len(whole[LENGTHS])
        lengths, offsets = (rows(file, name, path, range(episodes)).astype(np.int64) for name in (LENGTHS, OFFSETS))
    wrong = (lengths < 1) | (offsets < 0) | (offsets > frames - lengths)
    if wrong.any():
        worst = int(wrong.argmax())
        text = f"frames {offsets[worst]} to {offsets[worst] + lengths[worst] - 1}, and the file has {frames}"
        raise DataError(f"{path}: episode {worst} has {text}")
    order = np.argsort(offsets, kind="stable")
    shared = offsets[order][1:] < (offsets + lengths)[order][:-1]
    if shared.any():
        first, second = order[shared.argmax() :][:2]
        raise DataError(f"{path}: episodes {first} and {second} share frame {offsets[second]}")
    return Index(lengths, offsets, agent)


def read(path: str | os.PathLike, first: int, count: int, stride: int, agent: tuple[str, ...]) -> dict[str, np.ndarray]:
    """`count` frames, from frame `first` of the file on, `stride` apart, and all actions up to the last of them.

    Returns: pixels uint8 [count,H,W,3], action float32 [(count - 1) stride + 1, A], the columns of `agent` [count,n].
    """
    span = (count - 1) * stride + 1
    with opened(path) as file:
        check_room(f"{path}: frames", count, *column(file, PIXELS, path).shape[1:])
        seen = range(first, first + span, stride)
        out = {PIXELS: rows(file, PIXELS, path, seen), ACTION: rows(file, ACTION, path, range(first, first + span))}
        out |= {name: rows(file, name, path, seen).astype(np.float32) for name in agent}
    return out | {ACTION: out[ACTION].astype(np.float32)}


def spread(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """`spread_of` the file's actions, read in pieces."""
    with opened(path) as file:
        every = range(len(column(file, ACTION, path)))
        return spread_of(pieces(file, ACTION, path, every), f"{path}: {ACTION}")


def spread_of(parts: Iterable[np.ndarray], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each number over the finite rows of arrays [n, A], float64 [A] each.

    The deviation divides by the number of rows less one, and is 1 where a number does not change. Raises DataError,
    which begins with `where`, for fewer than two finite rows.
    """
    count, total, first, squares = 0, 0.0, None, 0.0
    for part in parts:
        part = part.astype(np.float64)
        part = part[np.isfinite(part).all(1)]
        if not len(part):
            continue
        first = part[0] if first is None else first  # sums of squares around a value lose fewer digits
        count, total = count + len(part), total + (part - first).sum(0)
        squares = squares + np.square(part - first).sum(0)
    if first is None or count < 2:
        raise DataError(f"{where} has {count} finite rows: at least 2 are needed to standardise them")
    deviation = np.sqrt(np.maximum(squares - np.square(total) / count, 0) / (count - 1))
    return first + total / count, np.where(deviation > 0, deviation, 1.0)


def _described(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"


class Recorder:
    """Writes episodes one after the other. The file appears under its name when `close` or the end of `with` is reached
    without an error, and replaces one of that name.

        with Recorder("pushes.h5") as out:
            out.add(frames, actions, proprio=places)

    Raises: ConfigError without h5py, DataError for an episode that does not fit.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._part, self._lengths = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}"), list[int]()
        self._file = load().File(self._part, "x")  # it follows no link, and the file gets the usual permissions

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def add(
        self, video: np.ndarray, actions: np.ndarray, proprio: np.ndarray | None = None, state: np.ndarray | None = None
    ) -> None:
        """Appends an episode: video uint8 [T,H,W,3], actions [T,A] or [T - 1,A] (the last one is not stored), proprio
        [T,S] and state [T,D]. All episodes have the same widths and columns."""
        frames = len(video)
        actions = np.asarray(actions, np.float32)
        last = np.full((1, *actions.shape[1:]), np.nan, np.float32)
        rows = {PIXELS: np.asarray(video), ACTION: np.concatenate([actions[: frames - 1], last])}
        agent = {"proprio": proprio, "state": state}
        rows |= {name: np.asarray(value, np.float32) for name, value in agent.items() if value is not None}
        if rows[PIXELS].dtype != np.uint8 or rows[PIXELS].ndim != 4 or rows[PIXELS].shape[3] != 3 or not frames:
            raise DataError(f"video is {_described(rows[PIXELS])}: must be uint8 [T, H, W, 3]")
        for name, array in rows.items():
            if len(array) != frames or (name != PIXELS and array.ndim != 2):
                raise DataError(f"{name} is {_described(array)}: must be numbers [{frames}, n]")
            if not np.isfinite(array[: frames - 1]).all():
                raise DataError(f"{name} has values that are not finite")
        old = set(self._file) & {PIXELS, ACTION, *AGENT}
        if old and (old != set(rows) or any(self._file[n].shape[1:] != rows[n].shape[1:] for n in old)):
            raise DataError(f"an episode has {_shapes(rows)}. Those before have {_shapes(self._file, old)}")
        for name, array in rows.items():
            if name not in self._file:
                chunk = (1 if name == PIXELS else 256, *array.shape[1:])
                options = dict(maxshape=(None, *array.shape[1:]), chunks=chunk, compression="gzip", compression_opts=1)
                self._file.create_dataset(name, (0, *array.shape[1:]), array.dtype, **options)
            start = len(self._file[name])
            self._file[name].resize(start + frames, 0)
            self._file[name][start:] = array
        self._lengths.append(frames)

    def close(self) -> None:
        """Finishes the file. Raises DataError if it has no episode."""
        if not self._lengths:
            self._file.close()
            self._part.unlink(missing_ok=True)
            raise DataError(f"{self.path}: no episode was added")
        lengths = np.asarray(self._lengths, np.int64)
        self._file[LENGTHS], self._file[OFFSETS] = lengths, lengths.cumsum() - lengths
        self._file.close()
        os.replace(self._part, self.path)


def _shapes(rows: Any, names: Any = None) -> str:
    return ", ".join(f"{name} {list(rows[name].shape[1:])}" for name in sorted(names or rows))


def record(env: Any, policy: Any, path: str | os.PathLike, episodes: int, steps: int, seed: int) -> None:
    """Plays `episodes` episodes of at most `steps` actions and records them.

    Args:
      env: any Gymnasium environment with render_mode="rgb_array" and a vector as observation, which is kept as `state`.
      policy: observation -> action [A].
      seed: episode i is reset with seed + i.
    """
    with Recorder(path) as out:
        for episode in range(episodes):
            seen, _ = env.reset(seed=seed + episode)
            images, states, actions = [env.render()], [seen], []
            for _ in range(steps):
                actions.append(np.asarray(policy(seen), np.float32))
                seen, _, terminated, truncated, _ = env.step(actions[-1])
                images.append(env.render())
                states.append(seen)
                if terminated or truncated:
                    break
            out.add(np.stack(images), np.stack(actions), state=np.stack(states))
