"""Trains what a config describes, and goes on where it stopped when it is run again.

python -m cjepa_jax.train --config=configs/tiny.py [--workdir=runs/tiny] [--config.optim.peak=1e-3 ...]
"""

if __name__ == "__main__":
    from cjepa_jax.runtime import preemption as signals

    signals.leave_at_once()
    from cjepa_jax import cli  # checks the command line and the config before JAX is imported

    raise SystemExit(cli.run("cjepa_jax.train"))

import contextlib
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor

import jax
from clu import parameter_overview

from cjepa_jax import cli, experiment, sharding
from cjepa_jax.errors import PREEMPTED
from cjepa_jax.evals.probe import Probe
from cjepa_jax.host import door
from cjepa_jax.loading import init_from
from cjepa_jax.reports import summary, training
from cjepa_jax.runtime import distributed, run_manifest
from cjepa_jax.runtime.accumulator import Window
from cjepa_jax.runtime.checkpoint import Checkpoints, size_in_bytes
from cjepa_jax.runtime.collapse_monitor import Alarms
from cjepa_jax.runtime.goodput import Goodput
from cjepa_jax.runtime.preemption import Signals, Stopped
from cjepa_jax.runtime.timing import Clock, compilations, peak_memory
from cjepa_jax.runtime.watchdog import Watchdog
from cjepa_jax.runtime.workdir import Workdir
from cjepa_jax.runtime.writers import Console, Writers, format_progress, format_seconds
from cjepa_jax.weights.read import Pretrained


def main(config, path: str) -> int:
    """Runs the experiment in the folder `path`. Returns the exit code: 0 (done) or PREEMPTED (stopped by a signal)."""
    return distributed.leave(cli.guard(lambda: _run(config, path)))


def _run(config, path: str) -> int:
    distributed.start(config)
    config.dtype = experiment.compute_dtype(config)  # kept with the config: a run does not change it on resume
    weights, lines = init_from.prepare(config, pathlib.Path(path), cli.trust())
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
                print(f"stopped by {signals.received.name} before the first step; the same command goes on from there")
                return PREEMPTED
        if first:
            print(f"finished already: {folder.path}\n{summary.probes(folder.finished)}")
            if config.log.report and not (folder.path / "report.html").exists():  # killed right before it
                training.write(folder.path)
    return 0


