"""A folder of episodes in the layout of LeRobot (versions 2.0, 2.1 and 3.0): parquet files and videos. Needs pyarrow.

    meta/info.json      version, frames a second, features: dtype and shape of each column
    2.x: meta/episodes.jsonl    a line for each episode: episode_index, length
         data/chunk-000/episode_000000.parquet, videos/chunk-000/KEY/episode_000000.mp4
    3.0: meta/episodes/chunk-000/file-000.parquet    a row for each episode: its length, files, rows, times in videos
         data/chunk-000/file-000.parquet, videos/KEY/chunk-000/file-000.mp4, several episodes in a file

A row of the data is a frame: `action` leads to the episode's next frame. What is read may be someone else's. The names
of files are made from numbers by the layout's own pattern, not taken from the folder's texts. Links that lead out of
the folder are refused, and sizes are checked before anything is allocated.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError, one_line
from cjepa_jax.host import door, optional

VERSIONS = ("v2.0", "v2.1", "v3.0")
ACTION, STATE = "action", "observation.state"
MOST_EPISODES, MOST_ROWS = 1 << 22, 1 << 26  # of all files together
MOST_WIDTH = 1 << 12  # numbers of an action or a state
MOST_META = 1 << 28  # bytes of info.json and of episodes.jsonl
MOST_BYTES = 1 << 32  # that the columns of a file may have when they are decompressed
MOST_FPS = 1000
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)  # the name of a feature, and of a folder
PLACES = ("data/chunk_index", "data/file_index", "dataset_from_index")  # of an episode, in 3.0


class Index(NamedTuple):
    """What a folder has. Arrays have a row for each episode."""

    version: str
    fps: float
    cameras: tuple[str, ...]  # keys of the videos
    columns: dict[str, int]  # width of `action`, and of the state if there is one
    lengths: np.ndarray  # int64 [E]
    rows: np.ndarray  # int64 [E] the first row of an episode in its file
    data: np.ndarray  # int64 [E, 2] chunk and file of the data
    videos: dict[str, np.ndarray]  # by camera: float64 [E, 3] chunk and file of the video, and its start in seconds


def load() -> ModuleType:
    """The package pyarrow.parquet. Raises ConfigError if it is not installed."""
    return optional.need("pyarrow.parquet", "episodes", "LeRobot's files")


def index(root: Path, state: str) -> Index:
    """What the folder has. state: the feature that becomes the agent's state. Raises DataError unless the folder has
    this layout."""
    where = root / "meta" / "info.json"
    info = files.read_json(files.inside(root, "meta/info.json"), MOST_META)
    if not isinstance(info, dict) or info.get("codebase_version") not in VERSIONS:
        found = info.get("codebase_version") if isinstance(info, dict) else None
        raise DataError(f"{where}: codebase_version is {str(found)[:40]!r}: must be one of {', '.join(VERSIONS)}")
    fps, features = info.get("fps"), info.get("features")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps <= MOST_FPS:
        raise DataError(f"{where}: fps is {str(fps)[:40]!r}: must be above 0 and at most {MOST_FPS}")
    if not isinstance(features, dict) or not all(isinstance(value, dict) for value in features.values()):
        raise DataError(f"{where}: features is not an object of objects")
    cameras = tuple(sorted(key for key, value in features.items() if value.get("dtype") == "video"))
    if unfit := [key for key in cameras if not KEY.fullmatch(key)]:
        raise DataError(f"{where}: {unfit[0][:80]!r} is not the name of a video")
    columns = {name: _width(features[name], name, where) for name in (ACTION, state) if name in features}
    if ACTION not in columns:
        raise DataError(f"{where}: has no feature {ACTION!r}")
    none = np.zeros(0, np.int64)
    known = Index(info["codebase_version"], float(fps), cameras, columns, none, rows=none, data=none, videos={})
    found = (_third if known.version == "v3.0" else _second)(root, info, known)
    if not 0 < len(found.lengths) <= MOST_EPISODES or found.lengths.sum() > MOST_ROWS:
        text = f"{len(found.lengths)} episodes with {found.lengths.sum()} frames"
        raise DataError(f"{root}: has {text}: must be 1 to {MOST_EPISODES} with at most {MOST_ROWS}")
    return found


def _width(feature: dict, name: str, where: Path) -> int:
    shape: Any = feature.get("shape")
    good = isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 1 <= shape[0] <= MOST_WIDTH
    if not good or feature.get("dtype") not in ("float32", "float64"):
        text = f"{name} is {str(feature.get('dtype'))[:20]} {str(shape)[:40]}: must be float32 or float64"
        raise DataError(f"{where}: {text} of 1 to {MOST_WIDTH} numbers")
    return shape[0]


def _second(root: Path, info: dict, known: Index) -> Index:
    """The episodes of versions 2.0 and 2.1: each has its files."""
    where, size = root / "meta" / "episodes.jsonl", info.get("chunks_size", 1000)
    if type(size) is not int or not 1 <= size <= MOST_EPISODES:
        raise DataError(f"{root}/meta/info.json: chunks_size is {str(size)[:40]!r}: must be 1 to {MOST_EPISODES}")
    lengths = []
    text = files.contents(files.inside(root, "meta/episodes.jsonl"), MOST_META)
    for number, line in enumerate(text.splitlines()):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: line {number + 1} is not JSON: {one_line(str(error))}") from error
        length = row.get("length") if isinstance(row, dict) else None
        if type(length) is not int or not 1 <= length <= MOST_ROWS or row.get("episode_index") != number:
            raise DataError(f"{where}: line {number + 1} is not episode {number} with its length")
        lengths.append(length)
    count = np.arange(len(lengths))
    place = np.stack([count // size, count], axis=-1)
    starts = np.concatenate([place, np.zeros((len(count), 1))], axis=-1)
    return known._replace(
        lengths=np.asarray(lengths, np.int64),
        rows=np.zeros(len(count), np.int64),
        data=place,
        videos=dict.fromkeys(known.cameras, starts),
    )


def _third(root: Path, info: dict, known: Index) -> Index:
    """The episodes of version 3.0: several in a file."""
    names = ["episode_index", "length", *PLACES]
    times = [
        f"videos/{key}/{name}" for key in known.cameras for name in ("chunk_index", "file_index", "from_timestamp")
    ]
    folder = files.inside(root, "meta/episodes")
    found = sorted(path.relative_to(root).as_posix() for path in folder.glob("chunk-*/file-*.parquet"))
    if not found:
        raise DataError(f"{folder}: has no file chunk-000/file-000.parquet")
    parts = [columns(root, name, [*names, *times], MOST_EPISODES) for name in found]
    table = {name: np.concatenate([part[name] for part in parts]) for name in (*names, *times)}
    if any(array.ndim != 1 or not np.isfinite(array.astype(float)).all() for array in table.values()):
        raise DataError(f"{folder}: has a column without numbers")
    order = np.argsort(table["episode_index"], kind="stable")
    table = {name: array[order] for name, array in table.items()}
    whole = {name: table[name].astype(np.int64) for name in names}
    lengths, data = whole["length"], np.stack([whole[name] for name in PLACES[:2]], axis=-1)
    if (whole["episode_index"] != np.arange(len(lengths))).any() or (lengths < 1).any() or (lengths > MOST_ROWS).any():
        raise DataError(f"{folder}: episodes are not 0, 1, 2, ... with lengths of at least 1")
    if (data < 0).any():
        raise DataError(f"{folder}: has files of negative numbers")
    same = (data[1:] == data[:-1]).all(1)
    first = np.concatenate([[True], ~same])  # an episode that begins a file
    begins = np.maximum.accumulate(np.where(first, np.arange(len(lengths)), 0))
    rows = whole["dataset_from_index"] - whole["dataset_from_index"][begins]
    videos = {key: np.stack([table[name].astype(float) for name in times[3 * i : 3 * i + 3]], axis=-1)
              for i, key in enumerate(known.cameras)}  # fmt: skip
    if (rows < 0).any() or any((places < 0).any() for places in videos.values()):
        raise DataError(f"{folder}: episodes of a file are not in order, or begin before the file")
    return known._replace(lengths=lengths, rows=rows, data=data, videos=videos)


def data_name(known: Index, episode: int) -> str:
    """The file of an episode's rows, relative to the folder."""
    chunk, file = known.data[episode].tolist()
    name = f"file-{file:03d}" if known.version == "v3.0" else f"episode_{file:06d}"
    return f"data/chunk-{chunk:03d}/{name}.parquet"


