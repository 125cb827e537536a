"""Trains what a config describes, and goes on where it stopped when it is run again.

python -m cjepa_jax.train --config=configs/tiny.py [--workdir=runs/tiny] [--config.optim.peak=1e-3 ...]
"""

if __name__ == "__main__":
    from cjepa_jax import cli  # checks the command line and the config before JAX is imported

    raise SystemExit(cli.run("cjepa_jax.train"))

import contextlib
import dataclasses
import platform
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from clu import parameter_overview

from cjepa_jax import __version__, experiment, report, sharding
from cjepa_jax.checkpoint import Checkpoints, size_in_bytes
from cjepa_jax.errors import PREEMPTED
from cjepa_jax.evals import snapshot
from cjepa_jax.evals.probe import Probe
from cjepa_jax.metrics import Console, Writers, format_progress, format_seconds
from cjepa_jax.objectives.base import Masking
from cjepa_jax.signals import Signals
from cjepa_jax.timing import Clock, compilations
from cjepa_jax.window import Window
from cjepa_jax.workdir import Workdir

PICTURES = 8  # held-out scenes in the report


def main(config, path: str) -> int:
    """Runs the experiment in the folder `path`. Returns the exit code: 0 (done) or PREEMPTED (stopped by a signal)."""
    config.dtype = experiment.compute_dtype(config)  # kept with the config: a run does not change it on resume
    with Workdir(path, config) as workdir, Signals() as signals:
        if workdir.finished:
            print(f"finished already: {workdir.path}\n{_summary(workdir.finished)}")
            if config.log.report and not (workdir.path / "report.html").exists():  # killed right before it
                report.write(workdir.path)
            return 0
        return train(config, workdir, signals)


def train(config, workdir: Workdir, signals: Signals) -> int:
    """From a fresh or a half-trained folder to a finished one, or to a checkpoint when a signal asks to stop."""
    console, started = Console(), time.perf_counter()

    # ------------------------------------------------------------------ the parts, and the state from the seed
    run = experiment.assemble(config)
    steps, state = run.steps, run.init(run.example())
    console.print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    workdir.require_space((config.checkpoint.keep + 2) * size_in_bytes(state), counting_checkpoints=True)
    sizes = (config.probe.train, config.probe.test, config.probe.batch)
    probe = Probe(run.objective.encode, state.params | state.extra, run.unseen_scenes, run.unseen.label_names, *sizes)

    # ------------------------------------------------------------------ fresh start or resume
    checkpoints = Checkpoints(workdir.checkpoints, config.checkpoint.keep, config.checkpoint.best)
    start, state = checkpoints.restore(state) or (0, state)
    workdir.truncate_metrics(start)
    console.print(_plan(config, workdir, run, start))

    # ------------------------------------------------------------------ the loop
    writers, window = Writers(workdir, config, start), Window(config, len(run.source), state)
    clock = Clock(start, steps, config.train.batch)
    step, stop = start, signals.received or start == steps
    batches = run.loader.iterate(start, steps)
    with contextlib.closing(checkpoints), contextlib.closing(batches), ThreadPoolExecutor(1) as watch:
        arrays = None if stop else next(batches)
        batch = None if stop else sharding.put_batch(run.mesh, arrays)
        while not stop:
            step += 1
            state, metrics = run.step(state, batch)
            window.add(step, arrays, metrics)
            # The next batch comes while the step runs; only what it takes beyond the step's end is waiting.
            done_at = watch.submit(_when_ready, metrics["loss"])
            arrays = next(batches, None)
            batch = sharding.put_batch(run.mesh, arrays) if arrays else None
            arrived_at = time.perf_counter()
            clock.waited(max(0.0, arrived_at - done_at.result()) if arrays else 0.0)
            checkpoints.check_for_errors()

            stop = signals.received or step == steps  # asked once: a signal from here on is for the next step
            if step % config.log.every == 0 or stop:
                logged = window.flush() | clock.lap(step) | {"compilations": compilations(run.step)}
                writers.write(step, logged)
                window.check_budgets()
                console.progress(format_progress(step, steps, logged))
            with clock.outside():
                scores = {}
                if step == steps or (config.probe.every and step % config.probe.every == 0):
                    scores = probe.run(state.params | state.extra)
                if scores:
                    writers.write(step, scores)
                    console.print(f"probe at step {step}: {_summary(scores)}")
                # Also after a probe, which may have met the best state so far, and after the first step: whoever is
                # killed again and again still gets on.
                if step % config.checkpoint.every == 0 or scores or step == start + 1 or stop:
                    workdir.require_space(size_in_bytes(state))
                    checkpoints.save(step, state, scores)
        arrays = batch = None  # they live in the data workers' shared memory, which is freed with its last user
        checkpoints.wait()
    writers.close()
    if step < steps:
        console.print(f"stopped by {signals.received.name} at step {step}; the same command goes on from there")
        return PREEMPTED

    finish(config, workdir, run, state, start, time.perf_counter() - started)
    console.print(f"done in {format_seconds(time.perf_counter() - started)}: {workdir.path}")
    if config.log.report:
        console.print(f"report: {report.write(workdir.path)}")
    return 0


def finish(config, workdir: Workdir, run: experiment.Experiment, state, start: int, seconds: float) -> None:
    """Writes what the report shows, then result.json: from there on the run is finished."""
    if config.log.report and isinstance(run.objective, Masking):
        pictured = dataclasses.replace(run.unseen_scenes, with_masks=True)
        arrays = snapshot.take(run.objective, state, run.init(run.example()).params, pictured, PICTURES)
        beside = workdir.path / "report.tmp.npz"  # renamed when whole, like every file that a kill must not cut short
        np.savez_compressed(beside, **arrays)
        beside.replace(workdir.path / "report.npz")
    about = {
        "command": shlex.join(["python", "-m", "cjepa_jax.train", *sys.argv[1:]]),
        "devices": _devices(run.mesh),
        "version": f"{__version__}, jax {jax.__version__}, Python {platform.python_version()}",
        "seconds": seconds,
        "resumed_at": start,
    }
    last = {name: value for row in workdir.read_metrics() if row["step"] == run.steps for name, value in row.items()}
    workdir.finish(last | about)


def _when_ready(array) -> float:
    array.block_until_ready()
    return time.perf_counter()


def _devices(mesh) -> str:
    return f"{mesh.size} x {jax.devices()[0].device_kind} ({jax.default_backend()})"


def _plan(config, workdir, run, start) -> str:
    lines = {
        "run": workdir.path,
        "devices": _devices(run.mesh),
        "data": f"{type(run.source).__name__}, {len(run.source)} scenes, {config.data.frames} x {config.data.size}^2, "
        f"{run.scenes.tokens} tokens; intervened by {config.data.intervened}",
        "steps": f"{run.steps} of {config.train.batch} scenes" + (f", resumed at {start}" if start else ""),
    }
    return "\n".join(f"{name:8} {value}" for name, value in lines.items())


def _summary(result: dict) -> str:
    shown = [key for key in result if key.startswith("probe/") and not key.endswith(("_random", "_pixels"))]
    text = []
    for key in shown:
        # float: a stored result has its non-finite numbers as text.
        yardsticks = [kind for kind in ("random", "pixels") if f"{key}_{kind}" in result]
        beside = [f"{kind} {float(result[f'{key}_{kind}']):.3f}" for kind in yardsticks]
        text.append(f"{key.removeprefix('probe/')} {float(result[key]):.3f} ({', '.join(beside)})")
    return "  ".join(text)
