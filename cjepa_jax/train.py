"""Trains what a config describes. Run again, it resumes where it stopped.

python -m cjepa_jax.train --config=configs/tiny.py [--workdir=runs/tiny] [--config.optim.peak=1e-3 ...]
"""

if __name__ == "__main__":
    from cjepa_jax.runtime import preemption as signals

    signals.leave_at_once()
    from cjepa_jax import cli  # checks the command line and the config before JAX is imported

    raise SystemExit(cli.run("cjepa_jax.train", cli.define_reading))

import contextlib
import functools
import pathlib
import time

import jax
from clu import parameter_overview

from cjepa_jax import cli, experiment
from cjepa_jax.errors import PREEMPTED
from cjepa_jax.host import door
from cjepa_jax.loading import init_from
from cjepa_jax.monitors.schedule import Monitors
from cjepa_jax.reports import summary, training
from cjepa_jax.runtime import distributed, run_manifest
from cjepa_jax.runtime.accumulator import Window
from cjepa_jax.runtime.checkpoint import Checkpoints, size_in_bytes
from cjepa_jax.runtime.goodput import Goodput
from cjepa_jax.runtime.loop import Loop
from cjepa_jax.runtime.preemption import Signals, Stopped
from cjepa_jax.runtime.watchdog import Watchdog
from cjepa_jax.runtime.workdir import Workdir
from cjepa_jax.runtime.writers import Console, Writers, format_seconds
from cjepa_jax.weights.read import Pretrained


def main(config, path: str) -> int:
    """Runs the experiment in the folder `path`. Returns the exit code: 0 (done) or PREEMPTED (stopped by a signal)."""
    return distributed.leave(cli.guard(lambda: _run(config, path)))


def _run(config, path: str) -> int:
    distributed.start(config)
    config.dtype = experiment.compute_dtype(config)  # kept with the config: a run does not change it on resume
    weights, lines = init_from.prepare(config, pathlib.Path(path), cli.trust(), cli.reading())
    folder, first = Workdir(path, config), distributed.first()
    stacks = folder.path / f"stacks.{jax.process_index()}.txt"
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals(alone=jax.process_count() == 1))
        stack.enter_context(distributed.blame())
        if first:  # the one that locks the folder, and writes there
            stack.enter_context(folder)
        watchdog = stack.enter_context(Watchdog(config.train.watchdog, stacks))
        (finished,) = distributed.agree(folder.finished is not None)  # and nobody reads before the folder is claimed
        if not first:
            stack.enter_context(door.owning(folder.path))
        if not finished:
            try:
                if first and lines:
                    print("\n".join(lines))
                return train(config, folder, signals, watchdog, weights)
            except Stopped:
                print(f"stopped by {signals.received.name} before the first step. The same command resumes from there")
                return PREEMPTED
        if first:
            print(f"finished already: {folder.path}\n{summary.probes(folder.finished)}")
            if config.log.report and not (folder.path / "report.html").exists():  # killed right before it
                training.write(folder.path)
    return 0


def train(config, workdir: Workdir, signals: Signals, watchdog: Watchdog, weights: Pretrained | None = None) -> int:
    """From a fresh or a half-trained folder to a finished one, or to a checkpoint when a signal asks to stop.

    weights: loaded from config.init_from, to which the config is adapted already. None if they are not needed.
    """
    started = time.perf_counter()
    with signals.nothing_to_save():
        loop = _prepare(config, workdir, signals, watchdog, weights)
    stopped = loop.train()

    loop.writers.close()
    if distributed.first():
        loop.goodput.save()
    watchdog.beat()
    if stopped:
        name = signals.received.name if signals.received else "a signal to another process"
        loop.console.print(f"stopped by {name} at step {loop.step}. The same command resumes from there")
        loop.entry.close(name, loop.step)
        return PREEMPTED

    summary.finish(config, workdir, loop, time.perf_counter() - started)
    loop.entry.close("done", loop.step)
    loop.console.print(f"done in {format_seconds(time.perf_counter() - started)}: {workdir.path}")
    if config.log.report and distributed.first():
        loop.console.print(f"report: {training.write(workdir.path)}")
    return 0


def _prepare(config, workdir: Workdir, signals: Signals, watchdog: Watchdog, weights: Pretrained | None) -> Loop:
    """The loop with all its parts, before its first step."""
    first = distributed.first()
    console, goodput, monitors = Console(active=first), Goodput(workdir.path / "goodput.json"), Monitors(config)
    # ------------------------------------------------------------------ the parts, and the state from the seed
    run = experiment.assemble(config)
    state = run.init(run.example())
    console.print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    if first:
        workdir.require_space((config.checkpoint.keep + 2) * size_in_bytes(state), counting_checkpoints=True)
    monitors.begin(run, state)
    # ------------------------------------------------------------------ fresh start or resume
    checkpoints = Checkpoints(workdir.checkpoints, config.checkpoint.keep, config.checkpoint.best)
    begin = functools.partial(init_from.start, trust=cli.trust(), reading=cli.reading())
    start, state = checkpoints.restore(state) or (0, begin(config, state, weights, workdir.path))
    if first:
        workdir.truncate_metrics(start)
    console.print(summary.plan(config, workdir, run, start))
    logged = [row for row in workdir.read_metrics() if row["step"] <= start]
    monitors.resume(logged)
    entry = run_manifest.open_run(workdir, config, run.source, jax.devices(), start)
    writers, window = Writers(workdir, config, step=start, active=first), Window(config, len(run.source), state)
    return Loop(
        config=config, workdir=workdir, run=run, step=start, state=state, logged=logged,
        monitors=monitors, checkpoints=checkpoints, writers=writers, window=window, console=console, goodput=goodput,
        signals=signals, watchdog=watchdog, entry=entry,
    )  # fmt: skip