def train(config, workdir: Workdir, signals: Signals, watchdog: Watchdog, weights: Pretrained | None = None) -> int:
    """From a fresh or a half-trained folder to a finished one, or to a checkpoint when a signal asks to stop.

    weights: opened from config.init_from, to which the config is set already; None: none, or not needed any more.
    """
    first, started = distributed.first(), time.perf_counter()
    console, goodput = Console(active=first), Goodput(workdir.path / "goodput.json")

    with signals.nothing_to_save():
        # -------------------------------------------------------------- the parts, and the state from the seed
        run = experiment.assemble(config)
        steps, state = run.steps, run.init(run.example())
        console.print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        if first:
            workdir.require_space((config.checkpoint.keep + 2) * size_in_bytes(state), counting_checkpoints=True)
        names, params = run.unseen.label_names, distributed.local(state.params | state.extra)
        sizes = (config.probe.train, config.probe.test, config.probe.batch)
        probe = Probe(run.objective.encode, params, run.unseen_scenes, names, *sizes)

        # -------------------------------------------------------------- fresh start or resume
        checkpoints = Checkpoints(workdir.checkpoints, config.checkpoint.keep, config.checkpoint.best)
        start, state = checkpoints.restore(state) or (
            0,
            init_from.start(config, state, weights, workdir.path, cli.trust()),
        )
        weights = None  # they have served, and may be as large as the state
        if first:
            workdir.truncate_metrics(start)
        console.print(summary.plan(config, workdir, run, start))
        logged = workdir.read_metrics()
        entry = run_manifest.open_run(workdir, config, run.source, jax.devices(), start)
        writers, window = Writers(workdir, config, start, first), Window(config, len(run.source), state)

    def score() -> dict | None:
        """The probe's scores, written; None on all processes if a signal broke off one's.

        The next start makes up for it. The step's checkpoint stays without scores, so that it is never the best one.
        """
        params = distributed.local(state.params | state.extra)
        scores = signals.unless_stopped(lambda: probe.run(params))
        (broken_off,) = distributed.agree(scores is None)
        if broken_off:
            return None
        writers.write(step, scores)
        console.print(f"probe at step {step}: {summary.probes(scores)}")
        return scores

    def fetch() -> tuple:
        """The next batch as read and on the devices, None at the end; and whether a signal has come to any process."""
        arrays = signals.unless_stopped(lambda: next(batches, None))
        shape = run.loader.shape_of(arrays) if arrays else 0
        asked, shape = distributed.agree(signals.received is not None, shape)
        if asked or arrays is None:
            return None, None, asked
        arrays = run.loader.at_shape(arrays, shape)
        return arrays, sharding.put_batch(run.mesh, arrays), asked

    def failed(kind: type | None, error: BaseException | None, trace: object) -> None:
        """What ended the loop, for the manifest."""
        if kind is not None:
            entry.close(signals.received.name if kind is Stopped else f"error: {error}", step)

    # ------------------------------------------------------------------ the loop
    alarms = Alarms(config.train.collapse, config.train.batch - 1, logged)
    clock = Clock(goodput, start, steps, config.train.batch)
    step, scores, stop = start, {}, start == steps
    batches = run.loader.iterate(start, steps)
    with contextlib.ExitStack() as stack:
        stack.push(failed)
        stack.enter_context(contextlib.closing(checkpoints))
        stack.enter_context(contextlib.closing(batches))
        watch = stack.enter_context(ThreadPoolExecutor(1))
        if start and _due(config, start, steps) and not any(row["step"] == start and _probed(row) for row in logged):
            scores = score()
        arrays, batch, stop = (None, None, stop) if stop else fetch()  # stops if the probe was broken off
        goodput.spent("init")
        while not stop:
            step += 1
            compiled = compilations(run.step)
            with signals.nothing_to_save() if step == start + 1 else contextlib.nullcontext():
                state, metrics = run.step(state, batch)
            window.add(step, arrays, metrics)
            # The next batch comes while the step runs; only what it takes beyond the step's end is waiting.
            done_at = watch.submit(_when_ready, metrics["loss"])
            arrays, batch, asked = fetch()
            arrived_at = time.perf_counter()
            waited = max(0.0, arrived_at - done_at.result()) if arrays else 0.0
            clock.stepped(step, waited, compiled=step == start + 1 or compilations(run.step) > compiled)
            watchdog.beat()
            checkpoints.check_for_errors()

            stop = asked or step == steps  # asked once: a signal from here on is for the next step
            if step % config.log.every == 0 or stop:
                logged = window.flush() | clock.lap(step) | peak_memory() | {"compilations": compilations(run.step)}
                writers.write(step, logged)
                window.check_budgets()
                alarms.check(step, logged)
                console.progress(format_progress(step, steps, logged))
                if first:
                    goodput.save()
            scores = {}
            if _due(config, step, steps):
                with clock.outside("probe"):
                    cli.release_memory()
                    scores = score()
                    (asked,) = distributed.agree(signals.received is not None)
                stop = stop or asked
            # Also after a probe, which may have met the best state so far, and after the first step: whoever is
            # killed again and again still gets on.
            if step % config.checkpoint.every == 0 or scores or step == start + 1 or stop:
                with clock.outside("checkpoint"):
                    cli.release_memory()
                    if first:
                        workdir.require_space(size_in_bytes(state))
                    checkpoints.save(step, state, scores)
            watchdog.beat()
        arrays = batch = None  # they live in the data workers' shared memory, which is freed with its last user
        with goodput.spending("checkpoint"):
            checkpoints.wait()
        stopped = step < steps or scores is None
        if stopped:
            signals.leave_soon()
    writers.close()
    if first:
        goodput.save()
    watchdog.beat()
    if stopped:
        name = signals.received.name if signals.received else "a signal to another process"
        console.print(f"stopped by {name} at step {step}; the same command goes on from there")
        entry.close(name, step)
        return PREEMPTED

    summary.finish(config, workdir, run, state, start, time.perf_counter() - started)
    entry.close("done", step)
    console.print(f"done in {format_seconds(time.perf_counter() - started)}: {workdir.path}")
    if config.log.report and first:
        console.print(f"report: {training.write(workdir.path)}")
    return 0


def _when_ready(array) -> float:
    array.block_until_ready()
    return time.perf_counter()


def _due(config, step: int, steps: int) -> bool:
    """Whether there is a probe after this step."""
    return step == steps or bool(config.probe.every and step % config.probe.every == 0)


def _probed(row) -> bool:
    return any(name.startswith("probe/") for name in row)
