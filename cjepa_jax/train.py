"""Trains what a config describes, and goes on where it stopped when it is run again.

python -m cjepa_jax.train --config=configs/tiny.py [--workdir=runs/tiny] [--config.optim.peak=1e-3 ...]
"""

if __name__ == "__main__":
    from cjepa_jax import cli  # checks the command line and the config before JAX is imported

    raise SystemExit(cli.run("cjepa_jax.train"))

import contextlib
import dataclasses
import functools
import logging
import platform
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from clu import parameter_overview

from cjepa_jax import __version__, build, optim, report, schedules, sharding, train_step
from cjepa_jax.checkpoint import Checkpoints, size_in_bytes
from cjepa_jax.data import batching, pipeline
from cjepa_jax.errors import ConfigError, DataError, NumericsError
from cjepa_jax.evals import snapshot
from cjepa_jax.evals.probe import Probe
from cjepa_jax.metrics import Console, Writers, format_progress, format_seconds
from cjepa_jax.signals import Signals
from cjepa_jax.timing import Clock
from cjepa_jax.types import TrainState
from cjepa_jax.workdir import Workdir

PICTURES = 8  # held-out scenes in the report


def main(config, path: str) -> int:
    """Runs the experiment in the folder `path`. Returns the exit code: 0 when done, or when asked to stop."""
    with Workdir(path, config) as workdir, Signals() as signals:
        if workdir.finished:
            print(f"finished already: {workdir.path}\n{_summary(workdir.finished)}")
            if config.log.report and not (workdir.path / "report.html").exists():  # killed right before it
                report.write(workdir.path)
        else:
            train(config, workdir, signals)
    return 0


