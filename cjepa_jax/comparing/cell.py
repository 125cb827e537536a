"""Runs one cell: its config file, its training, its evaluation, its record. Every part is skipped if it is there."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from cjepa_jax import experiment, flops, sharding
from cjepa_jax.comparing.suite import Cell, Suite, config_file
from cjepa_jax.errors import CjepaError, ConfigError
from cjepa_jax.workdir import write_atomically

COUNTED = 8  # batches whose shapes the operations of a step are counted from


class CellError(CjepaError):
    """A cell's command failed; its log says why. The others go on."""


@dataclasses.dataclass(frozen=True)
class Lab:
    """A suite in its folder."""

    suite: Suite
    folder: pathlib.Path

    def home(self, cell: Cell) -> pathlib.Path:
        """config.py, run/, evaluation/, log.txt of a cell."""
        return self.folder / "cells" / cell.name

    def record(self, cell: Cell) -> pathlib.Path:
        """What is kept of a finished cell."""
        return self.folder / "records" / f"{cell.name}.json"

    def run(self, cell: Cell) -> None:
        """Trains and evaluates the cell, as far as that is not done.

        Raises: CellError if a command fails; ConfigError if a run that tuning needs is missing.
        """
        if self.record(cell).exists():
            return
        home, cost = self.home(cell), self.cost(cell)
        home.mkdir(parents=True, exist_ok=True)
        steps, value = self.steps(cell, cost), self.settled(cell)
        overrides = {
            key: item.replace("{folder}", str(self.folder)) if isinstance(item, str) else item
            for key, item in self.suite.overrides(cell, steps, value).items()
        }
        write_atomically(home / "config.py", config_file(self.suite.methods[cell.method]["config"], overrides))
        seconds = {}
        if steps and not (home / "run" / "result.json").exists():
            seconds["train"] = self._command(home, "cjepa_jax.train", f"--workdir={home / 'run'}")
        record = {
            "suite": self.suite.name,
            "cell": dataclasses.asdict(cell),
            "label": self.suite.methods[cell.method]["label"],
            "world": self.suite.worlds[cell.world]["label"],
            "smoke": self.suite.smoke(cell.method),
            "steps": steps,
            "flops": steps * cost["flops"],
            "parameters": cost["parameters"],
            "tuned": {} if value is None else {self.suite.tuning["key"]: value},
            "result": json.loads((home / "run" / "result.json").read_text()) if steps else {},
            "commit": commit(),
            "cores": len(os.sched_getaffinity(0)),
        }
        if cell.value is None:
            checkpoint = home / "run" if steps else "random"
            seconds["evaluate"] = self._command(
                home, "cjepa_jax.evaluate", f"--checkpoint={checkpoint}", f"--workdir={home / 'evaluation'}"
            )
            found = json.loads((home / "evaluation" / "results.json").read_text())
            about = {key: found["about"][key] for key in ("devices", "version")}
            record |= {"about": about | {"evals": self.suite.evals}, "protocols": found["protocols"]}
        self.record(cell).parent.mkdir(exist_ok=True)
        write_atomically(self.record(cell), json.dumps(record | {"seconds": seconds}, indent=1) + "\n")

    def cost(self, cell: Cell) -> dict[str, Any]:
        """Operations of a step, the mean over the first batches, and parameters: counted, nothing is trained."""
        file = self.folder / "costs" / f"{cell.world}-{cell.method}.json"
        overrides = json.loads(json.dumps(self.suite.overrides(dataclasses.replace(cell, seed=0), 1, None)))
        if file.exists() and (known := json.loads(file.read_text()))["overrides"] == overrides:
            return known
        run = experiment.assemble(self.suite.config(cell))
        batches = dataclasses.replace(run.loader, workers=0).iterate(0, COUNTED)
        shapes = [jax.tree.map(_shape, sharding.put_batch(run.mesh, arrays)) for arrays in batches]
        state = jax.eval_shape(run.init, shapes[0])
        counted = {str(batch): flops.step_flops(run.objective, state, batch) for batch in shapes}
        found = {
            "overrides": overrides,
            "flops": float(np.mean([counted[str(batch)] for batch in shapes])),
            "parameters": {name: _size(part) for name, part in state.params.items()},
        }
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, json.dumps(found, indent=1) + "\n")
        return found

    def steps(self, cell: Cell, cost: dict[str, Any]) -> int:
        """The budget's steps, or the method's own."""
        if "steps" in self.suite.methods[cell.method]:
            return self.suite.methods[cell.method]["steps"]
        share = 1.0 if cell.value is None else self.suite.tuning["share"]
        return max(1, round(share * self.suite.flops / cost["flops"]))

    def settled(self, cell: Cell) -> float | None:
        """The tuned key's value for a cell; None if the method is not tuned. Raises ConfigError before it is known."""
        if cell.value is not None:
            return cell.value
        mine = [other for other in self.suite.tuned() if other.method == cell.method]
        if not mine:
            return None
        if missing := [other.name for other in mine if not self.record(other).exists()]:
            raise ConfigError(f"{cell.name}: run --phase=tune first; {', '.join(missing)} missing")
        return max(mine, key=lambda other: validation_score(json.loads(self.record(other).read_text()))).value

    def _command(self, home: pathlib.Path, module: str, *arguments: str) -> float:
        """Runs a command of the project on the cell's config, its output in log.txt; returns its seconds."""
        argv = [sys.executable, "-m", module, f"--config={home / 'config.py'}", *arguments]
        started = time.perf_counter()
        # Cells of one method differ in numbers only, so they share what is compiled.
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")} | os.environ
        with open(home / "log.txt", "a", encoding="utf-8") as log:
            done = subprocess.run(argv, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
        if done.returncode:
            last = (home / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
            raise CellError(
                f"{home.name}: {module} ended with {done.returncode}: {''.join(last)[:300]} ({home / 'log.txt'})"
            )
        return time.perf_counter() - started


def validation_score(record: dict[str, Any]) -> float:
    """The mean of the online probe's R2 over label groups, on validation scenes; -inf for a run without one."""
    names = [name for name in record["result"] if name.startswith("probe/") and name.endswith("_r2")]
    values = [float(record["result"][name]) for name in names]
    return float(np.mean(values)) if values and np.isfinite(values).all() else -np.inf


def commit() -> str:
    """The checkout's commit, with "+" if files differ from it; "" outside git."""
    root = pathlib.Path(__file__).parents[2]
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _size(tree: Any) -> int:
    return int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree)))
