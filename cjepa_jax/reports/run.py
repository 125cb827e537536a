"""A run folder as data: those of config.json, metrics.jsonl, result.json and report.npz that exist."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.errors import DataError
from cjepa_jax.host import door
from cjepa_jax.reports import pictures
from cjepa_jax.runtime.workdir import Workdir

MOST_GROUPS = 100  # groups of the probe that are drawn
MOST_METRICS = 100  # metrics that are drawn or explained
ELSEWHERE = {  # metrics that the page shows elsewhere, or not at all
    "step", "loss", "skipped", "skipped_total", "replaced_scenes", "fallback_scenes", "compilations", "scenes_per_s",
    "data_wait", "eta_s", "goodput", "peak_memory_gib", "rankme", "feature_std", "ema_momentum", "learning_rate",
    "grad_norm", "update_norm", "context_fraction",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Contents of a run folder. `notes` lists missing and damaged files."""

    workdir: Path
    rows: list[dict]  # metrics.jsonl
    config: dict = field(default_factory=dict)
    result: dict = field(default_factory=dict)
    scenes: pictures.Scenes | None = None
    notes: list[str] = field(default_factory=list)

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a metric, each [n]; empty if it was never logged."""
        found = [(row["step"], value) for row in self.rows if (value := numeric(row.get(name))) is not None]
        return tuple(np.array(found, float).reshape(-1, 2).T)

    def last(self, name: str) -> float | None:
        """The final value of a metric: from the result, or else the last logged one."""
        value = numeric(self.result.get(name))
        if value is not None:
            return value
        values = self.series(name)[1]
        return float(values[-1]) if len(values) else None

    def setting(self, name: str) -> Any:
        """A config value by its dotted name, or None."""
        value = self.config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def metrics(self) -> list[str]:
        """The names that log lines have."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def terms(self) -> list[str]:
        """Logged terms of the loss, without "loss/" and without their floors."""
        found = [name.removeprefix("loss/") for name in self.metrics() if name.startswith("loss/")]
        return [name for name in found if not name.endswith("_floor")][:MOST_METRICS]

    def others(self) -> list[str]:
        """Metrics that no other part of the page shows: of a user's objective, of monitors, and `explained`."""
        own = ("loss/", "probe/", "step_time_", *(f"{name}/" for name in self.contrasts()))
        found = (name for name in self.metrics() if name not in ELSEWHERE and not name.startswith(own))
        return [name for name in found if len(self.series(name)[0])][:MOST_METRICS]

    def contrasts(self) -> list[str]:
        """The names of monitors that log a do-contrast."""
        found = [name.removesuffix("/do_contrast") for name in self.metrics() if name.endswith("/do_contrast")]
        return found[:MOST_GROUPS]

    def hides(self) -> bool:
        """Whether the objective sees a part of each scene, as far as the run tells: then its masks matter."""
        return not self.rows or self.scenes is not None or "context_fraction" in self.metrics()

    def steady(self, name: str) -> tuple[np.ndarray, int]:
        """A metric in the log lines in whose steps nothing was compiled, and how many lines were left out.

        The first line of a start compiles. Where every line does, none is left out, and the number is -1.
        """
        kept, left, before = [], 0, None
        for row in self.rows:
            value, count = numeric(row.get(name)), row.get("compilations")
            if value is None or not np.isfinite(value):
                continue
            compiled = before is None or count != before
            before, left = count, left + compiled
            if not compiled:
                kept.append(value)
        return (np.array(kept), left) if kept else (self.series(name)[1], -1)

    def groups(self) -> list[str]:
        """The probe's label groups."""
        names = dict.fromkeys(name for row in [*self.rows, self.result] for name in row)
        found = [match[1] for name in names if (match := re.fullmatch(r"probe/(.+)_r2", name))]
        return found[:MOST_GROUPS]


def numeric(value: Any) -> float | None:
    """A logged value as a float. Non-finite ones are logged as text. None for anything else."""
    try:
        return float(value) if isinstance(value, int | float) or value in ("nan", "inf", "-inf") else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def read(workdir: Path) -> Run:
    """Read a run folder. Raises DataError if it or its metrics.jsonl is missing. The other files may be absent."""
    if not workdir.is_dir():
        raise DataError(f"{workdir}: no such run folder")
    metrics, notes = workdir / "metrics.jsonl", []
    if not metrics.is_file():
        raise DataError(f"{metrics}: no such file. The run has not logged a step, or this is not a run folder")
    try:
        rows, broken, cut = Workdir(workdir).look_at_metrics()
    except OSError as error:
        raise DataError(f"{metrics}: {error.strerror}") from error
    if lost := broken + cut:
        what = "an unreadable line was" if lost == 1 else f"{lost} unreadable lines were"
        notes.append(f"metrics.jsonl: {what} left out")
    found = {}
    for name in ("config", "result"):
        file = workdir / f"{name}.json"
        try:
            found[name] = parse(door.read_text(file, errors="replace")) if file.exists() else {}
        except OSError as error:
            notes.append(f"{name}.json: {error.strerror}")
            found[name] = {}
        if not found[name] and name == "config":
            notes.append("config.json is missing or unreadable")
    scenes = None
    if (workdir / "report.npz").is_file():
        try:
            scenes = pictures.Scenes.load(workdir / "report.npz")
        except DataError as error:
            notes.append(str(error))
    return Run(workdir=workdir, rows=rows, config=found["config"], result=found["result"], scenes=scenes, notes=notes)


def parse(text: str) -> dict:
    """A JSON object, or {} for anything else (a killed run may leave half a line)."""
    try:
        value = door.parsed(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
