"""Plans per second with a world model, alternating with PyTorch: a predictor of LeWorldModel's kind, searched by CEM.

python -m cjepa_jax.bench --planning [--against=torch] [--width=64 --depth=3 --samples=128 --iterations=10 ...]

The weights are random, because their values change no time. With --against=torch both sides have the same weights, and
must agree on one plan with the same noise first. PyTorch runs the search of stable-worldmodel's solver, in a separate
process, without gradients. Both batch modes are measured: all environments in one batch, and one after the other.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.bench import peer
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.dynamics import Causal
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.costs import autoregressive, to_goal
from cjepa_jax.planning.solve import solve
from cjepa_jax.runtime import ending

TOLERANCE = 1e-3  # of the plan on which both sides must agree, in actions of a standard deviation near 1
MOST = 1 << 28
OPTIONS = {  # name -> default, least, what it is
    "width": (64, 4, "D of the latents"),
    "depth": (3, 1, "blocks of the predictor"),
    "heads": (4, 1, "heads of a block, of 16 numbers each"),
    "samples": (128, 2, "candidates of an iteration"),
    "elites": (16, 2, "candidates that the next distribution is fitted to"),
    "iterations": (10, 1, "iterations of a search"),
    "horizon": (5, 1, "planned actions"),
    "actions": (10, 1, "numbers of an action (Push-T: 5 frames of 2)"),
    "environments": (8, 1, "searches at a time"),
    "rounds": (10, 3, "measured searches of each side"),
}


@dataclasses.dataclass(frozen=True)
class FixedNoise(CEM):
    """CEM whose noise is given, [I, S, H, A]."""

    given: Any = dataclasses.field(default=None, compare=False)

    def ask(self, state: tuple, key: jax.Array, step: jax.Array) -> jax.Array:
        """See planning.base.Sampler."""
        mean, std = state[:2]
        return self.candidates(mean, std, self.given[step])


@dataclasses.dataclass(frozen=True)
class Task:
    """A predictor with its weights, starts and goals of E environments. `sizes`: OPTIONS and their values."""

    sizes: dict[str, int]

    @functools.cached_property
    def model(self) -> Causal:
        sizes = self.sizes
        return Causal(depth=sizes["depth"], heads=sizes["heads"], head=16, hidden=4 * sizes["width"])

    @functools.cached_property
    def params(self) -> Any:
        """Random, with gates that are not 0, as after training."""
        latents = jnp.zeros((1, 3, self.sizes["width"])), jnp.zeros((1, 3, self.sizes["actions"]))
        fresh = self.model.init(jax.random.key(0), *latents)["params"]
        leaves, tree = jax.tree.flatten(fresh)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noisy = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, noisy)

    @functools.cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Latents of starts and goals, float32 [E, D] each."""
        shape = 2, self.sizes["environments"], self.sizes["width"]
        starts, goals = np.array(jax.random.normal(jax.random.key(2), shape))
        return starts, goals

    @property
    def search(self) -> dict[str, Any]:
        """The planner's settings."""
        return {name: self.sizes[name] for name in ("samples", "elites", "iterations")}

    def solver(self, batch: int, planner: CEM) -> Callable[[int], np.ndarray]:
        """A function of a round's number: plans [E, H, A] of all environments, `batch` at a time (0: all)."""
        sizes, (starts, goals) = self.sizes, self.places

        def step(params, latents, actions):
            return self.model.apply({"params": params}, latents, actions)[:, -1]

        @jax.jit
        def plans(params, key):
            cost = to_goal(autoregressive(functools.partial(step, params), self.model.history))
            mean = jnp.zeros((sizes["environments"], sizes["horizon"], sizes["actions"]))
            context = jnp.asarray(starts)[:, None], jnp.zeros((len(starts), 0, sizes["actions"]))
            return solve(
                planner, cost, key=key, index=jnp.arange(len(starts)), context=context, goal=goals, mean=mean,
                batch=batch,
            ).actions  # fmt: skip

        return lambda number: np.asarray(plans(self.params, jax.random.key(number)))


