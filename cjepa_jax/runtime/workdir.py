"""A run's folder: its lock, its config, its metrics and its result.

    config.json     the resolved config       metrics.jsonl       one JSON object per logged step
    result.json     written once at the end   run_manifest.json   what it depends on, and every start
    checkpoints/    Orbax                     .lock               the holder's host and process
    tb/             TensorBoard

Files that are replaced are written under another name, synced and renamed, so that `kill -9` leaves the old or the new
one. The folder may come from another person, so everything in it is opened by `door`, which follows no link.
"""

import errno
import fcntl
import json
import logging
import math
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, BinaryIO

from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import ConfigError, StorageError, printable
from cjepa_jax.host import door, paths
from cjepa_jax.host.door import write_atomically

log = logging.getLogger(__name__)

_entered: list[pathlib.Path] = []
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
PATTERN = "[]\\"  # characters that Orbax reads as a pattern when it merges a checkpoint's files
MOST_METRICS = 2**31  # bytes of a metrics.jsonl (a million logged steps take about half of it)
MANIFEST = "run_manifest.json"  # every start of the run, written by run_manifest.py
MOST_LINE = 2**20  # bytes of one of its lines
MOST_NOTE = 1000  # bytes of a lock's note
PATIENCE = 1.0  # seconds for which queries of the lock's holder may block it


