"""Runs one cell: its config file, its training, its evaluation, its record. Every existing part is skipped."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from cjepa_jax import __version__, experiment
from cjepa_jax.bench import flops
from cjepa_jax.compare.suite import Cell, Suite, config_file, evals_file
from cjepa_jax.compare.table import validation_score
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.configuration import locate
from cjepa_jax.errors import PREEMPTED, CjepaError, ConfigError, NumericsError
from cjepa_jax.host import clock, door
from cjepa_jax.runtime import foreign, preemption
from cjepa_jax.runtime.workdir import read_object, write_atomically
from cjepa_jax.types import batch_of

log = logging.getLogger(__name__)

TAIL, MOST_LOG = 4096, 1 << 26  # bytes of a log: searched for its last line, and read at most
COUNTED = 8  # batches whose shapes the operations of a step are counted from
AT_ONCE = 130  # the exit code after a second signal
LOOK, HEARD = 0.5, 2.0  # seconds between checks of a command, and in which it reacts to a signal
COUNTED_OF = ("objective", "data", "mask", "train", "dtype")  # the config's sections that they depend on


class CellError(CjepaError):
    """A cell's command failed. Its log says why. The others continue."""


class CellStopped(CjepaError):
    """A signal has stopped a cell's command, which has saved. The same comparison resumes it."""

    exit_code = PREEMPTED


