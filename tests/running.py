"""Runs the training command as a user does, in separate processes, on a model of almost no size."""

import fcntl
import functools
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests import QUICK, forkserver

ROOT = pathlib.Path(__file__).parents[1]
_ALONE = tempfile.TemporaryDirectory()
COMPILED = os.environ.get("TESTS_COMPILED", _ALONE.name)  # a folder that pytest's workers share
TINY = "configs/clips.py"
SMALL = {
    "train.batch": 8,
    "train.steps": 24,
    "data.size": 32,
    "data.frames": 2,
    "data.count": 64,
    "data.eval_count": 32,
    "data.workers": 0,
    "data.row_lengths": (0.5, 1.0),
    "mask.anchor": 0,
    "mask.area": (0.05, 0.6),
    "mask.max_objects": 3,
    "optim.peak": 0.001,
    "objective.encoder.variant": "Mu/8",
    "objective.encoder.depth": 1,
    "objective.predictor.depth": 1,
    "objective.predictor.width": 16,
    "probe.train": 16,
    "probe.test": 16,
    "probe.batch": 16,
    "probe.every": 12,
    "checkpoint.every": 6,
    "log.every": 2,
    "log.tensorboard": False,
    "log.report": False,
}


def command(workdir, config=TINY, module="cjepa_jax.train", **values):
    """argv of a run with SMALL's overrides and `values`, whose keys have __ for the dot. None leaves a key alone."""
    values = SMALL | {key.replace("__", "."): value for key, value in values.items()}
    overrides = [f"--config.{key}={value}" for key, value in values.items() if value is not None]
    where = [f"--workdir={workdir}"] if workdir else []
    return [sys.executable, "-m", module, f"--config={config}", *where, *overrides]


def start(argv, devices=1, optimised=False, begin="package", **options):
    """The command as a process with its output in pipes. Compiled code is kept from one run to the next.

    Args:
      begin: "package": a command of this package, or code (`python -c`), begins where the package is imported; "early":
        where what comes before JAX is imported; "python": as a user's does, as all other commands do.
    """
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {'' if optimised else QUICK}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", COMPILED),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONUNBUFFERED": "1",
    }
    modules = {"package": forkserver.PACKAGE, "early": forkserver.EARLY, "python": ()}[begin]
    if modules and (begin == "early" or forkserver.serves(argv)):
        server = _server(modules, json.dumps(forkserver.fixed(environment), sort_keys=True))
        return server.start(argv, environment, **options)
    pipe = subprocess.PIPE
    options = {"cwd": ROOT} | options
    return subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


@functools.cache
def _server(modules, environment):
    """The process that has imported these modules, for each environment."""
    return forkserver.Server(json.loads(environment), ROOT, modules)


def run(argv, code=0, **options):
    """The command to its end, which must come with exit `code`: (stdout, stderr)."""
    process = start(argv, **options)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}\n{err}"
    assert "Traceback" not in out + err, err
    return out, err


def finished(folder):
    """A finished run with everything on: (its folder, argv, stdout). Whoever of pytest's workers asks first makes it.

    It is there to be read. A test that writes into it takes a copy. It is started as a user starts it.
    """
    argv, said = command(folder / "run", log__tensorboard=True, log__report=True), folder / "said"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            out, err = run(argv, begin="python")
            assert err == ""
            said.write_text(out)
    return folder / "run", argv, said.read_text()


def error(argv, code, **options):
    """The one line on stderr with which the command fails, after warnings."""
    *before, line = run(argv, code, **options)[1].splitlines()
    assert line.startswith("error: ") and all(text.startswith("warning: ") for text in before), (before, line)
    return line


def read_until(process, text):
    """Reads stdout up to the line that begins with `text`."""
    for line in process.stdout:
        if line.startswith(text):
            return line
    raise AssertionError(f"ended before {text!r}: {process.stderr.read()}")


def stopped_at(line):
    """The step at which a run says that a signal stopped it."""
    return int(re.fullmatch(r"stopped by .* at step (\d+)\. The same command resumes from there", line)[1])


def children(pid):
    """Ids of a process's descendants."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found += [int(status.parent.name), *children(int(status.parent.name))]
    return found


def title(pid):
    """A process's command line."""
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def gone(pids, seconds=8.0):
    """Whether all of these processes end within some seconds. Those that do not are killed."""
    until = time.monotonic() + seconds
    alive = pids
    while alive and time.monotonic() < until:
        alive = [pid for pid in alive if pathlib.Path(f"/proc/{pid}").exists() and not _zombie(pid)]
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return not alive


def _zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def arrays(workdir, step):
    """Every array of a checkpoint, by name."""
    folder = pathlib.Path(workdir, "checkpoints", str(step), "default")
    checkpointer = ocp.PyTreeCheckpointer()
    shapes = checkpointer.metadata(folder).item_metadata.tree
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    tree = checkpointer.restore(folder, restore_args=plain)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def digest(workdir, step=SMALL["train.steps"]):
    """sha256 over a checkpoint: parameters, target, optimiser state, counters."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays(workdir, step).items()):
        sha.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


def metrics(workdir):
    """(lines of training metrics, lines of probes) of metrics.jsonl."""
    lines = [json.loads(line) for line in pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line], [line for line in lines if "probe/rankme" in line]
