"""The manifest of a run, run_manifest.json, and of a checkpoint's files, sha256.json. No JAX.

    {"format": 1, "starts": [{"began", "step", ..., "ended", "ended_step", "reason"}, ...]}

One entry per (re)start. The first one describes everything: git, packages, Python, environment, devices, host, job,
config, data. A later one has only the changes (`latest` merges them). An entry without `reason` belongs to a run that
is active, or was killed.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cjepa_jax import __version__
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import CjepaError
from cjepa_jax.host import clock, cpu, door, switches
from cjepa_jax.runtime.workdir import Workdir, read_object, write_atomically

log = logging.getLogger(__name__)

RUN = "run_manifest.json"
INIT = "init_from.json"
SUMS = "sha256.json"
FORMAT = 1
LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")  # written by Orbax when it commits: names and times
NAMED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ml-collections", "tensorstore")
ENVIRONMENT = re.compile(
    r"(XLA|JAX|LIBTPU|TPU|NCCL|CUDA_VISIBLE|HIP_VISIBLE|OMP|TF_CPP|GLIBC)_?\w*|LD_PRELOAD|CJEPA_\w+"
)
JOB = re.compile(r"SLURM_(JOB_ID|ARRAY_(JOB|TASK)_ID|JOB_NAME|JOB_NODELIST|NTASKS|RESTART_COUNT)|TPU_NAME|CLOUD_TPU\w*")
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
WHOLE_BYTES = 2**28  # smaller data are hashed completely, larger only EDGE bytes at both ends of SAMPLED files
EDGE, SAMPLED = 2**16, 64
MOST_FILES, LISTED = 20_000, 100  # files that are examined, and files that are listed one by one


# ---------------------------------------------------------------------- a run


class Entry:
    """One start of a run. `close` records how it ended. Processes other than the first write nothing."""

    def __init__(self, file: pathlib.Path | None, content: dict[str, Any]):
        self._file, self._content = file, content

    def close(self, reason: str, step: int) -> None:
        """Records why ("done", "SIGTERM", "error: ...") and at which step it ended. A full disk is only warned of."""
        self._content["starts"][-1] |= {"ended": _now(), "ended_step": step, "reason": reason}
        try:
            self.write()
        except door.Lost:  # the run ends by that, in one line
            return
        except OSError as error:
            log.warning("%s: its end could not be written (%s)", self._file, error.strerror)

    def write(self) -> None:
        """Replaces the file."""
        if self._file is not None:
            write_atomically(self._file, json.dumps(self._content, indent=1) + "\n")


def open_run(workdir: Workdir, config: Mapping[str, Any], source: Any, devices: Sequence[Any], step: int) -> Entry:
    """Adds a start at `step` to the run's manifest, before training. `devices`: those of all processes.

    Warns if a resumed run has other data or packages than before. Raises OSError if it cannot be written.
    """
    import jax  # only the trainer needs it (readers of manifests do not wait for the import)

    if jax.process_index():
        return Entry(None, {"starts": [{}]})
    content = _read_or_set_aside(workdir.path / RUN)
    before, about = latest(content), describe(config, source, devices)
    if (workdir.path / INIT).exists():
        about["init_from"] = read_object(workdir.path / INIT)
    if step and before:
        for text in changes(before, about):
            log.warning("since the run was started last, %s", text)
    start = {"began": _now(), "step": step, "process": os.getpid()}
    if parent := _checksum_of_sums(workdir.checkpoints / str(step)):
        start["checkpoint"] = parent
    start |= {key: value for key, value in about.items() if before.get(key) != value}
    content["starts"].append(start)
    entry = Entry(workdir.path / RUN, content)
    entry.write()
    return entry


def read(run: pathlib.Path) -> dict[str, Any] | None:
    """A run's manifest, or None if there is none. Raises ValueError for a damaged one."""
    file = run / RUN
    if not file.exists():
        return None
    content = door.read_json(file)
    starts = content.get("starts") if isinstance(content, dict) else None
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise ValueError("it has no list of starts")
    return content


def latest(content: Mapping[str, Any]) -> dict[str, Any]:
    """The complete description of the last start."""
    folded: dict[str, Any] = {}
    for start in content["starts"]:
        folded |= start
    return folded