class Workdir:
    """The folder of one run. Entering it creates the folder, takes its lock and claims it for `config`:

        with Workdir("runs/tiny", config) as workdir:
            workdir.append_metrics({"step": 10, "loss": 1.5})

    The kernel holds the lock and frees it as soon as the process is gone. On a file system without locks (some network
    mounts) there is only a warning. Without entering, the folder can be read (`finished`, `read_metrics`). Messages
    name the folder as the user did, by `setting`.

    While it is entered, every write below it raises door.Lost (a ConfigError) once the folder has been renamed, deleted
    or replaced. Any other error caused by this also becomes Lost when the folder is left.

    Raises (on entering):
      ConfigError: another process trains here, the folder belongs to another config, it cannot be created, or its path
        has a character with which no checkpoint can be written.
    """

    def __init__(self, path: str | os.PathLike, config: Mapping[str, Any] | None = None, setting: str = "workdir = "):
        self.path = pathlib.Path(path).absolute()
        self._config, self._named = config, f"{setting}{self.path}"
        self._lock: IO[str] | None = None
        self._metrics: IO[str] | None = None

    def __enter__(self) -> "Workdir":
        if any("\ud800" <= letter <= "\udfff" for letter in str(self.path)):  # bytes that Python could not decode
            name = str(self.path).encode("ascii", "replace").decode()
            raise ConfigError(f"workdir = {name}: is not ASCII, and the locale is not UTF-8: set LC_ALL=C.UTF-8")
        found = [letter for letter in PATTERN if letter in str(self.path)]
        if found and self._config is not None:
            raise ConfigError(f"{self._named}: has {' '.join(found)} in its path, where checkpoints would be lost")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = door.lock_file(self.path / ".lock")
        except door.Refused as error:
            raise ConfigError(f"{self._named}: {error}") from error
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            raise ConfigError(f"{self._named}: cannot be used as a run folder ({error.strerror})") from error
        try:
            self._take_lock()
            self._owning = door.owning(self.path, self._lock)
            self._owning.__enter__()
        except BaseException:
            self._lock.close()
            raise
        try:
            if self._config is not None:
                self._claim(config_lib.resolve(self._config))
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        _entered.append(self.path)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if isinstance(error, Exception):  # possibly of files that were removed with the folder
                door.require_own(self.path)
        finally:
            if self._metrics is not None:
                self._metrics.close()
                self._metrics = None
            self._owning.__exit__(None, None, None)
            self._lock.close()

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> dict[str, Any] | None:
        """The result of a run that has ended, or None. Raises ConfigError for a damaged one."""
        file = self.path / "result.json"
        return read_object(file) if file.exists() else None

    def holder(self) -> str | None:
        """Who trains in this folder now, "host NAME, process ID", or None. Only takes a lock for the duration of the
        query. On a file system without locks the answer is None."""
        try:
            lock = door.regular(self.path / ".lock")
        except FileNotFoundError:
            return None
        with lock:
            return (_note(lock) or "somebody unknown") if _held(lock) else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Stores the result, which marks the run as finished."""
        write_atomically(self.path / "result.json", json.dumps(_jsonable(result), indent=2) + "\n")

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl. Non-finite numbers become the texts "nan", "inf" and "-inf"."""
        door.require_own(self.path)
        if self._metrics is None:
            self._metrics = door.append(self.path / "metrics.jsonl")
        self._metrics.write(json.dumps(_jsonable(metrics)) + "\n")
        self._metrics.flush()

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in order, without those that a full disk or a kill left half written."""
        return self.look_at_metrics()[0]

    def look_at_metrics(self) -> tuple[list[dict[str, Any]], int, bool]:
        """(the lines as `read_metrics`, how many others are unreadable, whether half a line is at the end)."""
        try:
            file = door.regular(self.path / "metrics.jsonl", MOST_METRICS)
        except FileNotFoundError:
            return [], 0, False
        with file:
            return parse_metrics(file)

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines logged after `step`, from which a resumed run continues."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if (self.path / "metrics.jsonl").exists():
            kept = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
            write_atomically(self.path / "metrics.jsonl", "".join(kept))

    def require_space(self, needed: int, counting_checkpoints: bool = False) -> None:
        """Raises StorageError unless the folder's file system has `needed` bytes free.

        With `counting_checkpoints` the existing ones of this run count towards `needed`.
        """
        if counting_checkpoints:
            folders = [self.checkpoints / str(step) for step in door.steps(self.checkpoints)]
            files = (file for folder in folders for file in folder.rglob("*"))
            needed -= sum(file.stat().st_size for file in files if file.is_file())
        free = shutil.disk_usage(self.path).free
        if free < needed:
            text = f"{self._named}: {free / 2**20:.0f} MiB free, {needed / 2**20:.0f} MiB needed"
            raise StorageError(f"{text}; {paths.file_system(self.path)}")

    def _take_lock(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if _held(self._lock) or time.monotonic() > until:
                    holder = _note(self._lock.buffer) or "unknown"
                    raise ConfigError(f"{self._named}: in use by another run ({holder})") from error
                time.sleep(0.01)
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                log.warning("%s: its file system has no locks, a second run here would go unnoticed", self._named)
            break
        self._lock.truncate(0)
        self._lock.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
        self._lock.flush()

    def _claim(self, config: dict[str, Any]) -> None:
        file = self.path / "config.json"
        # A run that failed before its first checkpoint leaves nothing that another config could damage.
        result = self.path / "result.json"
        if any(self.checkpoints.glob("[0-9]*")) or (not result.is_symlink() and self.finished):
            before = read_object(file) if file.exists() else self._started_with()
            changed = config_lib.differences(config_lib.completed(before, config), config)
            if changed:
                listed = ", ".join(changed)
                raise ConfigError(
                    f"{self._named}: belongs to another config ({listed}). Another --workdir starts afresh"
                )
        write_atomically(file, json.dumps(config, indent=2) + "\n")

    def _started_with(self) -> dict[str, Any]:
        """The config of a run that has lost its config.json: run_manifest.json has it too, since it last changed.

        Raises: ConfigError if that is missing or damaged, because the config of the checkpoints is then unknown.
        """
        lost = f"{self._named}: holds a run whose config.json is missing"
        remedy = "bring one of them back, or start afresh in another --workdir"
        if not (self.path / MANIFEST).exists():
            raise ConfigError(f"{lost}, and so is {MANIFEST}: {remedy}")
        starts = read_object(self.path / MANIFEST).get("starts")
        configs = (
            [start.get("config") for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
        )
        known = [config for config in configs if isinstance(config, dict)]
        if not known:
            raise ConfigError(f"{lost}, and {MANIFEST} has no config: {remedy}")
        return known[-1]


def entered() -> list[pathlib.Path]:
    """The folders that this process has entered, the last one first. Errors about space may not name their folder."""
    return _entered[::-1]


def parse_metrics(file: BinaryIO) -> tuple[list[dict[str, Any]], int, bool]:
    """Of a metrics.jsonl: (its whole lines that are JSON objects with a step, how many others there are, whether it
    ends with half a line)."""
    entries, broken = [], 0
    while line := file.readline(MOST_LINE):
        if not line.endswith(b"\n") and len(line) < MOST_LINE:
            return entries, broken, True
        entry = parse_line(line)
        entries += [entry] * (entry is not None)
        broken += entry is None
        while not line.endswith(b"\n") and (line := file.readline(MOST_LINE)):
            pass  # rest of a line that is too long
    return entries, broken, False


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line of metrics.jsonl, None for anything else and without a step."""
    try:
        entry = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and type(entry.get("step")) is int and 0 <= entry["step"] <= door.LARGEST_STEP
    return entry if whole else None


def run_folder(path: pathlib.Path) -> pathlib.Path | None:
    """The run's folder that a path names, itself or by its folder of checkpoints; None if it is not a run's."""
    folder = path.parent if path.name == "checkpoints" else path
    return folder if (folder / "checkpoints").is_dir() else None


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """A file's JSON object. Raises ConfigError for anything else."""
    try:
        content = door.read_json(file)
    except OSError as error:
        raise ConfigError(f"{file}: is not readable ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{file}: is not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: is not a JSON object")
    return content


def tuples(value: Any) -> Any:
    """A config from JSON, with its lists as tuples."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def _note(lock: BinaryIO) -> str:
    """The note of a lock's holder, from its beginning."""
    lock.seek(0)
    return printable(lock.read(MOST_NOTE).decode("utf-8", "replace").strip())


def _held(lock: IO) -> bool:
    """Whether a trainer has the lock. Queries like this one share it for a moment."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return False


def _jsonable(value: Any) -> Any:
    """Plain JSON values: array scalars become numbers, and non-finite ones text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = value.item() if hasattr(value, "item") else float(value)
    return str(number) if isinstance(number, float) and not math.isfinite(number) else number
