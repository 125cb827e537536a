"""Trainers as processes: real commands, or, much cheaper, forked from one that has imported everything already."""

import itertools
import multiprocessing
import os
import pathlib
import re
import shutil
import threading
import time
from multiprocessing import forkserver

from tests import QUICK, running
from tests.faults import trainer

STEPS = 48
# `checkpoint.every` and `probe.every` make many saves. Every step is in metrics.jsonl.
VALUES = {"train__steps": STEPS, "log__every": 1, "probe__every": 16, "checkpoint__every": 4}
ENVIRONMENT = {  # read when JAX is imported, so it has to stand before the first process is forked
    "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {QUICK}",
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore:resource_tracker",  # the tracker frees what killed data workers leave: no news here
}
COUNTER, LOCK, SERVER = itertools.count(), threading.Lock(), []


def command(workdir, **values):
    """argv of the real command, with many saves."""
    return running.command(workdir, **(VALUES | values))


def start_server():
    """The process to fork from, once. Its environment is that of all the trainers."""
    with LOCK:
        if SERVER:
            return
        before = dict(os.environ)
        cache = before.get("JAX_COMPILATION_CACHE_DIR", running.COMPILED)
        os.environ |= ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": cache}
        try:
            forkserver.set_forkserver_preload(["tests.faults.preload"])
            forkserver.ensure_running()
            SERVER.append(True)
        finally:
            os.environ.clear()
            os.environ |= before


def run(argv, seconds=1800):
    """The real command to its end, which must be a good one, however slow a machine that does much at once is."""
    process = running.start(argv)
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, f"exit code {process.returncode}: {argv}\n{out[-2000:]}\n{err[-2000:]}"


class Forked:
    """A forked trainer. Its output, both streams, is in the file `output`."""

    def __init__(self, workdir, fault="", **values):
        start_server()
        self.output = pathlib.Path(f"{workdir}.{next(COUNTER)}.out")
        argv = command(workdir, **values)[3:]
        context = multiprocessing.get_context("forkserver")
        self.process = context.Process(target=trainer.forked, args=(argv, str(self.output), fault))
        self.process.start()
        self.began, self.pid = time.monotonic(), self.process.pid

    def text(self):
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def step(self):
        """The last step that it has printed, 0 before the first."""
        return int((re.findall(r"^step (\d+)/", self.text(), re.M) or [0])[-1])

    def until(self, done, seconds=1800.0):
        """Waits until done() or the end of the process. Returns whether it is still running."""
        until = time.monotonic() + seconds
        while self.process.is_alive() and not done():
            if time.monotonic() > until:
                raise AssertionError(f"{self.output}: nothing happens\n{self.text()[-2000:]}")
            time.sleep(0.01)
        return self.process.is_alive()

    def kill(self):
        """kill -9. Returns whether its children, if any, ended by themselves."""
        left = running.children(self.pid)
        self.process.kill()
        self.process.join()
        return running.gone(left)

    def wait(self, seconds=1800.0):
        """The exit code, negative for a signal. Who does not end within some seconds is killed: None."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            return None
        return self.process.exitcode


def last_saved(workdir):
    """The newest finished checkpoint's step, 0 for none."""
    folder = pathlib.Path(workdir, "checkpoints")
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


TIMING = re.compile("scenes_per_s|data_wait|eta_s|step_time_|compilations|goodput|peak_memory_")


def end(name, workdir, reference, outcome):
    """Lets the real command end a run that was disturbed, and compares it. What differs stays on disk."""
    run(command(workdir))
    found = differences(workdir, reference)
    outcome.fail(found and f"{name} in {workdir}: {'; '.join(found)}")
    if not found:
        shutil.rmtree(workdir)
        for output in workdir.parent.glob(f"{workdir.name}.*.out"):
            output.unlink()


def differences(workdir, reference):
    """One text per way in which a run that was disturbed differs from one that was not."""
    found = []
    if running.digest(workdir, STEPS) != running.digest(reference, STEPS):
        found.append("other parameters, target, optimiser state or counters")
    for kind, mine, wanted in zip(
        ("metrics", "probes"), running.metrics(workdir), running.metrics(reference), strict=True
    ):
        steps = [line["step"] for line in mine]
        if steps != [line["step"] for line in wanted]:
            found.append(f"{kind}: steps {steps}")
            continue
        for one, two in zip(mine, wanted, strict=True):
            names = sorted(k for k in one.keys() | two.keys() if not TIMING.match(k) and one.get(k) != two.get(k))
            if names:
                found.append(f"{kind} of step {one['step']}: {', '.join(names)}")
    aside = [path.name for path in pathlib.Path(workdir, "checkpoints").glob("*.bad")]
    return found + ([f"set aside: {', '.join(aside)}"] if aside else [])