def train(config, workdir: Workdir, signals: Signals) -> None:
    """From a fresh or a half-trained folder to a finished one, or to a checkpoint when a signal asks to stop."""
    console, started = Console(), time.perf_counter()

    # ------------------------------------------------------------------ devices, data
    mesh = sharding.make_mesh(config.train.batch)
    source, unseen = (make_source(config, split) for split in ("train", "eval"))
    steps = config.train.steps or max(1, round(config.train.epochs * len(source) / config.train.batch))
    objective = make_objective(config, steps)
    scenes = make_scenes(config, source, objective)
    loader = make_loader(config, scenes, mesh)

    # ------------------------------------------------------------------ state, step
    rate = functools.partial(
        schedules.learning_rate,
        peak=optim.peak_rate(config.optim, config.train.batch),
        warmup=optim.warmup_steps(config.optim, steps, len(source) / config.train.batch),
        total=steps,
    )
    optimizer = optim.make(config.optim)
    example = sharding.put_batch(mesh, next(dataclasses.replace(loader, workers=0).iterate(0, 1)))
    init = functools.partial(train_step.init_state, objective, optimizer, config.seed)
    init = jax.jit(init, out_shardings=sharding.state_sharding(mesh))
    step_fn = jax.jit(train_step.make(objective, optimizer, rate, config.seed), donate_argnums=0)

    # ------------------------------------------------------------------ fresh start or resume
    state = init(example)
    console.print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    workdir.require_space((config.checkpoint.keep + 2) * size_in_bytes(state))
    unseen_scenes = dataclasses.replace(make_scenes(config, unseen, objective), crop=False)
    probe = Probe(
        objective.encode,
        state.params,
        unseen_scenes,
        unseen.label_names,
        config.probe.train,
        config.probe.test,
        config.probe.batch,
    )
    checkpoints = Checkpoints(workdir.checkpoints, config.checkpoint.keep, config.checkpoint.best)
    start, state = checkpoints.restore(state) or (0, state)
    workdir.truncate_metrics(start)
    console.print(_plan(config, workdir, source, mesh, steps, start, scenes))

    # ------------------------------------------------------------------ the loop
    writers, window = Writers(workdir, config, start), Window(config, len(source), state)
    clock, scores = Clock(start, steps, config.train.batch), {}
    step, stop = start, signals.received or start == steps
    batches = loader.iterate(start, steps)
    with contextlib.closing(checkpoints), contextlib.closing(batches), ThreadPoolExecutor(1) as watch:
        arrays = None if stop else next(batches)
        while not stop:
            step += 1
            batch = sharding.put_batch(mesh, arrays)
            state, metrics = step_fn(state, batch)
            window.add(step, arrays, metrics)
            # The next batch is fetched while the step runs; only what it takes beyond the step's end is waiting.
            done_at = watch.submit(_when_ready, metrics["loss"])
            arrays = next(batches, None)
            fetched_at = time.perf_counter()
            clock.waited(max(0.0, fetched_at - done_at.result()) if arrays else 0.0)
            checkpoints.check_for_errors()

            stop = signals.received or step == steps  # asked once: a signal from here on is for the next step
            if step % config.log.every == 0 or stop:
                logged = window.flush() | clock.lap(step) | {"compilations": step_fn._cache_size()}
                writers.write(step, logged)
                window.check_budgets()
                console.progress(format_progress(step, steps, logged))
            with clock.outside():
                if step == steps or (config.probe.every and step % config.probe.every == 0):
                    scores = probe.run(state.params)
                    writers.write(step, scores)
                    console.print(f"probe at step {step}: {_summary(scores)}")
                # Also after the first step: whoever is killed again and again still gets on.
                if step % config.checkpoint.every == 0 or step == start + 1 or stop:
                    checkpoints.save(step, state, scores)
        batch = None  # it lives in the data workers' shared memory, which is freed with its last user
        checkpoints.wait()
    writers.close()
    if step < steps:
        console.print(f"stopped by {signals.received.name} at step {step}; the same command goes on from there")
        return

    # ------------------------------------------------------------------ the end
    if config.log.report and hasattr(objective, "predict"):
        pictured = dataclasses.replace(unseen_scenes, with_masks=True)
        arrays = snapshot.take(objective, state, init(example).params, pictured, PICTURES)
        beside = workdir.path / "report.tmp.npz"  # renamed when whole, like every file that a kill must not cut short
        np.savez_compressed(beside, **arrays)
        beside.replace(workdir.path / "report.npz")
    elapsed = time.perf_counter() - started
    about = {
        "command": shlex.join(["python", "-m", "cjepa_jax.train", *sys.argv[1:]]),
        "devices": _devices(mesh),
        "version": f"{__version__}, jax {jax.__version__}, Python {platform.python_version()}",
    }
    last = {name: value for row in workdir.read_metrics() if row["step"] == steps for name, value in row.items()}
    workdir.finish({**last, **about, "seconds": elapsed, "resumed_at": start})
    if config.log.report:
        report.write(workdir.path)
    console.print(f"done in {format_seconds(elapsed)}: {workdir.path}\nreport: {workdir.path / 'report.html'}")


class Window:
    """The steps since the last log line: their mean metrics, and the budgets of what may go wrong."""

    COUNTS = ("skipped", "fallback_scenes")  # added up, not averaged

    def __init__(self, config, scenes: int, state: TrainState):
        self._config, self._scenes, self._steps = config, scenes, []
        self._skipped, self._drawn, self._replaced = int(state.skipped), 0, 0
        self._finite = self._trouble = "none"

    def add(self, step: int, arrays: dict, metrics: dict) -> None:
        """One step's batch, as the loader gave it, and its metrics, still on the device."""
        self._steps.append((step, arrays["scene"], int(arrays["replaced"].sum()), metrics))

    def flush(self) -> dict[str, float]:
        """The window's metrics. The next window begins."""
        steps, self._steps = self._steps, []
        metrics = [jax.device_get(m) for *_, m in steps]
        for (step, scene, *_), m in zip(steps, metrics, strict=True):
            self._note(step, scene, m)
        replaced = sum(count for _, _, count, _ in steps)
        self._replaced += replaced
        self._drawn += sum(len(scene) for _, scene, _, _ in steps)
        good = [m for m in metrics if not m["skipped"]] or metrics
        scalars = [name for name, value in metrics[0].items() if np.ndim(value) == 0]
        means = {name: float(np.mean([m[name] for m in good])) for name in scalars}
        counts = {name: float(sum(m[name] for m in metrics)) for name in self.COUNTS if name in metrics[0]}
        return means | counts | {"skipped_total": self._skipped, "replaced_scenes": replaced}

    def check_budgets(self) -> None:
        """Raises NumericsError or DataError when more has gone wrong than the config allows."""
        budget, share = self._config.train.nonfinite_budget, self._config.data.max_replaced
        if self._skipped > budget:
            raise NumericsError(
                f"{self._skipped} non-finite steps, train.nonfinite_budget = {budget}: {self._trouble}; "
                f"last finite: {self._finite}"
            )
        if self._replaced > share * max(self._drawn, self._scenes):
            raise DataError(
                f"{self._replaced} of {self._drawn} scenes could not be read: more than data.max_replaced = {share} "
                f"(the warnings name them)"
            )

    def _note(self, step: int, scene: np.ndarray, metrics: dict) -> None:
        if not metrics["skipped"]:
            values = ", ".join(f"{name} {metrics[name]:.4g}" for name in ("loss", "grad_norm", "learning_rate"))
            self._finite = f"step {step}, {values}"
            return
        self._skipped += 1
        culprits = scene[~np.isfinite(metrics["per_scene"])] if "per_scene" in metrics else scene
        named = ", ".join(map(str, (culprits if len(culprits) else scene)[:8]))
        loss, norm = metrics["loss"], metrics["grad_norm"]
        self._trouble = f"step {step}: loss {loss}, gradient norm {norm}; scenes {named}"
        logging.warning("update skipped (%d so far): %s; last finite: %s", self._skipped, self._trouble, self._finite)


