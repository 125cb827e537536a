"""Reads every scene of a split in parallel and writes a row about each to a file, from which a later call resumes.

A row is a dict of JSON values. Unreadable scenes have `error`, the others what `measure` lists.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.data import checks, pipeline, transforms
from cjepa_jax.errors import CjepaError, ConfigError, DataError
from cjepa_jax.host import door
from cjepa_jax.masks import objects
from cjepa_jax.runtime.workdir import write_atomically

CHUNK = 16  # scenes of a task
MOST_BYTES = 1 << 32  # of a file of rows
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Held:
    """A source of one scene that has been read, in place of the source that gave it."""

    raw: Any
    index: int
    label_names: tuple[str, ...]
    channels: int
    pixels: str
    can_rerender: bool = False

    def __len__(self) -> int:
        return self.index + 1

    def __getitem__(self, i: int) -> Any:
        return self.raw


def measure(scenes: pipeline.SceneMap, index: int) -> Row:
    """Reads scene `index` and describes it.

    Keys: `scene`, and `error` if it cannot be read, or else `size` [width, height] in pixels, `objects` (rows of its
    masks), `areas` (each visible object's share of the tokens in the centred square), `fallback` (the config's mask
    removes no object in the first epoch), `mean`, `std`, `low`, `high` of the pixels, `motion` (mean absolute change
    from the first frame to the last), `digest` of the pixels, `labels`, and `class` if there is one. `seconds` it took.
    Scenes of other channels or types than RGB have `channels`: [mean, deviation] of each.
    """
    source, begun = scenes.source, time.perf_counter()
    row: Row = {"scene": index}
    try:
        name = f"scene {index} of {type(source).__name__}"
        raw = scenes.complete(source[index], name)
        checks.scene(raw, scenes.frames, source.label_names, name, *checks.channels_of(source))
        row |= _describe(scenes, index, raw)
    except DataError as error:
        row["error"] = str(error)
    except CjepaError:
        raise
    except (Exception, SystemExit) as problem:  # as in the pipeline: a user's source can raise anything
        row["error"] = str(pipeline.reported(source, index, problem))
    return row | {"seconds": round(time.perf_counter() - begun, 4)}


def _describe(scenes: pipeline.SceneMap, index: int, raw: Any) -> Row:
    video, labels = raw["video"], np.asarray(raw["labels"], np.float64)
    height, width = video.shape[1:3]
    square = transforms.centre_square(height, width).masks(raw["masks"], scenes.size)
    areas = objects.patches(square, scenes.patch, scenes.frames // scenes.grid[0]).mean(1)
    kind = checks.channels_of(scenes.source)
    held = Held(raw, index, tuple(scenes.source.label_names), *kind)
    drawn = dataclasses.replace(scenes, source=held, crop=False, intervened="none")(index, 0)
    wide = video.astype(np.int16 if video.dtype == np.uint8 else np.float64)
    change = np.abs(wide[-1] - wide[0]).mean() if len(video) > 1 else 0.0
    row = {
        "size": [width, height],
        "objects": len(raw["masks"]),
        "areas": [round(float(area), 5) for area in areas if area > 0],
        "fallback": not drawn["removed"].any(),
        "mean": _short(video.mean(), 2),
        "std": _short(video.std(), 2),
        "low": video.min().item(),
        "high": video.max().item(),
        "motion": _short(change, 3),
        "digest": hashlib.blake2b(video.tobytes(), digest_size=12).hexdigest(),
        "labels": [float(f"{value:.6g}") for value in labels],
    }
    if kind != checks.RGB:
        values = video.astype(np.float64)
        row["channels"] = [[_short(f(values[..., c]), 4) for f in (np.mean, np.std)] for c in range(kind[0])]
    return row | ({"class": int(raw["class"])} if "class" in raw else {})


def _short(value: Any, digits: int) -> float:
    """Rounded to `digits` digits after the point, numbers below 1 to as many in all."""
    return round(float(value), digits) if abs(value) >= 1 else float(f"{value:.{digits}g}")


def read(file: Path, mark: str, total: int) -> dict[int, Row]:
    """The rows that an earlier call wrote, by scene, without those of unreadable scenes, which are read again.

    mark: identifies source and config. Raises ConfigError if the file has another mark. A last line that was cut short
    is left out.
    """
    if not file.exists():
        return {}
    lines = door.read(file, MOST_BYTES).decode("utf-8", "replace").split("\n")[:-1]
    found: dict[int, Row] = {}
    for number, line in enumerate(lines):
        try:
            row = door.parsed(line)
        except ValueError:
            continue  # cut short by a kill
        if number == 0 and (not isinstance(row, dict) or row.get("mark") != mark):
            raise ConfigError(
                f"--out={file.parent}: holds an inspection of other data or settings: name another folder, or delete it"
            )
        if number and _is_whole(row) and 0 <= row["scene"] < total and "error" not in row:
            found[row["scene"]] = row
    return found


def _is_whole(row: Any) -> bool:
    """Whether a stored row is of a scene that was read, with values of `measure`'s types."""
    if not isinstance(row, dict) or any(type(row.get(key)) is not int for key in ("scene", "objects")):
        return False
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in row.get("channels", ())
    ):
        return False
    lists = all(
        isinstance(row.get(key), list) and all(map(_is_number, row[key])) for key in ("size", "areas", "labels")
    )
    single = all(_is_number(row.get(key)) for key in ("mean", "std", "motion", "seconds", "low", "high"))
    named = isinstance(row.get("digest"), str) and isinstance(row.get("fallback"), bool)
    return lists and single and named and len(row["size"]) == 2 and type(row.get("class", 0)) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 2**53


