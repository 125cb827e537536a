"""Summaries of a run: in words when it begins, in result.json when it ends."""

import dataclasses
import platform
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from cjepa_jax import __version__
from cjepa_jax.data import kinds
from cjepa_jax.errors import one_line
from cjepa_jax.experiment import Experiment
from cjepa_jax.host import door
from cjepa_jax.objectives.base import Masking
from cjepa_jax.reports import pictures as report_pictures
from cjepa_jax.reports import snapshot
from cjepa_jax.reports.html import NOTHING
from cjepa_jax.reports.run import numeric
from cjepa_jax.runtime import distributed as processes
from cjepa_jax.runtime.workdir import Workdir

PICTURES = 8  # held-out scenes in the report
REFERENCES = ("random", "pixels", "wrong_object", "ceiling")  # endings of a score's references


def devices(mesh: jax.sharding.Mesh) -> str:
    """Such as "8 x TPU v4 (tpu)", with the number of processes if there are several."""
    processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} x {jax.devices()[0].device_kind} ({jax.default_backend()}{processes})"


def plan(config: Any, workdir: Workdir, run: Experiment, start: int) -> str:
    """The plan of the run."""
    lines = {
        "run": workdir.path,
        "devices": devices(run.mesh),
        "data": f"{type(run.source).__name__}, {len(run.source)} scenes, {config.data.frames} x {config.data.size}^2, "
        f"{run.scenes.tokens} tokens, intervened by {config.data.intervened}",
        "steps": f"{run.steps} of {config.train.batch} scenes" + (f", resumed at {start}" if start else ""),
    }
    return "\n".join(f"{name:8} {value}" for name, value in lines.items())


def probes(result: Mapping[str, Any], name: str = "probe") -> str:
    """The scores of a monitor, the probe or another one, at a step or in a stored result, each with its references.
    Scores without a reference and anything but numbers are left out."""
    text = []
    for key in (key for key in result if key.startswith(f"{name}/")):
        score, *found = (numeric(result.get(key + end)) for end in ("", *(f"_{kind}" for kind in REFERENCES)))
        named = zip(REFERENCES, found, strict=True)
        beside = ", ".join(f"{kind.replace('_', ' ')} {_short(value)}" for kind, value in named if value is not None)
        if score is not None and (beside or name == "probe" and not key.endswith(REFERENCES)):
            text.append(f"{key.removeprefix(f'{name}/')} {_short(score)} ({beside})")
    return one_line("  ".join(text))


def _short(value: float) -> str:
    """Three digits after the point, or two digits of a number that they would show as 0 and that is not rounding."""
    if abs(value) < NOTHING:
        return f"{0:.3f}"
    return f"{value:.2g}" if abs(value) < 0.001 else f"{value:.3f}"


def finish(config: Any, workdir: Workdir, loop: Any, seconds: float) -> None:
    """Writes the report's arrays, then result.json, which marks the run as finished. loop: runtime.loop.Loop."""
    run, state = loop.run, loop.state
    shows = isinstance(run.objective, Masking) and kinds.of(run.source) in kinds.FILMED
    pictures = config.log.report and shows
    if pictures:  # every process's part: the arrays may be spread over all of them
        state, params = processes.local((state, run.init(run.example()).params))
    if not processes.first():
        return
    if pictures:
        pictured = dataclasses.replace(run.held_out_scenes, with_masks=True)
        arrays = snapshot.take(run.objective, state, params, pictured, PICTURES)
        arrays |= {f"{report_pictures.SHOWN}{title}": array for title, array in loop.monitors.pictures(state).items()}
        with door.replacing(workdir.path / "report.npz") as file:
            np.savez_compressed(file, **arrays)
    about = {
        "command": shlex.join(["python", "-m", "cjepa_jax.train", *sys.argv[1:]]),
        "devices": devices(run.mesh),
        "version": f"{__version__}, jax {jax.__version__}, Python {platform.python_version()}",
        "seconds": seconds,
        "resumed_at": loop.start,
    }
    if not isinstance(run.objective, Masking):
        about["pictures"] = f"{config.objective.type} has no encode_context"
    elif not shows:
        about["pictures"] = f"scenes of kind {kinds.of(run.source)!r} are not pictures"
    elif not pictures:
        about["pictures"] = "log.report was False"
    last = {name: value for row in workdir.read_metrics() if row["step"] == run.steps for name, value in row.items()}
    workdir.finish(last | about)
