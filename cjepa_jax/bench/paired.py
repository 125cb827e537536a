"""Two implementations of one step on the same scenes from the same weights, taking turns.

PyTorch runs in a separate process, which waits while this one computes. So each side has the memory allocator and the
threads that its users have. In one process with PyTorch our steps at ViT-S took a third longer than next to the padded
ones.
"""

import contextlib
import dataclasses
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from cjepa_jax import experiment, sharding
from cjepa_jax.bench import flops, peer
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

    Raises: ConfigError for settings that the other side does not support, and if the losses of the first step differ.
      PeerError if PyTorch's process dies.
    """
    report = peer.load()
    if against == "torch" and config.data.pack:
        raise ConfigError(f"data.pack = {config.data.pack}: must be 0 with --against=torch")
    ours, batches = _start(config)
    with contextlib.ExitStack() as stack:
        if against == "torch":
            threads, other = stack.enter_context(_torch(config, ours, batches, compiled))
            report |= threads
        else:
            other = _padded(config)
        first, seconds = _take_turns(ours, batches, other, rounds)
    dtype = experiment.compute_dtype(config)
    report["loss of step 1"] = f"{first[0]:.6f} here, {first[1]:.6f} {against}"
    if not np.isclose(*first, rtol=TOLERANCE[dtype]):
        raise ConfigError(f"--against={against}: not the same algorithm: {report['loss of step 1']}")
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


def _take_turns(ours: Ours, batches: list[dict], other: Callable, rounds: int) -> tuple[tuple[float, float], list]:
    """The losses of both sides' first step, and ((seconds, processor seconds) of ours, of the other's) of each round.

    `other` is a function of a batch's number and the learning rate: (loss, seconds, processor seconds).
    """
    losses, seconds = [], []
    for number in [*range(CYCLE), *itertools.islice(itertools.cycle(range(CYCLE)), rounds)]:
        metrics, *mine = peer.timed(ours.step, batches[number])
        loss, *its = other(number, metrics["learning_rate"])
        losses.append((metrics["loss"], loss))
        seconds.append((mine, its))
    return losses[0], seconds[CYCLE:]  # those before compile every shape


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


def _padded(config: Any) -> Callable:
    padded = config.copy_and_resolve_references()
    padded.objective.type, padded.data.row_lengths, padded.data.pack = "cjepa_jax.bench.padded_step:Padded", (1.0,), 0
    theirs, batches = _start(padded)
    return lambda number, _: peer.timed(lambda: theirs.step(batches[number])["loss"])


@contextlib.contextmanager
def _torch(config: Any, ours: Ours, batches: list[dict], compiled: bool) -> Iterator[tuple[dict[str, str], Callable]]:
    """A line about threads, and the other side for `_take_turns`, in a process that ends with the context."""
    if jax.default_backend() != "cpu" or ours.run.mesh.size > 1:
        raise ConfigError("--against=torch: measures on one CPU only")
    state = types.SimpleNamespace(**jax.device_get({"params": ours.state.params, "target": ours.state.target}))
    work = config.copy_and_resolve_references(), ours.run.steps, state, batches, compiled
    with peer.started(_twin, *work) as (threads, step):
        yield peer.threads(threads), step


def _twin(config: Any, steps: int, state: Any, batches: list[dict], compiled: bool) -> tuple[int, Callable]:
    """In the other process: its number of threads, and its step of a batch's number and a rate."""
    from cjepa_jax.bench import torch_step  # optional

    objective = experiment.make_objective(config, steps)
    twin = torch_step.Twin(objective, config.optim, state, batches[0], compiled)
    return torch_step.torch.get_num_threads(), lambda number, rate: twin.step(batches[number], rate)
