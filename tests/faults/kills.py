"""Trainers are killed at random moments and at named points. The resumed run must end with the same bits."""

import pathlib
import random
import time
from concurrent.futures import ThreadPoolExecutor

from tests import running
from tests.faults import launch, trainer
from tests.faults.launch import STEPS, Forked, command, last_saved
from tests.faults.record import Outcome

PER_RUN = 8  # kills of one run, before it may end
STARTS = 30  # more than this many starts: there was no progress
ORPHAN = "a data worker outlived its trainer"
EVERY_POINT = (trainer.HALF_A_LINE, *trainer.POINTS)  # the result, after which no point comes, is last


def campaign(count, seed, jobs, folder, until=float("inf")):
    """At least `count` kills, of runs in `folder`, or as many as come before the time `until` (monotonic)."""
    outcome = Outcome("kills")
    reference = undisturbed(folder)
    with ThreadPoolExecutor(jobs) as pool:
        number = 0
        while outcome.tried < count and time.monotonic() < until:
            runs = [f"{seed}/{number + i}" for i in range(jobs)]
            list(pool.map(lambda name: one_run(name, folder, reference, outcome), runs))
            number += jobs
    return outcome


def undisturbed(folder):
    """The folder of a run that nothing disturbs, by the command that users type."""
    workdir = pathlib.Path(folder, "undisturbed")
    if not (workdir / "result.json").exists():
        launch.run(command(workdir))
    return workdir


def one_run(name, folder, reference, outcome, kills=PER_RUN, plan=None):
    """Kills a run again and again, then lets the real command end it and compares."""
    rng, workdir = random.Random(name), pathlib.Path(folder, "killed-" + name.replace("/", "-"))
    fault = iter(plan or [draw(rng) for _ in range(STARTS)])
    done, starts = 0, 0
    while done < kills and starts < STARTS and last_saved(workdir) < STEPS:
        starts += 1
        before, (kind, failure) = last_saved(workdir), start_and_kill(workdir, rng, next(fault, "moment"))
        if kind:
            done += 1
            lost = f"{before} -> {last_saved(workdir)} saved" if last_saved(workdir) < before else ""
            failure = failure or lost
            outcome.add(kind, failure and f"{name}, {kind}: {failure}")
        elif failure:
            outcome.fail(f"{name}: {failure}")
            return
    if done < kills and last_saved(workdir) < STEPS:
        outcome.fail(f"{name}: no progress: {starts} starts, {last_saved(workdir)} of {STEPS} steps")
    launch.end(name, workdir, reference, outcome)


def draw(rng):
    """A kind of kill: at a named point, some time after a step, or at any moment since the start."""
    return rng.choice([rng.choice(EVERY_POINT), "step", "moment"])


def start_and_kill(workdir, rng, kind):
    """(kind of kill, failure). The kind is empty where the run ended before."""
    reached, workers = last_saved(workdir), int(rng.random() < 0.15)
    values = {"data__workers": workers, "checkpoint__every": rng.randint(1, 6)}
    if kind in EVERY_POINT:
        often = {"mid_write": 20, "metrics_rewritten": 1, "run_manifest": 1, "result": 1}.get(kind, 4)
        process = Forked(workdir, f"{kind}:{rng.randint(1, often)}", **values)
        left = watch(process) if workers else []
        code = process.wait()
        if code in (0, -9):
            return kind if code == -9 else "", "" if running.gone(left) else ORPHAN
        return "", f"{kind}: {code}: {process.text()[-500:]}"
    process = Forked(workdir, **values)
    if kind == "step":
        wanted = rng.randint(reached + 1, min(reached + 12, STEPS))
        process.until(lambda: process.step() >= wanted)
        time.sleep(rng.uniform(0, 0.2))
    else:
        moment = time.monotonic() + rng.uniform(0, rng.choice([0.5, 4, 12]))
        process.until(lambda: time.monotonic() > moment)
    if not process.process.is_alive():
        code = process.wait()
        return "", "" if code == 0 else f"exit code {code}: {process.text()[-500:]}"
    return kind, "" if process.kill() else ORPHAN


def watch(process):
    """Waits for the process's end. The children that it had when they were last looked at."""
    children = []

    def look():
        children[:] = running.children(process.pid) or children

    process.until(look)
    return children
