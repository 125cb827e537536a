"""What the agent of LeCun (2022) learns from experience: its critic, and a policy distilled from its planner.

Experience is tasks of the split "train", done by the world's scripted expert with noise. docs/PLANNING.md, "The agent",
has the protocol.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds.acting.base import Acting
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import control, heads, ridge
from cjepa_jax.evals.control import Tasks
from cjepa_jax.planning.agent import Agent, Modules, keep_none
from cjepa_jax.planning.mpc import MPC

HIDDEN = 256  # of both hidden layers of critic and policy
INITS = 3  # initialisations of each, whose outputs are averaged
FIT = 2000  # steps of a fit, at most
NOISE = 0.25  # standard deviation of what is added to the expert's actions
ARRIVED = 2  # frames of an episode that count after the goal is reached: most frames would show the agent at its goal
BATCH = 256  # frames that are rolled out together
ROLLED = 2000  # frames from which the world model predicts what the critic is fitted to as well


@dataclasses.dataclass
class Noisy:
    """The world's expert, with normal noise of standard deviation `scale` on its actions."""

    world: Acting
    seed: int
    scale: float = NOISE

    def start(self, tasks: Tasks) -> None:
        """A random stream per task."""
        self.goals = tasks.goals
        self.done: list[np.ndarray] = []
        self.streams = [seeds.generator(self.seed, "noise of an expert", int(i)) for i in tasks.number]

    def act(self, states: np.ndarray) -> np.ndarray:
        """One action per environment."""
        noise = np.stack([rng.normal(0, self.scale, self.world.action_size) for rng in self.streams])
        self.done.append(np.clip(self.world.expert(states, self.goals) + noise, -1, 1))
        return self.done[-1][:, None]


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # episode [n], what a critic sees [n, F], the costs that follow [n]


class Experience(NamedTuple):
    """E episodes of T + 1 frames as the agent sees them, from the frame on in which its memory is full."""

    z: np.ndarray  # float32 [E,T + 1,D]
    memory: np.ndarray  # [E,T + 1,m,D] at each frame
    goal: np.ndarray  # [E,D]
    states: np.ndarray  # [E,T + 1,S] of the simulator
    goals: np.ndarray  # [E,S]
    actions: np.ndarray  # [E,T,A] after each frame but the last
    reached: np.ndarray  # bool [E,T + 1], whether the goal was reached in a frame or before it

    @property
    def counts(self) -> np.ndarray:
        """The frames that are learned from, bool [E,T + 1]: until ARRIVED frames after the goal is reached.

        None of an episode that does not reach it: its costs end with the clip."""
        before = np.zeros_like(self.reached[:, :ARRIVED])
        return ~np.concatenate([before, self.reached[:, :-ARRIVED]], 1) & self.reached.any(1, keepdims=True)

    def costs(self, modules: Modules) -> np.ndarray:
        """The sum of the intrinsic costs of the frames that follow each one until the goal is reached, [E,T + 1].

        Without that end the sum would grow with the time that is left, which the critic does not see."""
        each = np.asarray(jax.vmap(modules.intrinsic)(jnp.asarray(self.z), jnp.asarray(self.goal)))
        later = np.where(self.reached, 0, each)[:, ::-1].cumsum(1)[:, ::-1]
        return np.concatenate([later[:, 1:], np.zeros_like(later[:, :1])], 1)

    def inputs(self) -> np.ndarray:
        """What critic and policy see, [E,T + 1, (1 + m + 1) D]."""
        goal = np.broadcast_to(self.goal[:, None], self.z.shape)
        return np.asarray(_join(self.memory, self.z, goal))


def experience(
    world: Acting, modules: Modules, episodes: int, steps: int, seed: int, task: str = "any", scale: float = NOISE
) -> Experience:
    """Plays the first tasks of a kind with the noisy expert. Raises ConfigError for a world without an expert."""
    if not world.has_expert:
        raise ConfigError(f"--agent: {type(world).__name__} has no expert to learn the critic from")
    tasks, expert = control.draw_tasks(world, task, episodes), Noisy(world, seed, scale)
    trace = control.play(world, tasks, expert, steps).states
    perceive, remember = jax.jit(modules.perceive), jax.jit(modules.remember)
    goal = np.asarray(perceive(modules.params, world.seen(tasks.goals, -1)))
    memory = jnp.zeros((episodes, modules.slots, goal.shape[1]))
    latents, memories = [], []
    for frame in range(steps + 1):
        latents.append(np.asarray(perceive(modules.params, world.seen(trace[:, frame], frame))))
        memory = remember(memory, latents[-1], frame)
        memories.append(np.asarray(memory))
    full = max(modules.slots - 1, 0)
    z, kept, actions = (np.stack(x, 1)[:, full:] for x in (latents, memories, expert.done))
    reached = np.maximum.accumulate(world.reached(trace[:, full:], tasks.goals[:, None]), 1)
    if steps - full < 2 or reached.any(1).mean() < 0.5:
        text = f"the expert reaches the goal in {reached.any(1).sum()} of {episodes} tasks"
        raise ConfigError(f"--steps={steps}: too few to learn a critic from, {text}")
    known = dict(states=trace[:, full:], goals=tasks.goals, actions=actions, reached=reached)
    return Experience(z, kept, goal, **known)