def every(scenes: pipeline.SceneMap, total: int, file: Path, mark: str, workers: int) -> Iterator[Row]:
    """Yields the row of each scene 0 .. total - 1, in any order, and keeps it in `file`.

    Raises ConfigError as `read`. Raises DataError, naming the scenes, if a process that reads dies.
    """
    labels = len(scenes.source.label_names)
    known = {index: row for index, row in read(file, mark, total).items() if len(row["labels"]) == labels}
    text = "".join(f"{json.dumps(row)}\n" for row in [{"mark": mark}, *known.values()])
    write_atomically(file, text)
    yield from known.values()
    left = [index for index in range(total) if index not in known]
    chunks = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)]
    with door.append(file) as out:
        for rows in _in_pool(scenes, chunks, workers) if workers > 1 and len(chunks) > 1 else _here(scenes, chunks):
            out.write("".join(f"{json.dumps(row)}\n" for row in rows))
            out.flush()
            yield from rows


def _here(scenes: pipeline.SceneMap, chunks: Sequence[list[int]]) -> Iterator[list[Row]]:
    _start(scenes, 0)
    for chunk in chunks:
        yield _chunk(chunk)


def _in_pool(scenes: pipeline.SceneMap, chunks: Sequence[list[int]], workers: int) -> Iterator[list[Row]]:
    context = multiprocessing.get_context("spawn")
    count, given = min(workers, len(chunks)), (scenes, os.getpid())
    pool = concurrent.futures.ProcessPoolExecutor(count, context, _start, given)
    tasks = {pool.submit(_chunk, chunk): chunk for chunk in chunks}
    try:
        for task in concurrent.futures.as_completed(list(tasks)):
            rows = task.result()
            del tasks[task]
            yield rows
    except concurrent.futures.BrokenExecutor as error:
        lost = sorted(index for chunk in list(tasks.values())[: 2 * count] for index in chunk)
        raise DataError(
            f"a process that read scenes died, by one of scenes {lost[0]} to {lost[-1]}: run the command again to "
            "resume, with --workers=1 to find it"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_scenes: pipeline.SceneMap | None = None  # of this process


class _Kept(logging.Handler):
    """Keeps what readers warn of while a scene is read."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _start(scenes: pipeline.SceneMap, parent: int) -> None:
    """Gives a process its source. `parent`: ends with this process. 0: it is the process itself."""
    global _scenes
    _scenes = scenes
    if parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _chunk(indices: list[int]) -> list[Row]:
    assert _scenes is not None
    kept, logger = _Kept(), logging.getLogger("cjepa_jax")
    rows = []
    logger.addHandler(kept)
    try:
        for index in indices:
            row = measure(_scenes, index)
            if kept.lines:
                row["warnings"], kept.lines = kept.lines, []
            rows.append(row)
    finally:
        logger.removeHandler(kept)
    return rows
