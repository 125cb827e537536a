"""Implementations of one step on the same scenes from the same weights, taking turns.

PyTorch runs in a separate process, which waits while this one computes. So each side has the memory allocator and the
threads that its users have. In one process with PyTorch our steps at ViT-S took a third longer than next to the padded
ones.
"""

import contextlib
import dataclasses
import itertools
import platform
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cjepa_jax import experiment, sharding
from cjepa_jax.bench import flops, peer
from cjepa_jax.data.bench import processor
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import memory

OWN = ("ijepa",)  # peers with another algorithm, whose losses are not compared
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


def compare(config: Any, against: Sequence[str], rounds: int) -> dict[str, str]:
    """Times `rounds` rounds of steps, one of each side in turn, and returns a line per finding.

    Args:
      against: names of peer.PEERS. "torch" is the same algorithm in PyTorch, "torch-compile" the same by torch.compile,
        "ijepa" the step of the public I-JEPA code on the same images (torch_ijepa.py), "padded" ours with naive
        padding.

    Raises: ConfigError for settings that another side does not support, and if the losses of the first step differ.
      PeerError if PyTorch's process dies.
    """
    report = peer.load() | {"machine": machine()}
    if config.data.pack and set(against) != {"padded"}:
        raise ConfigError(f"data.pack = {config.data.pack}: must be 0 with --against=torch")
    ours, batches = _start(config)
    dtype = experiment.compute_dtype(config)
    with contextlib.ExitStack() as stack:
        others = {}
        for name in against:
            if name == "padded":
                others[name] = _padded(config)
                continue
            about, others[name] = stack.enter_context(_torch(config, ours, batches, name))
            report |= about
        first, seconds = _take_turns(ours, batches, list(others.values()), rounds)
    for name, loss in zip(others, first[1:], strict=True):
        if name in OWN:
            continue
        report[f"loss of step 1, {name}"] = text = f"{first[0]:.6f} here, {loss:.6f} {name}"
        if not np.isclose(first[0], loss, rtol=TOLERANCE[dtype]):
            raise ConfigError(f"--against={name}: not the same algorithm: {text}")
    seconds, working = np.moveaxis(seconds, 2, 0)  # each [round, side]
    useful = np.mean([count_flops(config, ours.run.mesh, ours.state, arrays)[0] for arrays in batches])
    mine, busy = np.median(seconds[:, 0]), np.median(working[:, 0])
    rate = f"{useful / mine / 1e9:.0f} useful GFLOP/s"
    report["step here"] = f"{1e3 * mine:.0f} ms median of {rounds}, {dtype}, {rate}, processor time {busy:.2f} s"
    for side, name in enumerate(others, 1):
        ratios, its = seconds[:, side] / seconds[:, 0], np.median(seconds[:, side])
        low, high = np.percentile(ratios, [10, 90])
        cpu = f"{np.median(working[:, side] / working[:, 0]):.2f} times by processor time"
        report[f"against {name}"] = (
            f"{np.median(ratios):.2f} times its speed (median of pairs; 80 % in {low:.2f}-{high:.2f}), {cpu}; "
            f"its step {1e3 * its:.0f} ms median, processor time {np.median(working[:, side]):.2f} s"
        )
    return report


def machine() -> str:
    """This machine's processor, cores and versions, for a table of ratios."""
    return f"{processor()}, {peer.processors()} cores, Python {platform.python_version()}, JAX {jax.__version__}"


def _take_turns(ours: Ours, batches: list[dict], others: Sequence[Callable], rounds: int) -> tuple[list[float], list]:
    """The losses of all sides' first step, ours first, and their (seconds, processor seconds) in each round.

    The others are functions of a batch's number and the learning rate: (loss, seconds, processor seconds).
    """
    losses, seconds = [], []
    for done, number in enumerate([*range(CYCLE), *itertools.islice(itertools.cycle(range(CYCLE)), rounds)]):
        metrics, *mine = peer.timed(ours.step, batches[number])
        found = [other(number, metrics["learning_rate"]) for other in others]
        losses.append([metrics["loss"], *(loss for loss, *_ in found)])
        seconds.append([mine, *(its for _, *its in found)])
        if done < CYCLE:  # as the loop of a training does after it has compiled
            memory.set_aside()
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
def _torch(config: Any, ours: Ours, batches: list[dict], name: str) -> Iterator[tuple[dict[str, str], Callable]]:
    """Lines about PyTorch, and the other side for `_take_turns`, in a process that ends with the context."""
    if jax.default_backend() != "cpu" or ours.run.mesh.size > 1:
        raise ConfigError(f"--against={name}: measures on one CPU only")
    state = types.SimpleNamespace(**jax.device_get({"params": ours.state.params, "target": ours.state.target}))
    work = config.copy_and_resolve_references(), ours.run.steps, state, batches, name
    with peer.started(_twin, *work) as ((threads, version, about), step):
        lines = peer.threads(threads) | {"PyTorch": version}
        yield lines | ({f"about {name}": about} if about else {}), step


def _twin(config: Any, steps: int, state: Any, batches: list[dict], name: str) -> tuple[tuple, Callable]:
    """In the other process: PyTorch's threads, its version and a line, and its step of a batch's number and a rate."""
    from cjepa_jax.bench import torch_step  # optional

    objective: Any = experiment.make_objective(config, steps)
    torch = torch_step.torch
    if name == "ijepa":
        from cjepa_jax.bench import torch_ijepa

        other = torch_ijepa.Twin(objective, config.optim, state, batches, config.seed)
        return (torch.get_num_threads(), torch.__version__, other.about), other.step
    twin = torch_step.Twin(objective, config.optim, state, batches[0], compiled=name == "torch-compile")
    return (torch.get_num_threads(), torch.__version__, ""), lambda number, rate: twin.step(batches[number], rate)
