"""Two implementations of one step on the same scenes from the same weights, taking turns."""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cjepa_jax import experiment, flops, sharding
from cjepa_jax.errors import ConfigError

AGAINST = ("torch", "padded")
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first step's loss, relative
CYCLE = 4  # batches that the rounds go through


@dataclasses.dataclass
class Ours:
    """The step of a config as a function of a loader's arrays."""

    run: experiment.Experiment
    state: Any

    def step(self, arrays: dict) -> dict[str, float]:
        """One step from arrays in memory to its last result: its metrics."""
        self.state, metrics = self.run.step(self.state, sharding.put_batch(self.run.mesh, arrays))
        jax.block_until_ready(self.state)
        return {name: float(value) for name, value in metrics.items() if value.ndim == 0}


def compare(config: Any, against: str, rounds: int, compiled: bool = False) -> dict[str, str]:
    """Times `rounds` pairs of steps, one of each side in turn, and returns a line per finding.

    Args:
      against: "torch" (the same algorithm in PyTorch; `compiled`: by torch.compile) or "padded" (naive padding).

    Raises: ConfigError for what the other side cannot do, and if the losses of the first step differ.
    """
    report = _load()
    if against == "torch" and config.data.pack:
        raise ConfigError(f"data.pack = {config.data.pack}: must be 0 with --against=torch")
    ours, batches = _start(config)
    if against == "torch":
        other, other_batches = _torch(config, ours, batches[0], compiled), batches
        report |= _threads()
    else:
        padded = config.copy_and_resolve_references()
        padded.objective.type, padded.data.row_lengths, padded.data.pack = "cjepa_jax.versus_padded:Padded", (1.0,), 0
        theirs, other_batches = _start(padded)
        other = lambda arrays, _: theirs.step(arrays)["loss"]  # noqa: E731

    dtype = experiment.compute_dtype(config)
    first = None
    for ours_batch, other_batch in zip(batches, other_batches, strict=True):  # compiles every shape
        metrics = ours.step(ours_batch)
        losses = metrics["loss"], other(other_batch, metrics["learning_rate"])
        first = first or losses
    report["loss of step 1"] = f"{first[0]:.6f} here, {first[1]:.6f} {against}"
    if not np.isclose(*first, rtol=TOLERANCE[dtype]):
        raise ConfigError(f"--against={against}: not the same algorithm: {report['loss of step 1']}")

    seconds = []
    for ours_batch, other_batch in itertools.islice(itertools.cycle(zip(batches, other_batches, strict=True)), rounds):
        metrics, *mine = _timed(ours.step, ours_batch)
        _, *its = _timed(other, other_batch, metrics["learning_rate"])
        seconds.append((mine, its))
    seconds, processor = np.moveaxis(seconds, 2, 0)  # each [round, side]
    ratios, (mine, its) = seconds[:, 1] / seconds[:, 0], np.median(seconds, axis=0)
    cpu_ratio, (my_cpu, its_cpu) = np.median(processor[:, 1] / processor[:, 0]), np.median(processor, axis=0)
    useful = np.mean([count_flops(config, ours.run.mesh, ours.state, arrays)[0] for arrays in batches])
    low, high = np.percentile(ratios, [10, 90])
    name = f"{against}, compiled" if compiled else against
    report["step here"] = f"{1e3 * mine:.0f} ms median of {rounds}, {dtype}, {useful / mine / 1e9:.0f} useful GFLOP/s"
    report[f"step {name}"] = f"{1e3 * its:.0f} ms median, taking turns, {useful / its / 1e9:.0f} useful GFLOP/s"
    report["ratio"] = (
        f"{np.median(ratios):.2f} times the speed of {name} (median of pairs; 80 % in {low:.2f}-{high:.2f})"
    )
    report["processor time"] = f"{my_cpu:.2f} s here, {its_cpu:.2f} s {name}, medians; ratio {cpu_ratio:.2f}"
    return report


def count_flops(config: Any, mesh: Any, state: Any, arrays: dict) -> tuple[int, int]:
    """FLOPs of one step on a loader's arrays, nothing computed twice: of real tokens only, and with the padding."""
    plain = config.copy_and_resolve_references()
    for part in ("encoder", "predictor"):
        if part in plain.objective and "remat" in plain.objective[part]:
            plain.objective[part].remat = "none"
    batch = sharding.put_batch(mesh, arrays)
    batch = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), batch)
    objective = experiment.make_objective(plain, steps=1000)
    useful = flops.useful_step_flops(objective, state, batch, arrays["context"])
    return useful, flops.step_flops(objective, state, batch)


def _start(config) -> tuple[Ours, list[dict]]:
    run = experiment.assemble(config)
    batches = list(run.loader.iterate(0, CYCLE))
    return Ours(run, run.init(sharding.put_batch(run.mesh, batches[0]))), batches


def _processors() -> int:
    """Those that this process may run on; XLA:CPU has a thread for each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> dict[str, str]:
    """How busy the machine is before anything is measured."""
    load, processors = os.getloadavg()[0], _processors()
    report = {"load at the start": f"{load:.1f} on {processors} processors"}
    if load > processors:
        report["NOT VALID"] = "the ratio: more programs run than there are processors; repeat it when they are done"
    return report


def _threads() -> dict[str, str]:
    from cjepa_jax.versus_torch import torch  # optional

    waiting = ", ".join(f"{name}={os.environ.get(name, '')}" for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"))
    return {"threads": f"{_processors()} here, {torch.get_num_threads()} torch ({waiting})"}


def _torch(config, ours: Ours, arrays: dict, compiled: bool) -> Callable:
    if jax.default_backend() != "cpu" or ours.run.mesh.size > 1:
        raise ConfigError("--against=torch: measures on one CPU only")
    from cjepa_jax import versus_torch  # optional

    return versus_torch.Twin(ours.run.objective, config.optim, ours.state, arrays, compiled).step


def _timed(step: Callable, *arguments: Any) -> tuple[Any, float, float]:
    """The step's result, its seconds, and the seconds of all processors that this process had meanwhile."""
    start, before = time.perf_counter(), time.process_time()
    return step(*arguments), time.perf_counter() - start, time.process_time() - before
