"""What each thread of the CPU does during a training step, and what runs while the other threads wait.

`python -m cjepa_jax.bench --config=FILE --timeline=FILE.svg` records steps with JAX's profiler, which slows them down.
A thread is busy while it runs a task of XLA's pool, without the time in which the task waits for others. An operation
that is divided among threads has an event on one of them. The others are busy without a name.
"""

import collections
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from matplotlib.figure import Figure

from cjepa_jax import experiment, sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import door, memory

ENDINGS = (".svg",)
ANNOTATION = "timed training step"
TASK, TASK_END, WAITS = "ThreadpoolListener::StartRegion", "ThreadpoolListener::StopRegion", ("Await", "wait for")
DIVIDED = "part of a divided operation, or the pool's own work"
PASSES = (("transpose(", "backward"), ("jvp(", "forward"))  # marks of JAX's names of operations
SKIPPED = ("step", "stack", "closed_call", "blocks", "")  # of those names: they are in nearly all
COLOURS = {"forward": "#4c78a8", "backward": "#f58518", "rest": "#54a24b", DIVIDED: "#bab0ac"}
MOST_ROWS = 12

Span = tuple[float, float]  # nanoseconds


class Lane(NamedTuple):
    """One thread: when it is busy, in order and without overlap, and its operations (start, end, instruction)."""

    busy: list[Span]
    operations: list[tuple[float, float, str]]