def with_critic(modules: Modules, seen: Experience, seed: int, steps: int = FIT, horizon: int = 0) -> Modules:
    """The modules with a critic that is fitted to the costs that followed.

    A planner asks it about predicted latents. So it is fitted to true ones and to those that the world model predicts
    up to `horizon` frames ahead with the actions that were done, from ROLLED frames."""
    costs, counts = seen.costs(modules), seen.counts
    rows: list[Rows] = [(np.argwhere(counts)[:, 0], seen.inputs()[counts], costs[counts])]
    if horizon:
        rows.append(_rolled(modules, seen, costs, horizon, seed))
    episode, x, y = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = episode.argsort(kind="stable")  # see _fit
    fitted = _fit(x[order], y[order, None], seed, steps)
    return dataclasses.replace(modules, critic=_critic, heads=(modules.heads or {}) | {"critic": fitted})


def _rolled(modules: Modules, seen: Experience, costs: np.ndarray, horizon: int, seed: int) -> Rows:
    """What the critic is asked about after 1 .. horizon predictions: episodes [n], inputs [n, F], costs [n]."""
    times = seen.z.shape[1]
    horizon = min(horizon, times - 1)
    starts = np.argwhere(seen.counts[:, : times - horizon])
    rng = seeds.generator(seed, "frames from which the world model predicts")
    episode, frame = starts[rng.permutation(len(starts))[:ROLLED]].T
    later = frame[:, None] + np.arange(horizon)
    world = functools.partial(jax.jit(jax.vmap(modules.world, (None, 0, 0, 0))), modules.params)
    given = seen.memory[episode, frame], seen.z[episode, frame], seen.actions[episode[:, None], later][:, None]
    parts = [np.asarray(world(*(x[i : i + BATCH] for x in given))) for i in range(0, len(episode), BATCH)]
    z = np.concatenate(parts)[:, 0]
    wide = [np.broadcast_to(x[:, None], (*z.shape[:2], *x.shape[1:])) for x in (given[0], seen.goal[episode])]
    rows = episode[:, None], later + 1
    counts = seen.counts[rows]
    return (
        np.broadcast_to(rows[0], counts.shape)[counts],
        np.asarray(_join(wide[0], z, wide[1]))[counts],
        costs[rows][counts],
    )


def with_policy(
    modules: Modules, mpc: MPC, size: int, seen: Experience, count: int, seed: int, steps: int = FIT
) -> Modules:
    """The modules with a policy that is fitted to the first actions of `count` plans, from frames of `seen`."""
    rng = seeds.generator(seed, "frames of which plans are distilled")
    every = np.argwhere(seen.counts)
    episode, frame = every[np.sort(rng.choice(len(every), min(count, len(every)), replace=False))].T
    mean = np.zeros((len(episode), mpc.horizon, size), np.float32)
    planner = Agent(modules, mpc, size, seed)
    drawn = seen.memory[episode, frame], seen.z[episode, frame], seen.goal[episode]
    actions = planner.plan(np.arange(len(episode)), *drawn, mean)[:, 0]
    fitted = _fit(seen.inputs()[episode, frame], actions, seed, steps)
    return dataclasses.replace(modules, policy=_policy, heads=(modules.heads or {}) | {"policy": fitted})


class Learned(NamedTuple):
    """The agent and its ablations."""

    players: dict[str, tuple[Modules, int]]  # name -> modules and mode
    scores: dict[str, float]  # R² of the costs that follow: see critic_scores