@dataclasses.dataclass(frozen=True)
class Lab:
    """A suite in its folder. `stopping` says whether the comparison is to stop. It is passed on to the running
    command."""

    suite: Suite
    folder: pathlib.Path
    stopping: Callable[[], bool] = bool
    trust: tuple[str, ...] = ()  # packages that runs of the suite's init_from may name

    def home(self, cell: Cell) -> pathlib.Path:
        """config.py, evals.py, run/, evaluation/, log.txt of a cell."""
        return door.below(self.folder, "cells", cell.name)

    def record(self, cell: Cell) -> pathlib.Path:
        """The stored record of a finished cell."""
        return door.below(self.folder, "records", f"{cell.name}.json")

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """The cell's record, or None. Raises ConfigError for a record that was made with other settings."""
        return self.suite.read(self.record(cell), cell)

    def trusting(self, cell: Cell) -> "Lab":
        """This lab, which also trusts what the cell's config names: its run names the same in config.json."""
        named = tuple(name for name in foreign.named(self.suite.config(cell)) if name not in self.trust)
        return dataclasses.replace(self, trust=(*self.trust, *named)) if named else self

    def run(self, cell: Cell) -> None:
        """Trains and evaluates the cell, unless that is done.

        Raises: CellError if a command fails. CellStopped if a signal stopped one. ConfigError if a run that tuning
          needs is missing.
        """
        if self.finished(cell):
            return
        home, cost = self.home(cell), self.cost(cell)
        door.folder(self.folder, "cells", cell.name)
        steps, value = self.steps(cell, cost), self.settled(cell)
        overrides = self.suite.overrides(cell, steps, value)
        here = {k: v.replace("{folder}", str(self.folder)) if isinstance(v, str) else v for k, v in overrides.items()}
        write_atomically(home / "config.py", config_file(self.suite.methods[cell.method]["config"], here))
        write_atomically(home / "evals.py", evals_file(here))
        record = {
            "suite": self.suite.name,
            "cell": dataclasses.asdict(cell),
            "overrides": overrides,
            "steps": steps,
            "flops": steps * cost["flops"],
            "parameters": cost["parameters"],
            "tuned": {} if value is None else {self.suite.tuning["key"]: value},
            "cores": len(cores()),
        }
        if steps:
            record |= self.trusting(cell)._train(cell, home)
        if cell.value is None:
            record |= self.trusting(cell)._evaluate(home, home / "run" if steps else "random")
        door.folder(self.folder, "records")
        write_atomically(self.record(cell), json.dumps(record, indent=1) + "\n")

    def _train(self, cell: Cell, home: pathlib.Path) -> dict[str, Any]:
        """Trains or resumes, unless it is done. A tuning run that diverges has an empty result."""
        asked = (f"--config={home / 'config.py'}", f"--workdir={home / 'run'}")
        code, commit_then = self._command(home, "cjepa_jax.train", *asked), commit()
        file = home / "run" / "result.json"
        if code == NumericsError.exit_code and cell.value is not None:
            return {"result": {}, "trained by": commit_then}
        if code or not file.exists():
            raise CellError(_last_line(home, "cjepa_jax.train", code) if code else f"{home.name}: was stopped")
        result = read_object(file)
        return {"result": {k: v for k, v in result.items() if k != "command"}, "trained by": commit_then}

    def _evaluate(self, home: pathlib.Path, checkpoint: pathlib.Path | str) -> dict[str, Any]:
        where, commit_then = home / "evaluation", commit()
        words = [f"--config={home / 'evals.py'}", f"--checkpoint={checkpoint}", f"--workdir={where}"]
        words += [f"--training={home / 'config.py'}"] * (checkpoint == "random")
        code = self._command(home, "cjepa_jax.evaluate", *words)
        if code:
            raise CellError(_last_line(home, "cjepa_jax.evaluate", code))
        found = read_object(where / "results.json")  # evaluate has just verified or written it
        try:
            about = {key: found["about"][key] for key in ("devices", "version")}
            asked = {name: found["protocols"][name] for name in self.suite.evals.get("protocols", {})}
        except (KeyError, TypeError) as error:
            raise CellError(f"{where / 'results.json'}: is not the results of an evaluation. Delete it") from error
        return {"about": about, "protocols": asked, "evaluated by": commit_then}

    def cost(self, cell: Cell) -> dict[str, Any]:
        """Operations of a step, the mean over the first batches, and parameters. They are counted without training.

        Counted for seed 0, so that a method has the same number of steps for every seed.
        """
        config = self.suite.config(dataclasses.replace(cell, seed=0))
        resolved = json.loads(json.dumps(config_lib.resolve({key: config[key] for key in COUNTED_OF})))
        file = door.below(self.folder, "costs", f"{cell.world}-{cell.method}.json")
        if known := _counted(file, resolved):
            return known
        run = experiment.assemble(config)
        batches = dataclasses.replace(run.loader, workers=0).iterate(0, COUNTED)
        shapes = [jax.tree.map(_shape, batch_of(b)) for b in batches]
        state = jax.eval_shape(run.init, shapes[0])
        counted = {str(batch): flops.step_flops(run.objective, state, batch) for batch in shapes}
        found = {
            "config": resolved,
            "flops": float(np.mean([counted[str(batch)] for batch in shapes])),
            "parameters": {name: _size(part) for name, part in state.params.items()},
        }
        door.folder(self.folder, "costs")
        write_atomically(file, json.dumps(found, indent=1) + "\n")
        return found

    def steps(self, cell: Cell, cost: dict[str, Any]) -> int:
        """The budget's steps, those of another method's, or the method's own."""
        method = self.suite.methods[cell.method]
        if "steps" in method:
            return method["steps"]
        if "steps_of" in method:
            other = dataclasses.replace(cell, method=method["steps_of"])
            return self.steps(other, self.cost(other))
        share = 1.0 if cell.value is None else self.suite.tuning["share"]
        return max(1, round(share * self.suite.flops / cost["flops"]))

    def settled(self, cell: Cell) -> float | None:
        """The tuned key's value for a cell. None if the method is not tuned.

        Raises: ConfigError if it is not known yet, and if no value of the grid trained to its end.
        """
        if cell.value is not None:
            return cell.value
        method = self.suite.tuned_as(cell.method)
        mine = [other for other in self.suite.tuned() if other.method == method]
        if not mine:
            return None
        records = [self.finished(other) for other in mine]
        if missing := [other.name for other, record in zip(mine, records, strict=True) if record is None]:
            raise ConfigError(f"{cell.name}: run --phase=tune first. {', '.join(missing)} missing")
        scores = [validation_score(record, self.suite.tuning.get("metric", "")) for record in records]
        if not np.isfinite(max(scores)):
            raise ConfigError(f"{cell.name}: {method} diverged at every value of tuning.values")
        return mine[int(np.argmax(scores))].value

    def _command(self, home: pathlib.Path, module: str, *arguments: str) -> int:
        """Runs a command of the project with its output in log.txt. Returns its exit code.

        It ends with this process, even if that is killed. Raises: CellStopped if a signal stopped it, or is about to.
        """
        if self.stopping():
            raise CellStopped(f"{home.name}: not begun")
        argv = [sys.executable, "-m", module, *arguments]
        argv += [f"--trust={','.join(self.trust)}"] * bool(self.trust)
        environment = ({"JAX_COMPILATION_CACHE_DIR": str(self.compiled)} if self.compiled else {}) | os.environ
        environment |= {preemption.PARENT: str(os.getpid())}
        with door.append(home / "log.txt") as log:
            before = log.tell()
            process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, env=environment)
            code = self._ended(process, home / "log.txt", before)
        if code in (PREEMPTED, AT_ONCE) or -code in preemption.STOP:
            raise CellStopped(_last_line(home, module, code))
        return code

    def _ended(self, process: subprocess.Popen, log: pathlib.Path, before: int) -> int:
        """The exit code of a command. If the comparison is to stop, the command gets a signal, unless it has already
        got one. A signal to a whole job (Ctrl-C, SLURM) has reached it too, and a second signal would prevent it from
        saving."""
        while (code := clock.wait(process, LOOK)) is None and not self.stopping():
            pass
        if code is None:
            code = clock.wait(process, HEARD)
        if code is None and preemption.SAVING.encode() not in _since(log, before):
            process.send_signal(signal.SIGTERM)
        return process.wait() if code is None else code

    @functools.cached_property
    def compiled(self) -> pathlib.Path | None:
        """The folder in which evaluations share compiled code, which they run. None, with a warning, if another user
        may write there. Each command then uses the user's own cache."""
        try:
            folder = door.folder(self.folder, "compiled")
            others = [path for path in (self.folder, folder) if not door.is_own(path)]
            if not others:
                door.require_plain(folder)
        except door.Refused as error:
            log.warning("%s: compiled code is kept in your own cache instead", error)
            return None
        if others:
            log.warning("%s: others may write there. Compiled code is kept in your own cache instead", others[0])
        return None if others else folder