def describe(config, count: int, path: str) -> dict[str, str]:
    """Records `count` steps, writes the picture of the median one, and returns a line per finding.

    Findings are of the faster half of the steps, because other work on the machine disturbs the others.

    Raises: ConfigError unless the device is a CPU and `path` is of an .svg file in a folder that exists, and if the
      profiler loses steps.
    """
    if pathlib.Path(path).suffix not in ENDINGS:
        raise ConfigError(f"--timeline={path}: must end in {' or '.join(ENDINGS)}")
    if not pathlib.Path(path).absolute().parent.is_dir():
        raise ConfigError(f"--timeline={path}: its folder does not exist")
    if jax.default_backend() != "cpu":
        raise ConfigError(f"--timeline={path}: is of the CPU's threads, and this device is {jax.default_backend()}")
    run = experiment.assemble(config)
    batch = sharding.put_batch(run.mesh, next(run.loader.iterate(0, 1)))
    state, step = run.init(batch), cast(Any, run.step)  # a jitted function
    parts = named(step.lower(state, batch).compile().as_text())
    for _ in range(2):
        state, _ = run.step(state, batch)
    jax.block_until_ready(state)
    memory.set_aside()
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(count):
                with jax.profiler.TraceAnnotation(ANNOTATION):
                    state, _ = run.step(state, batch)
                    jax.block_until_ready(state)
        steps, lanes = read(pathlib.Path(folder))
    if len(steps) != count:
        raise ConfigError(f"--steps={count}: the profiler recorded {len(steps)} of them, try fewer")
    lengths = [(end - start) / 1e6 for start, end in steps]
    text = f"{np.median(lengths):.0f} ms median, {min(lengths):.0f} to {max(lengths):.0f}, n {count}, profiled"
    faster = sorted(steps, key=lambda span: span[1] - span[0])[: (count + 1) // 2]
    door.write_atomically(path, picture(lanes, faster[-1], parts))
    return {"step": text} | found(sorted(faster), lanes, parts) | {"picture": f"{path}, the median step"}


def read(folder: pathlib.Path) -> tuple[list[Span], list[Lane]]:
    """The annotated steps, and the threads of a profile."""
    steps, lanes = [], []
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines if plane.name == "/host:CPU" else ():
                events = [(e.start_ns, e.start_ns + e.duration_ns, e.name, e.stats) for e in line.events]
                steps += [event[:2] for event in events if event[2] == ANNOTATION]
                if line.name.startswith("tf_XLA"):
                    lanes.append(lane(events))
    return sorted(steps), [one for one in lanes if one.busy]


def lane(events: Iterable[tuple]) -> Lane:
    """One thread, from its events (start, end, name, statistics)."""
    begun, tasks, waits, operations = None, [], [], []
    for start, end, name, statistics in sorted(events, key=lambda event: event[:2]):
        if name == TASK:
            begun = start
        elif name == TASK_END:
            tasks.append((start if begun is None else begun, start))
            begun = None
        elif any(word in name for word in WAITS):
            waits.append((start, end))
        elif end > start and any(key == "hlo_op" for key, _ in statistics):
            operations.append((start, end, name))
    if begun is not None and operations:
        tasks.append((begun, max(end for _, end, _ in operations)))
    own = union(tasks + [operation[:2] for operation in operations])
    return Lane(list(without(own, union(waits))), operations)


def union(spans: Iterable[Span]) -> list[Span]:
    """The same times as spans in order that do not touch."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        elif end > start:
            out.append((start, end))
    return out


def without(spans: list[Span], holes: list[Span]) -> Iterator[Span]:
    """The times of `spans` that are in no hole. Both as `union` returns them."""
    for start, end in spans:
        for low, high in holes:
            if low < end and high > start:
                if low > start:
                    yield start, low
                start = max(start, high)
        if end > start:
            yield start, end


def crowd(steps: list[Span], lanes: list[Lane]) -> tuple[dict[int, float], dict[str, float]]:
    """How long each number of threads is busy at once, and how long each operation runs alone, within the steps.

    Returns: number of busy threads -> nanoseconds, and instruction (or DIVIDED) -> nanoseconds with one busy thread.
    """
    changes: list[tuple[float, int, str, int]] = []  # time, lane (0: the steps), instruction ("": a task), +1 or -1
    for n, spans in enumerate([steps, *(one.busy for one in lanes)]):
        changes += [(time, n, "", sign) for span in spans for time, sign in zip(span, (1, -1), strict=True)]
    for n, one in enumerate(lanes, 1):
        for start, end, name in one.operations:
            changes += [(start, n, name, 1), (end, n, name, -1)]
    busy, alone = collections.defaultdict[int, float](float), collections.defaultdict[str, float](float)
    working, last = [0] * (1 + len(lanes)), 0.0
    running: list[list[str]] = [[] for _ in working]
    for time, n, name, sign in sorted(changes, key=lambda change: (change[0], change[3])):
        if working[0] and time > last:
            at_work = [n for n in range(1, len(working)) if working[n]]
            busy[len(at_work)] += time - last
            if len(at_work) == 1:
                alone[running[at_work[0]][-1] if running[at_work[0]] else DIVIDED] += time - last
        last = time
        if not name:
            working[n] += sign
        elif sign > 0:
            running[n].append(name)
        else:
            running[n].remove(name)
    return dict(busy), dict(alone)


def named(program: str) -> dict[str, tuple[str, str]]:
    """(pass, layer and operation) of each instruction of a compiled program's text."""
    out = {}
    for instruction, path in re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', program, re.M):
        which = next((word for mark, word in PASSES if mark in path), "rest")
        path = re.sub(r"jit\(|jvp\(|transpose\(|vmap\(|\)", "", path)
        words = [word for word in path.split("/") if word not in SKIPPED and "->" not in word]
        out[instruction] = which, "/".join(words[:1] + words[1:][-3:])
    return out


def found(steps: list[Span], lanes: list[Lane], parts: dict[str, tuple[str, str]]) -> dict[str, str]:
    """A line per finding about these steps."""
    busy, alone = crowd(steps, lanes)
    total, count = sum(end - start for start, end in steps), len(steps)
    out = {}
    for n in sorted(busy, reverse=True):
        out[f"{n} threads busy" if n != 1 else "1 thread busy"] = f"{100 * busy[n] / total:.1f} % of the time"
    groups, passes = collections.defaultdict[str, float](float), collections.defaultdict[str, float](float)
    for name, time in alone.items():
        which, layer = parts.get(name, ("rest", re.sub(r"[.\d]+$", "", name))) if name != DIVIDED else ("", name)
        groups[f"{which} {layer}".strip()] += time
        passes[which or DIVIDED] += time
    text = ", ".join(f"{name} {100 * time / total:.1f} %" for name, time in ordered(passes))
    out["alone, by pass"] = text or "nothing"
    for n, (name, time) in enumerate(ordered(groups)[:MOST_ROWS], 1):
        out[f"alone, {n}"] = f"{time / count / 1e6:7.2f} ms a step, {100 * time / total:4.1f} %: {name}"
    return out


def ordered(times: dict[str, float]) -> list[tuple[str, float]]:
    """The largest first."""
    return sorted(times.items(), key=lambda item: -item[1])


def picture(lanes: list[Lane], step: Span, parts: dict[str, tuple[str, str]]) -> str:
    """The threads during one step as SVG: a row for each thread, coloured by pass."""
    start, end = step
    shown = [one for one in lanes if any(low < end and high > start for low, high in one.busy)]
    figure = Figure(figsize=(12, 0.9 + 0.6 * len(shown)), layout="constrained")
    axis = figure.subplots()
    for row, one in enumerate(shown):
        bars: dict[str, list[Span]] = {name: [] for name in COLOURS}
        bars[DIVIDED] = one.busy
        for low, high, name in one.operations:
            bars[parts.get(name, ("rest", ""))[0]].append((low, high))
        for name in (DIVIDED, "forward", "backward", "rest"):
            spans = [((low - start) / 1e6, (high - low) / 1e6) for low, high in bars[name] if start <= low < end]
            axis.broken_barh(spans, (row - 0.4, 0.8), color=COLOURS[name], linewidth=0, label=None if row else name)
    axis.set_yticks(range(len(shown)), [f"thread {n + 1}" for n in range(len(shown))])
    axis.set_xlim(0, (end - start) / 1e6)
    axis.set_xlabel("milliseconds of the step. White: waiting")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    with tempfile.TemporaryFile("w+") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        file.seek(0)
        return file.read()