def video_name(known: Index, camera: str, episode: int) -> str:
    """The file of an episode's video, relative to the folder."""
    chunk, file = (int(value) for value in known.videos[camera][episode, :2])
    if known.version == "v3.0":
        return f"videos/{camera}/chunk-{chunk:03d}/file-{file:03d}.mp4"
    return f"videos/chunk-{chunk:03d}/{camera}/episode_{file:06d}.mp4"


@contextlib.contextmanager
def opened(root: Path, name: str) -> Iterator[Any]:
    """A parquet file, whose footer has been read. Raises DataError, naming it, for what pyarrow cannot read."""
    parquet, path = load(), files.inside(root, name)
    import pyarrow

    try:
        with door.regular(path, links=True) as raw:
            yield parquet.ParquetFile(raw)
    except door.Refused as error:
        raise DataError(str(error)) from error
    except (OSError, pyarrow.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{path}: unreadable: {one_line(str(error))}") from error


def columns(
    root: Path, name: str, wanted: list[str], most: int, first: int = 0, count: int = -1
) -> dict[str, np.ndarray]:
    """Columns of a parquet file as arrays [n] or [n, width]. count: rows from `first` on, -1 for all.

    Row groups without wanted rows are not decompressed. Raises DataError, naming the file, for columns that are
    missing, that do not hold numbers, or that are larger than `most` rows or MOST_BYTES bytes.
    """
    with opened(root, name) as file:
        meta, paths = file.metadata, file.schema_arrow.names
        if missing := [column for column in wanted if column not in paths]:
            raise DataError(f"{root / name}: has no column {missing[0]!r}")
        if meta.num_rows > most:
            raise DataError(f"{root / name}: has {meta.num_rows} rows, at most {most} are read")
        last = meta.num_rows if count < 0 else first + count
        if last > meta.num_rows:
            raise DataError(f"{root / name}: has {meta.num_rows} rows, {last} are needed")
        groups, skipped, passed = [], 0, 0
        for group in range(meta.num_row_groups):
            rows = meta.row_group(group).num_rows
            if passed + rows <= first:
                skipped += rows
            elif passed < last:
                groups.append(group)
            passed += rows
        leaves = [meta.schema.column(leaf).path for leaf in range(meta.num_columns)]
        own = [leaf for leaf, path in enumerate(leaves) if any(f"{path}.".startswith(f"{each}.") for each in wanted)]
        size = sum(meta.row_group(group).column(leaf).total_uncompressed_size for group in groups for leaf in own)
        if size > MOST_BYTES:
            raise DataError(f"{root / name}: {size} bytes when decompressed, at most {MOST_BYTES} are held")
        table = file.read_row_groups(groups, columns=wanted, use_threads=False).slice(first - skipped, last - first)
        return {column: _numbers(table.column(column), f"{root / name}: {column}") for column in wanted}


def _numbers(column: Any, where: str) -> np.ndarray:
    """A column of numbers [n], or of equally long lists of them [n, width]. Raises DataError for anything else."""
    import pyarrow
    from pyarrow import types

    values, rows, kind = column, len(column), column.type
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if lists:
        values, kind = (
            pyarrow.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type),
            kind.value_type,
        )
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise DataError(f"{where} is {str(column.type)[:40]}: must be numbers")
    if column.null_count or values.null_count:
        raise DataError(f"{where} has empty values")
    array = values.to_numpy()
    if not lists:
        return array
    lengths = np.array([len(row) for chunk in column.chunks for row in chunk])
    if not rows or np.ptp(lengths):
        raise DataError(f"{where} has no rows, or lists of several lengths")
    return array.reshape(rows, -1)