def describe(config: Mapping[str, Any], source: Any, devices: Sequence[Any]) -> dict[str, Any]:
    """Everything that a run's numbers may depend on, as plain JSON."""
    resolved = config_lib.resolve(config)
    return {
        "command": shlex.join([sys.executable, *sys.orig_argv[1:]]),
        "version": __version__,
        "git": git(pathlib.Path(__file__).parents[1]),
        "config_sha256": _digest(json.dumps(resolved, sort_keys=True)),
        "config": resolved,
        "seed": resolved.get("seed"),
        "packages": packages() | _kernel(devices) | switches.given(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "environment": environment(os.environ),
        "host": socket.gethostname(),
        "job": {name: value for name, value in sorted(os.environ.items()) if JOB.fullmatch(name)},
        "devices": topology(devices),
        "data": fingerprint(source),
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line each for data and for packages, if they differ between two descriptions."""
    lines = []
    for name in ("data", "packages"):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and old != new:
            different = config_lib.differences(old, new, ignore=())
            more = f" and {len(different) - 4} more" if len(different) > 4 else ""
            lines.append(f"{name} changed: {'; '.join(different[:4])}{more}")
    return lines


def packages() -> dict[str, str]:
    """Versions of the most important packages, and a checksum over name and version of all installed ones."""
    found = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata  # parsed at each access
        name = (metadata["Name"] or "").lower().replace("_", "-")
        found.setdefault(name, metadata["Version"])  # the first one on the path is the one that is imported
    everything = "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))
    return {name: found[name] for name in NAMED if name in found} | {"all_sha256": _digest(everything)}


def _kernel(devices: Sequence[Any]) -> dict[str, str]:
    """The version of the CPU's attention kernel if it is used (models/fused_cpu.py). It changes the last digits."""
    used = cpu.kernel() if len(devices) == 1 and devices[0].platform == "cpu" else None
    return {"attention_kernel": cpu.label(used)} if used else {}


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that control JAX, XLA and the devices, without those that are named like a secret."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if ENVIRONMENT.fullmatch(name) and not SECRET.search(name)
    }


def git(package: pathlib.Path) -> dict[str, str] | None:
    """Commit, and a checksum of the differences from it ("": none), if this package has its own checkout. Untracked
    files count if they are in the package."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        settings = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        return clock.output(command, 20, env=settings).decode(errors="replace").strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # a checkout of something else may hold the environment
        changed = ask("diff", "HEAD", "--binary")
        for name in filter(None, ask("ls-files", "-z", "--others", "--exclude-standard").split("\0")):
            changed += f"{name} {_checksum(package / name, EDGE)}\n"
        return {"commit": ask("rev-parse", "HEAD"), "changed_sha256": _digest(changed) if changed else ""}
    except (OSError, subprocess.SubprocessError):
        return None


def topology(devices: Sequence[Any]) -> dict[str, Any]:
    """Kinds, counts and processes of JAX's devices."""
    found = {
        "platform": devices[0].platform,
        "kinds": dict(Counter(device.device_kind for device in devices)),
        "count": len(devices),
        "processes": len({device.process_index for device in devices}),
    }
    places = [device.coords for device in devices if hasattr(device, "coords")]  # TPU: the chip's place in the slice
    return found | ({"shape": [1 + max(axis) for axis in zip(*places, strict=True)]} if places else {})


# ---------------------------------------------------------------------- its data


def fingerprint(source: Any) -> dict[str, Any]:
    """Fingerprint of a source's data: its class and options, scene 0's arrays, and the files of its `path`.

    The place and time of files do not count, so a copy has the same fingerprint. An option whose field has the metadata
    {"data": False} does not count either, because it does not change the data.
    """
    options = {}
    if dataclasses.is_dataclass(source):
        settable = [field for field in dataclasses.fields(source) if field.init and field.name != "path"]
        names = [field.name for field in settable if field.metadata.get("data", True)]
        options = {name: repr(getattr(source, name)) for name in names}
    kind = type(source)
    found = {"class": f"{kind.__module__}:{kind.__qualname__}", "options": options, "scenes": len(source)}
    try:
        sha = hashlib.sha256()
        for name, value in sorted(source[0].items()):
            array = np.asarray(value)
            sha.update(f"{name} {array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        found["scene_0"] = sha.hexdigest()
    except CjepaError as error:
        found["scene_0"] = f"unreadable: {str(error)[:200]}"
    path = getattr(source, "path", "")
    return found | ({"files": files(pathlib.Path(path))} if path and pathlib.Path(path).exists() else {})


def files(root: pathlib.Path) -> dict[str, Any]:
    """Number, size and checksums of the files below a folder: of their names and sizes, and of their content (complete
    for small data, the ends of some files for large data). The first 20,000 files are examined. A file that cannot be
    read counts by name and size."""
    sizes: dict[str, int] = {}
    for folder, folders, names in os.walk(root):
        folders.sort()  # os.walk continues in this order
        for name in sorted(names):
            file = pathlib.Path(folder, name)
            with contextlib.suppress(OSError):  # it was deleted, or is in a folder that cannot be searched
                if file.is_file() and len(sizes) < MOST_FILES:
                    sizes[file.relative_to(root).as_posix()] = file.stat().st_size
        if len(sizes) >= MOST_FILES:
            break
    if root.is_file():
        sizes = {root.name: root.stat().st_size}
        root = root.parent
    total = sum(sizes.values())
    chosen, edge = list(sizes), 0
    if total > WHOLE_BYTES:
        chosen, edge = chosen[:: max(1, len(chosen) // SAMPLED)], EDGE
    with ThreadPoolExecutor(4) as pool:
        sums = dict(zip(chosen, pool.map(lambda name: _checksum(root / name, edge), chosen), strict=True))
    found = {
        "count": len(sizes),
        "bytes": total,
        "names_sha256": _digest(json.dumps(sizes)),
        "content_sha256": _digest(json.dumps(sums)),
        "content": f"both ends of {len(chosen)} files" if edge else "whole",
    }
    return found | ({"each": {name: [sizes[name], sums[name]] for name in chosen}} if len(sums) <= LISTED else {})


# ---------------------------------------------------------------------- a checkpoint's files


def seal(folder: pathlib.Path, step: int) -> None:
    """Writes the SHA-256 of every file of a checkpoint into its folder. Raises OSError."""
    text = json.dumps({"step": step, "files": sums(folder)}, indent=1) + "\n"
    write_atomically(folder / SUMS, text)


def verify(folder: pathlib.Path, step: int, part: int = 0, parts: int = 1) -> list[str] | None:
    """Problems of a checkpoint's files: a text for each that is missing or altered. None if it has no manifest.

    Of `parts` processes that share the work, this one reads every parts-th file. Files outside the manifest do not
    count. Raises OSError for a file that the system cannot read now.
    """
    try:
        door.require_plain(folder)
        content = door.read_json(folder / SUMS)
        known = content["files"]
        if content["step"] != step:
            return [f"{SUMS} is of step {content['step']}"]
        if not all(_is_below(name) and isinstance(sha, str) for name, sha in known.items()) or not known:
            return [f"{SUMS} is damaged"]
    except FileNotFoundError:
        return None
    except door.Refused as error:
        return [str(error)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return [f"{SUMS} is damaged"]
    mine = sorted(known)[part::parts]
    there = sums(folder, [name for name in mine if (folder / name).is_file()])
    return [
        f"{name} is {'missing' if name not in there else 'altered'}" for name in mine if there.get(name) != known[name]
    ]


def _is_below(name: Any) -> bool:
    """Whether this is the name of a file below the folder that lists it."""
    return isinstance(name, str) and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def sums(folder: pathlib.Path, names: Sequence[str] | None = None) -> dict[str, str]:
    """SHA-256 by name of the files in a checkpoint's folder, or of those named. Raises OSError."""
    if names is None:
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        names = sorted(name for name in found if name not in LATER and not name.startswith(SUMS))
    with ThreadPoolExecutor(4) as pool:  # hashing does not hold Python's lock
        return dict(zip(names, pool.map(lambda name: sha256(folder / name, links=False), names), strict=True))


def sha256(file: pathlib.Path, edge: int = 0, links: bool = True) -> str:
    """SHA-256 of a regular file, or of its first and last `edge` bytes. Without `links` it follows no link. Raises
    OSError."""
    with door.regular(file, links=links) as stream:
        if not edge:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        sha = hashlib.sha256(stream.read(edge))
        stream.seek(-min(edge, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        sha.update(stream.read(edge))
        return sha.hexdigest()


def _checksum(file: pathlib.Path, edge: int) -> str:
    try:
        return sha256(file, edge)
    except OSError:
        return "unreadable"


def _checksum_of_sums(folder: pathlib.Path) -> str:
    file = folder / SUMS
    return sha256(file, links=False) if file.is_file() else ""


def _read_or_set_aside(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = read(file.parent)
    except ValueError as error:
        aside = file.with_suffix(".json.bad")
        log.warning("%s: damaged, set aside as %s (%s)", file, aside.name, error)
        os.replace(file, aside)
        content = None
    return content or {"format": FORMAT, "starts": []}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