def compare(sizes: dict[str, int], against: str = "") -> dict[str, str]:
    """Measures searches and returns a line per finding.

    Raises: ConfigError for values outside their limits, without torch, or if the two sides' plans differ. PeerError if
      PyTorch's process dies.
    """
    for name, (_, least, _) in OPTIONS.items():
        if not least <= sizes[name] <= 1 << 20:
            raise ConfigError(f"--{name}={sizes[name]}: must be within {least} and {1 << 20}")
    work = math.prod(sizes[name] for name in ("environments", "samples", "horizon", "width"))
    if work > MOST:
        raise ConfigError(f"--samples={sizes['samples']}: {work} latents' numbers at a time, at most {MOST}")
    task, report = Task(sizes), peer.load()
    CEM(**task.search)  # refused here if samples and elites do not fit
    report["device"] = jax.devices()[0].device_kind
    report["search"] = ", ".join(f"{name} {value}" for name, value in sizes.items() if name != "rounds")
    with contextlib.ExitStack() as stack:
        other = None
        if against:
            lines, other = stack.enter_context(_other(task))
            report |= lines | _agree(task, other)
        for name, batch in (("in one batch", 0), ("one by one", 1)):
            ours = task.solver(batch, CEM(**task.search))
            ours(0), other and other("time", batch, 0)  # which compiles
            mine, its = [], []
            for number in range(1, 1 + sizes["rounds"]):
                mine.append(peer.timed(ours, number)[1])
                if other:
                    its.append(other("time", batch, number)[1])
            report[name] = _rates(sizes, np.median(mine))
            if its:
                ratios = np.array(its) / np.array(mine)
                low, high = np.percentile(ratios, [10, 90])
                report[f"{name}, {against}"] = _rates(sizes, np.median(its))
                report[f"{name}, ratio"] = (
                    f"{np.median(ratios):.2f} times the speed of {against} (median of pairs; 80 % in "
                    f"{low:.2f}-{high:.2f})"
                )
    return report


def _rates(sizes: dict[str, int], seconds: float) -> str:
    count = sizes["environments"]
    steps = count * sizes["samples"] * sizes["iterations"] * sizes["horizon"]
    return f"{1e3 * seconds:.1f} ms, {count / seconds:.1f} solves/s, {steps / seconds:,.0f} steps of the model/s"


@contextlib.contextmanager
def _other(task: Task) -> Iterator[tuple[dict[str, str], Callable]]:
    if jax.default_backend() != "cpu":
        raise ConfigError("--against=torch: measures on a CPU only")
    from cjepa_jax.bench import torch_planning

    weights = jax.device_get(task.params)
    with peer.started(torch_planning.serve, task.sizes, weights, task.places) as (threads, ask):
        yield peer.threads(threads), ask


def _agree(task: Task, other: Callable) -> dict[str, str]:
    """Requires that both sides find the same plan from the same noise."""
    sizes = task.sizes
    shape = sizes["iterations"], sizes["samples"], sizes["horizon"], sizes["actions"]
    noise = jax.random.normal(jax.random.key(3), shape)
    ours = task.solver(0, FixedNoise(**task.search, given=noise))(0)
    theirs, *_ = other("plan", 0, np.array(noise))
    worst = float(np.abs(ours - theirs).max())
    if not worst <= TOLERANCE:
        raise ConfigError(f"--against=torch: not the same search: plans differ by {worst:.2g}")
    return {"plans differ by": f"{worst:.1e} at most, from the same noise"}


def main(argv: list[str]) -> int:
    """Prints a line per finding. Returns 0, or the exit code of an error, which is one line."""
    return ending.guard(lambda: _run(argv))


def _run(argv: list[str]) -> None:
    parser = ending.Parser(prog="python -m cjepa_jax.bench --planning", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--against", choices=("torch",), default="", help="alternate with PyTorch")
    for name, (default, _, about) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{about} (default: {default})")
    args = vars(parser.parse_args(argv))
    try:
        for name, value in compare({name: args[name] for name in OPTIONS}, args["against"]).items():
            print(f"{name:24} {value}")
    except ConfigError as error:
        raise ConfigError(str(error).replace("planner.", "--")) from error