def learn(
    world: Acting,
    modules: Modules,
    mpc: MPC,
    seed: int,
    episodes: int,
    plans: int,
    steps: int,
    task: str = "any",
    test: int = 100,
    fit: int = FIT,
) -> Learned:
    """Fits critic and policy to `episodes` tasks of `steps` frames and to `plans` plans. Scores the critic on `test`
    tasks of the split "eval", which the expert does without noise. All are of the kind `task`. `fit` is the most steps
    of each fit.

    Raises: ConfigError for a world without an expert.
    """
    own, new = (
        dataclasses.replace(world, split=split, frames=2, count=count)
        for split, count in (("train", episodes), ("eval", test))
    )
    seen = experience(own, modules, episodes, steps, seed=seed, task=task)
    judged = with_critic(modules, seen, seed, fit, mpc.horizon)
    whole = with_policy(judged, mpc, world.action_size, seen, count=plans, seed=seed, steps=fit)
    others = experience(new, modules, test, steps, seed=seed, task=task, scale=0.0)
    scores = critic_scores(judged, world, seen, others)
    players = {
        "agent, mode 2": (whole, 2),
        "agent, mode 1": (whole, 1),
        "mode 2 without critic": (dataclasses.replace(whole, critic=None), 2),
    }
    if modules.slots:
        # Not an agent without memory: world model and critic were trained with true first frames there.
        players["mode 2, present as memory"] = (dataclasses.replace(whole, remember=keep_none), 2)
    return Learned(players, scores)


def critic_scores(modules: Modules, world: Acting, fitted: Experience, seen: Experience) -> dict[str, float]:
    """R² of the costs that follow under the expert, on new tasks, in frames before the goal is reached: of the critic,
    and of a line through the straight distance, whose slope is fitted to the experience of the critic."""
    on_the_way = ~seen.reached & seen.counts
    wanted = seen.costs(modules)[on_the_way]
    goal = np.broadcast_to(seen.goal[:, None], seen.z.shape)
    critic: Any = modules.critic
    predicted = np.asarray(critic(modules.heads, seen.memory, seen.z, goal))[on_the_way]
    both = (fitted, fitted.counts), (seen, on_the_way)
    far = [world.away(each.states, each.goals[:, None])[rows][:, None] for each, rows in both]
    costs = fitted.costs(modules)[fitted.counts][:, None]
    line = ridge.r2(far[0], costs, far[1], wanted[:, None])[0]
    error = np.square(predicted - wanted).sum() / np.square(wanted - costs.mean()).sum()
    return {"critic": float(1 - error), "straight distance": float(line)}


def _join(memory, z, goal):
    """[..., (1 + m + 1) D] of memory [...,m,D], z and goal [...,D]."""
    return jnp.concatenate([z, memory.reshape(*memory.shape[:-2], memory.shape[-2] * memory.shape[-1]), goal], -1)


def _fit(x: np.ndarray, y: np.ndarray, seed: int, steps: int) -> dict[str, Any]:
    """INITS networks of two hidden layers, fitted to standardised rows.

    The number of steps is selected on the last fifth of the rows. Rows in the order of their episodes share one episode
    with the others at most."""
    (centre, scale), (middle, spread) = ridge.moments(x), ridge.moments(y)
    widths, layers = (x.shape[1], HIDDEN, HIDDEN, y.shape[1]), []
    for index, (rows, columns) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        key = jax.random.fold_in(jax.random.key(seed), index)
        kernel = rows**-0.5 * jax.random.normal(key, (INITS, rows, columns))
        layers.append((kernel, jnp.zeros((INITS, columns))))
    given = ((x - centre) / scale).astype(np.float32), ((y - middle) / spread).astype(np.float32)
    fitted = heads.learn(_layers, layers, *given, seed=seed, steps=steps)
    moments = {"centre": centre, "scale": scale, "middle": middle, "spread": np.where(np.isinf(spread), 0, spread)}
    return {"layers": fitted} | {name: jnp.asarray(value, jnp.float32) for name, value in moments.items()}


def _layers(params, x):
    for weights, bias in params[:-1]:
        x = jax.nn.gelu(x @ weights + bias)
    return x @ params[-1][0] + params[-1][1]


def _output(head, memory, z, goal):
    x = (_join(memory, z, goal) - head["centre"]) / head["scale"]
    return head["middle"] + head["spread"] * jax.vmap(_layers, (0, None))(head["layers"], x).mean(0)


def _critic(fitted, memory, z, goal):
    return _output(fitted["critic"], memory, z, goal)[..., 0]


def _policy(fitted, memory, z, goal):
    return _output(fitted["policy"], memory, z, goal)