def _counted(file: pathlib.Path, resolved: Mapping[str, Any]) -> dict[str, Any] | None:
    """The counted cost that a file holds, if it is one of this config. A damaged one is counted again."""
    try:
        known = read_object(file)
    except ConfigError:
        return None
    sizes = known.get("parameters")
    whole = isinstance(known.get("flops"), float | int) and 1 <= known["flops"] < 1e30 and isinstance(sizes, dict)
    whole = whole and all(type(size) is int and size >= 0 for size in sizes.values())
    return known if whole and known.get("config") == resolved else None


def _since(log: pathlib.Path, before: int) -> bytes:
    """The text written to a log since it had `size` bytes, at most MOST_LOG of it."""
    with door.regular(log) as file:
        file.seek(before)
        return file.read(MOST_LOG)


def _last_line(home: pathlib.Path, module: str, code: int) -> str:
    with door.regular(home / "log.txt") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        last = file.read(TAIL).decode(errors="replace").strip().splitlines()[-1:]
    return f"{home.name}: {module} ended with {code}: {''.join(last)[:300]} ({home / 'log.txt'})"


def cores() -> list[int]:
    """The cores that this thread may use. All of them if the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def commit() -> str:
    """The clone's commit, with "+" if files differ from it, "" outside git. For an installed wheel, its version."""
    if not (clone := locate.clone()):
        return f"cjepa_jax {__version__}"
    git = ["git", "-C", str(clone)]
    asked = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
    try:
        head, dirty = (subprocess.run([*git, *a], capture_output=True, text=True, check=False).stdout for a in asked)
    except FileNotFoundError:  # no git here
        return ""
    return head.strip() + ("+" if dirty.strip() else "")


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _size(tree: Any) -> int:
    return int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree)))