def make_source(config, split: str):
    """The source of config.data for "train" or "eval"."""
    data = config.data
    count = data.count if split == "train" else data.eval_count
    fields = dict(path=data.path, size=data.size, frames=data.frames, count=count, seed=config.seed)
    return build.build({"type": data.source, **data.options}, split=split, **fields)


def make_objective(config, steps: int):
    """The objective of config.objective for a run of so many steps."""
    dtype = config.dtype
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return build.build(config.objective, steps=steps, dtype=dtype)


def make_scenes(config, source, objective) -> pipeline.SceneMap:
    """How config turns the source's scenes into arrays."""
    data = config.data
    if data.intervened == "rerender" and not source.can_rerender:
        raise ConfigError(f"data.intervened = 'rerender': {type(source).__name__} cannot; zero_pixels always works")
    return pipeline.SceneMap(
        source,
        build.bind(config.mask),
        objective.patch,
        objective.tubelet,
        data.size,
        data.max_objects,
        data.intervened,
        config.seed,
        data.frames,
        data.crop,
    )


def make_loader(config, scenes: pipeline.SceneMap, mesh) -> pipeline.Loader:
    """The batches of this process."""
    data = config.data
    return pipeline.Loader(
        scenes,
        config.train.batch,
        config.seed,
        sharding.local_shards(mesh),
        batching.row_lengths(data.row_lengths, scenes.tokens),
        data.threads,
        data.workers,
        data.prefetch,
        jax.process_index(),
        jax.process_count(),
    )


def _when_ready(array) -> float:
    array.block_until_ready()
    return time.perf_counter()


def _devices(mesh) -> str:
    return f"{mesh.size} x {jax.devices()[0].device_kind} ({jax.default_backend()})"


def _plan(config, workdir, source, mesh, steps, start, scenes) -> str:
    lines = {
        "run": workdir.path,
        "devices": _devices(mesh),
        "data": f"{type(source).__name__}, {len(source)} scenes, {config.data.frames} x {config.data.size}^2, "
        f"{scenes.tokens} tokens; intervened by {config.data.intervened}",
        "steps": f"{steps} of {config.train.batch} scenes" + (f", resumed at {start}" if start else ""),
    }
    return "\n".join(f"{name:8} {value}" for name, value in lines.items())


def _summary(result: dict) -> str:
    shown = [key for key in result if key.startswith("probe/") and not key.endswith(("_random", "_pixels"))]
    text = []
    for key in shown:
        beside = [f"{kind} {result[f'{key}_{kind}']:.3f}" for kind in ("random", "pixels") if f"{key}_{kind}" in result]
        text.append(f"{key.removeprefix('probe/')} {result[key]:.3f} ({', '.join(beside)})")
    return "  ".join(text)
