"""Measures how fast a config's source yields scenes, on one core and without JAX's help.

python -m cjepa_jax.data.bench --config=configs/worlds/balls.py [--seconds=5] [--config.data.size=224 ...]

Three things are timed: the source's scene, the same with one counterfactual (a different object is removed each
time), and the whole scene as training sees it (SceneMap, with the config's intervened scene). The process runs on one
core. The rate is that of the median over runs of consecutive scenes. The share of time for which this process had the
core is reported next to it. On a machine with other work, the rate per second of CPU time is the fairer number.

The command then reports how much of the context encoder's rows is padding. It uses the contexts of the scenes that it
has read. It compares the config's layout with packed ones (data.pack = 1, 2, ...) and suggests data.row_lengths for
each. --shards is the number of parts that a batch is laid out in: the devices that share the scenes x
train.accumulate.
"""


def _flags():
    from absl import flags

    flags.DEFINE_float("seconds", 5.0, "seconds for each measurement", lower_bound=0.01)
    flags.DEFINE_string("split", "train", "the split that the scenes are from")
    flags.DEFINE_integer("shards", 1, "parts that a batch is laid out in: devices x train.accumulate", lower_bound=1)


if __name__ == "__main__":
    from cjepa_jax import cli

    raise SystemExit(cli.run("cjepa_jax.data.bench", _flags))

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from cjepa_jax.data import assemble, kinds, pipeline
from cjepa_jax.data.materialise import packing_stats

RUN = 8  # consecutive scenes, timed together
MOST_BATCHES, COLD = 16, 5  # different batches, and runs from the disk


def main(config, _) -> int:
    """Prints the machine and one line per measurement. Nothing is written."""
    core = one_core()
    print(f"{'machine':24} {processor()}, {os.cpu_count()} cores, of which {core}, Python {platform.python_version()}")
    versions = f"numpy {np.__version__}, OpenCV {cv2.__version__}, pymunk {metadata.version('pymunk')}"
    print(f"{'packages':24} {versions}")
    for name, text in report(config, flags.FLAGS.split, flags.FLAGS.seconds, flags.FLAGS.shards):
        print(f"{name:24} {text}", flush=True)
    return 0


def report(config, split: str, seconds: float, shards: int = 1) -> Iterator[tuple[str, str]]:
    """Yields the name and the result of each measurement. `seconds` is the time for each one."""
    packing_stats.check_shards(config, shards)
    source: Any = assemble.make_source(config, split)
    kinds.require(source, kinds.CLIPS, "data.bench")
    scenes = assemble.make_scenes(config, source, *assemble.patch_and_tubelet(config))
    data = config.data
    shape = f"{data.size} x {data.size} x {data.frames} frames"
    if kinds.of(source) == "slots":
        shape = f"{data.frames} frames of {source.slots} slots of width {source.width}"
    yield "source", f"{data.source}, {split} split, {len(source)} scenes, {shape}"
    work = {"scene": lambda i: source[i]}
    if source.can_rerender:
        work["with a counterfactual"] = lambda i: source.intervene(i, one_of(objects_of(source, i), i))
    contexts = []  # number of context tokens of each scene
    work[f"scene map, {data.intervened}"] = lambda i: contexts.append(scenes(i, 0)["context"].sum())
    if hasattr(source, "windows"):
        yield from together(config, source, scenes, seconds)
    for n, (name, make) in enumerate(work.items()):
        # Each measurement uses different scenes if there are enough, since a world caches the start of recent scenes.
        yield name, measure(make, len(source), seconds, n * len(source) // len(work))
    if kinds.of(source) in kinds.FILMED:  # slots have no encoder whose rows are packed
        yield from packing_stats.report(config, np.array(contexts), scenes.tokens, shards)


def together(config, source, scenes, seconds: float) -> Iterator[tuple[str, str]]:
    """Yields the rates of scenes that are read `train.batch` at a time, in the order of training."""
    count, size = config.train.batch, len(source)
    text = f"{count} at once"

    def numbers(i: int) -> np.ndarray:
        return np.array([pipeline.scene_at(i * count + row, size, config.seed)[0] for row in range(count)])

    drawn = [numbers(i) for i in range(MOST_BATCHES)]
    windows = lambda i: source.windows(drawn[i % len(drawn)])  # noqa: E731
    yield f"windows, {text}", measure(windows, len(drawn), seconds, each=count)
    if scenes.reads_batches:
        epochs = np.zeros(count, int)
        batches = lambda i: scenes.batch(drawn[i % len(drawn)], epochs)  # noqa: E731
        yield f"scene map, {text}", measure(batches, len(drawn), seconds, each=count)
    times = []
    for i in range(COLD):
        source.forget()
        begun = time.perf_counter()
        windows(i)
        times.append(time.perf_counter() - begun)
    median = float(np.median(times))
    text = f"median of {COLD} runs of {count}, pages dropped before each"
    yield "windows, from the disk", f"{count / median:.0f} clips/s ({text})"


def one_core() -> str:
    """Restricts this process and OpenCV to one core, if the system allows it. Returns a text that names the core."""
    cv2.setNumThreads(1)
    if not hasattr(os, "sched_setaffinity"):
        return "any one is used (this system pins no process)"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"number {core} is used"


def objects_of(source, i: int) -> int:
    """The number of objects of scene i that the source can remove."""
    return source.slots if kinds.of(source) == "slots" else len(source[i]["masks"])


def one_of(objects: int, i: int) -> np.ndarray:
    """Selects object i modulo the number of objects: bool [objects]."""
    return np.arange(objects) == i % max(objects, 1)


def measure(make: Callable[[int], object], count: int, seconds: float, first: int = 0, each: int = 1) -> str:
    """Times make(first), make(first + 1), ..., modulo `count`, for at least this number of seconds and 3 runs.

    `each`: clips of one call."""
    for i in range(min(2, count)):  # first calls import and allocate
        make((first - 1 - i) % count)
    runs, begun, i = [], time.perf_counter(), first
    while len(runs) < 3 or time.perf_counter() - begun < seconds:
        wall, own = time.perf_counter(), time.process_time()
        for _ in range(RUN):
            make(i % count)
            i += 1
        runs.append((time.perf_counter() - wall, time.process_time() - own))
    (median, own), clips = np.median(runs, 0), RUN * each
    taken = f"{1e3 * median / clips:.{2 if each == 1 else 4}f} ms median of {len(runs)} runs of {clips}"
    return (
        f"{clips / median:.0f} clips/s ({taken}), {clips / own:.0f} per second of its own work, "
        f"{100 * own / median:.0f} % of the core"
    )


def processor(file: str = "/proc/cpuinfo") -> str:
    """The processor's name, as the system reports it."""
    if Path(file).is_file():
        for line in Path(file).read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
