"""Tests in forked processes: the parent has imported what is slow to import and never changes. Each child
has its copy of the tree.

The parent imports neither the package nor its tests, and starts no JAX backend, so that a child begins as a fresh
process would, two seconds later.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

from tests.mutants.mutant import ROOT, Mutant

SLOW_TO_IMPORT = "pytest numpy jax jax.numpy flax.linen optax beartype jaxtyping absl.flags ml_collections scipy.stats"
SLOW_TO_IMPORT += " PIL.Image orbax.checkpoint grain hypothesis"
NONE = 5  # pytest's exit code if no test ran, ours also if all were skipped
WALL = 8  # times its limit of CPU time, after which a child that waits for something is killed


def warm(compiled: pathlib.Path) -> None:
    """Imports what all children share. What XLA compiles is kept in this folder."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "OPENBLAS_NUM_THREADS": "1",  # no thread of the parent is lost by forking
    }
    for name in SLOW_TO_IMPORT.split():
        importlib.import_module(name)
    assert not {name for name in sys.modules if name.split(".")[0] in ("cjepa_jax", "configs", "launch")}


class Tree:
    """A copy of the tracked and the new files of the working tree."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True,
        ).stdout  # fmt: skip
        for name in filter(None, names.decode().split("\0")):
            if (ROOT / name).exists():  # it may be deleted and not yet committed
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, path / name)
        self._ages = 0

    def write(self, file: str, text: str) -> None:
        """Another text, always of another age: compiled code of an earlier one is never taken for it."""
        self._ages += 1
        (self.path / file).write_text(text)
        age = time.time() - 1_000_000 + self._ages
        os.utime(self.path / file, (age, age))


@dataclasses.dataclass
class Verdict:
    """killed, survived, timeout (of CPU or of waiting) or broken (the tests cannot run); `by` is the first failed test,
    or what is broken."""

    result: str
    by: str
    seconds: float  # of CPU

    def __str__(self) -> str:
        return f"{self.result:8} {self.seconds:6.1f} s  {self.by}"


class Child:
    """A forked process that runs tests in a tree."""

    def __init__(self, tree: Tree, tests: list[str], limit: int, first: bool = True):
        self.tree, self.limit, self.started = tree, limit, time.monotonic()
        self.report = tree.path.with_suffix(".json")
        self.report.unlink(missing_ok=True)
        self.pid = os.fork()
        if not self.pid:
            code = 99  # of a child that did not get as far as its tests
            try:
                code = _run(tree.path, tests, limit, first, self.report)
            finally:
                os._exit(code)

    def poll(self) -> Verdict | None:
        """What became of it, once it has ended. Its own children end with it."""
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        waited = time.monotonic() - self.started > WALL * self.limit
        if not pid and not waited:
            return None
        self.kill()
        if not pid:
            return Verdict("timeout", f"no end within {WALL * self.limit} s", 0.0)
        seconds = used.ru_utime + used.ru_stime
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            limited = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
            return Verdict("timeout" if limited else "killed", f"{name} after {seconds:.0f} s", seconds)
        return _verdict(os.WEXITSTATUS(status), self.failed(), seconds)

    def failed(self) -> list[str]:
        return json.loads(self.report.read_text()) if self.report.exists() else []

    def kill(self) -> None:
        """It and what it has started. The group is its own."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # poll has waited for it


def _verdict(code: int, failed: list[str], seconds: float) -> Verdict:
    """By pytest's exit codes."""
    if code == 0:
        return Verdict("survived", "", seconds)
    if code in (1, 2) and failed:  # 2: a module that cannot be imported
        return Verdict("killed", failed[0], seconds)
    none = "no test ran: does it need a package that is not installed?"
    return Verdict("broken", none if code == NONE else f"pytest ended with {code}", seconds)


class _Failures:
    """A plugin that writes down which tests fail, at once: a later one may end the process."""

    def __init__(self, report: pathlib.Path):
        self.report, self.names, self.passed = report, [], False

    def _add(self, name: str) -> None:
        self.names.append(name)
        self.report.write_text(json.dumps(self.names))

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._add(report.nodeid)
        self.passed |= report.when == "call" and report.passed

    def pytest_collectreport(self, report):
        if report.failed:
            self._add(f"{report.nodeid} (not collected)")


def _run(path: pathlib.Path, tests: list[str], limit: int, first: bool, report: pathlib.Path) -> int:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    with open(report.with_suffix(".log"), "w") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]  # the copy's tests are imported, not those that started all this
    os.chdir(path)
    sys.path[:] = [str(path)] + [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != ROOT]
    os.environ["PYTHONPATH"] = str(path)  # for the processes that tests start
    import pytest

    options = ["-p", "no:cacheprovider", "-m", "", "--no-header", "--rootdir", str(path), *["-x"] * first]
    failures = _Failures(report)
    code = int(pytest.main([*options, *tests], plugins=[failures]))
    return NONE if code == 0 and not failures.passed else code


def run_all(mutants: list[Mutant], folder: pathlib.Path, jobs: int, limit: int):
    """(mutant, Verdict) of each, as they end."""
    free = [Tree(folder / f"tree{number}") for number in range(jobs)]
    waiting, running = list(reversed(mutants)), []
    try:
        while waiting or running:
            while free and waiting:
                tree, mutant = free.pop(), waiting.pop()
                original = (ROOT / mutant.file).read_text()
                tree.write(mutant.file, mutant.apply(original))
                running.append((mutant, original, Child(tree, mutant.tests.split(), limit)))
            for entry in list(running):
                mutant, original, child = entry
                verdict = child.poll()
                if verdict is not None:
                    running.remove(entry)
                    child.tree.write(mutant.file, original)
                    free.append(child.tree)
                    yield mutant, verdict
            time.sleep(0.05)
    finally:
        for _, _, child in running:
            child.kill()
