"""Signals at random moments: the run saves and stops with exit code 75, and still ends with the same bits."""

import contextlib
import os
import pathlib
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from tests import running
from tests.faults import launch
from tests.faults.kills import undisturbed
from tests.faults.launch import STEPS, Forked, last_saved
from tests.faults.record import Outcome

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
MOMENTS = ("start", "compile", "step", "save", "probe")
STOPPED, AT_ONCE = 75, 130
LIMIT = 30  # seconds to save and to end, on a machine that is not overloaded
PER_RUN = 6


def campaign(count, seed, jobs, folder, until=float("inf"), limit=LIMIT):
    """At least `count` signals. Every fifth one is followed by a second."""
    outcome = Outcome("signals")
    reference = undisturbed(folder)
    with ThreadPoolExecutor(jobs) as pool:
        number = 0
        while outcome.tried < count and time.monotonic() < until:
            names = [f"{seed}/{number + i}" for i in range(jobs)]
            list(pool.map(lambda name: one_run(name, folder, reference, outcome, limit), names))
            number += jobs
    return outcome


def one_run(name, folder, reference, outcome, limit=LIMIT, signals=PER_RUN):
    """Stops a run some times, lets the real command end it, and compares."""
    rng, workdir = random.Random(name), pathlib.Path(folder, "stopped-" + name.replace("/", "-"))
    for _ in range(signals):
        if last_saved(workdir) >= STEPS:
            break
        kind, failure = stop(workdir, rng, limit)
        if kind:
            outcome.add(kind, failure and f"{name}, {kind}: {failure}")
    launch.end(name, workdir, reference, outcome)


def stop(workdir, rng, limit):
    """(signal and moment, failure) of one start. The first is empty where the run had ended before it was hit."""
    number, moment, twice = rng.choice(SIGNALS), rng.choice(MOMENTS), rng.random() < 0.2
    process = Forked(workdir, checkpoint__every=rng.choice((1, 1000)), probe__every=16)
    folder, before = pathlib.Path(workdir, "checkpoints"), last_saved(workdir)
    wanted = before + rng.randint(1, 10)
    reached = {
        "start": lambda: "+---" in process.text(),
        "compile": lambda: "steps    " in process.text(),
        "step": lambda: process.step() >= wanted,
        "save": lambda: process.step() >= wanted and any(folder.glob("*.orbax-checkpoint-tmp")),
        "probe": lambda: process.step() >= min(16 * (before // 16 + 1), STEPS - 1),
    }[moment]
    running_still = process.until(lambda: reached() or process.step() >= STEPS - 2)
    time.sleep(rng.uniform(0, 0.1))
    children = running.children(process.pid)
    sent = time.monotonic()
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        running_still = False
    if twice:
        time.sleep(rng.uniform(0, 0.05))
        with contextlib.suppress(ProcessLookupError):  # the first one was enough, if there was nothing to save
            os.kill(process.pid, rng.choice(SIGNALS))
    code = process.wait()
    seconds = time.monotonic() - sent
    kind = f"{number.name} twice" if twice else f"{number.name} at {moment}"
    text = process.text()
    if not running_still or code == 0:  # it was faster: done, which is what it should be then
        return ("", "") if "done in" in text else (kind, f"exit code {code}: {text[-300:]!r}")
    allowed = (STOPPED, AT_ONCE) if twice else (STOPPED,)  # the second may come when all is saved
    problems = [] if code in allowed else [f"exit code {code}: {text[-300:]!r}"]
    if seconds > limit:
        problems.append(f"{seconds:.1f} s")
    said = re.search(rf"stopped by {number.name} (?:at step (\d+)\. |before the first step)", text)
    if code == STOPPED and not twice and (not said or int(said[1] or before) != last_saved(workdir)):
        problems.append(f"not saved where it stopped: {text[-200:]!r}, {last_saved(workdir)} saved")
    if last_saved(workdir) < before:
        problems.append("lost what was saved")
    if not running.gone(children):
        problems.append("a data worker is left")
    return kind, "; ".join(problems)
