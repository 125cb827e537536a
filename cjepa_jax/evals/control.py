"""Control: how often does a policy reach its goals? Two definitions of success, floors, ceilings and films.

Episodes are the world's tasks. They belong to the split "test" with the evaluation's own seed, so no training run has
seen them. All policies play the same tasks.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from scipy import stats

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds.acting.base import Acting
from cjepa_jax.evals.gymnasium import Environment
from cjepa_jax.planning.agent import Agent, Modules
from cjepa_jax.planning.costs import unroll
from cjepa_jax.planning.mpc import MPC, Controller, WorldModel

World = Acting | Environment
WEAK = "weak"  # a policy of some worlds
SIMULATOR = "true simulator"  # the row of a planner with it
FILM_GOAL = 90  # of 255: how much the goal's image is faded in a film


class Tasks(NamedTuple):
    """E tasks of a world. The states of an Environment are records, so D is missing there."""

    number: np.ndarray  # int [E] their numbers
    starts: np.ndarray  # [E,D]
    goals: np.ndarray  # [E,D]


class Trials(NamedTuple):
    """What a policy did in E tasks, in T frames."""

    states: np.ndarray  # [E,T + 1,D]
    reached: np.ndarray  # bool [E,T] after each action

    @property
    def once(self) -> np.ndarray:
        """Success by the published rule: the goal was reached in any frame. bool [E]."""
        return np.asarray(self.reached.any(1))

    @property
    def end(self) -> np.ndarray:
        """Success in the last frame, bool [E]."""
        return self.reached[:, -1]


class Policy(Protocol):
    """What acts in E environments at once. One with a method `watch` is told each action and the states after it."""

    def start(self, tasks: Tasks) -> None:
        """New tasks."""

    def act(self, states: np.ndarray) -> np.ndarray:
        """The next actions [E,k,A] in states [E,D]. All k are done before the next call."""


def drawn_from(world: World, seed: int, episodes: int) -> World:
    """The world with the evaluation's seed, for this many tasks."""
    if isinstance(world, Environment):
        return dataclasses.replace(world, seed=seed)
    return dataclasses.replace(world, split="test", seed=seed, frames=2, count=episodes)


def draw_tasks(world: World, kind: str, episodes: int) -> Tasks:
    """The first tasks of a kind. Raises DataError for an unknown kind."""
    drawn = [world.task(i, kind) for i in range(episodes)]
    return Tasks(np.arange(episodes), np.stack([t.start for t in drawn]), np.stack([t.goal for t in drawn]))


def play(world: World, tasks: Tasks, policy: Policy, steps: int, tick: Callable[[int], Any] = lambda n: None) -> Trials:
    """Plays all tasks for `steps` frames. `tick` is told how many frames were played since its last call."""
    policy.start(tasks)
    watch = getattr(policy, "watch", lambda states, actions: None)
    step, states = world.stepper(tasks.starts), [tasks.starts]
    while len(states) <= steps:
        actions = policy.act(states[-1])[:, : steps + 1 - len(states)]
        for t in range(actions.shape[1]):
            states.append(step(actions[:, t]))
            watch(states[-1], actions[:, t])
        tick(actions.shape[1])
    trace = np.stack(states, 1)
    return Trials(trace, world.reached(trace[:, 1:], tasks.goals[:, None]))


@dataclasses.dataclass
class Scripted:
    """A policy that is a function of states and goals: world.straight, world.expert."""

    rule: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def start(self, tasks: Tasks) -> None:
        """Remembers the goals."""
        self.goals = tasks.goals

    def act(self, states: np.ndarray) -> np.ndarray:
        """One action per environment."""
        return self.rule(states, self.goals)[:, None]


@dataclasses.dataclass
class Random:
    """Uniform actions. scale 0 does nothing."""

    size: int
    seed: int
    scale: float = 1.0

    def start(self, tasks: Tasks) -> None:
        """A random stream per task."""
        self.streams = [seeds.generator(self.seed, "random actions of a task", int(i)) for i in tasks.number]

    def act(self, states: np.ndarray) -> np.ndarray:
        """One action per environment."""
        return self.scale * np.stack([rng.uniform(-1, 1, (1, self.size)) for rng in self.streams])


@dataclasses.dataclass
class Planned:
    """A policy that plans from what `see` shows of the states: images for a world model, the states for a simulator.

    see: (states, number of the frame) -> observations. A goal has the number -1.
    """

    controller: Controller | Agent
    see: Callable[[np.ndarray, int], np.ndarray]

    def start(self, tasks: Tasks) -> None:
        """Encodes the goals."""
        self.frame = 0
        self.controller.start(self.see(tasks.goals, -1), tasks.number)

    def act(self, states: np.ndarray) -> np.ndarray:
        """The first actions of the plan."""
        actions = self.controller.act(self.see(states, self.frame))
        self.frame += actions.shape[1]
        return actions


@dataclasses.dataclass
class Behaving:
    """One of the world's policies (Acting.behave), with draws of each task's own."""

    world: Acting
    name: str
    seed: int

    def start(self, tasks: Tasks) -> None:
        """A policy per task."""
        drawn = [seeds.generator(self.seed, "policy of a task", int(i)) for i in tasks.number]
        self.rules = [self.world.behave(self.name, *each) for each in zip(drawn, tasks.starts, strict=True)]

    def act(self, states: np.ndarray) -> np.ndarray:
        """One action per environment."""
        return np.stack([rule(state) for rule, state in zip(self.rules, states, strict=True)])[:, None]


@dataclasses.dataclass
class Imitated:
    """A trained policy that sees an image and the goal's. It does the first `receding` of the actions that it gives.

    actions: (frames, goals, proprio) -> [E,n,A], as objectives.base.Imitator.act. proprio: whether it is given.
    """

    world: Acting
    actions: Callable[..., Any]
    receding: int = 1
    proprio: bool = False

    def start(self, tasks: Tasks) -> None:
        """Draws the goals."""
        self.frame, self.goals = 0, self.world.seen(tasks.goals, -1)

    def act(self, states: np.ndarray) -> np.ndarray:
        """The first actions of a chunk."""
        own = self.world.felt(states) if self.proprio else None
        actions = np.asarray(self.actions(self.world.seen(states, self.frame), self.goals, own))[:, : self.receding]
        self.frame += actions.shape[1]
        return actions


def by_model(world: World, model: WorldModel, mpc: MPC, seed: int, source: Any = None) -> Planned:
    """Planning with a world model that sees images uint8 [E,H,W,C].

    source: the recorded episodes that it was trained on, if they are not the world's own. `mpc.block` is their stride.
    """
    recorded: Callable[[Any], Any] | None = None
    if source is not None:
        recorded = functools.partial(as_recorded, source, world.action_size)
    if isinstance(world, Environment):
        recorded, mpc = world.as_recorded, dataclasses.replace(mpc, block=world.stride)
    if recorded:
        predict, units = model.predict, recorded
        model = dataclasses.replace(model, predict=lambda params, context, a: predict(params, context, units(a)))
    return Planned(Controller(model, mpc, world.action_size, seed), world.seen)


def as_recorded(source: Any, size: int, actions: Any) -> Any:
    """Blocks of actions [..., stride A] within -1 and 1 as recorded episodes have them. `size` is A."""
    mean, deviation = getattr(source, "spread", (0.0, 1.0))
    each = actions.reshape(*actions.shape[:-1], actions.shape[-1] // size, size)
    return ((each - mean) / deviation).reshape(actions.shape)


def by_agent(world: Acting, modules: Modules, mpc: MPC, seed: int, mode: int) -> Planned:
    """The agent of planning.agent in one of its modes."""
    return Planned(Agent(modules, mpc, world.action_size, seed, mode), world.seen)


def by_simulator(world: Acting, mpc: MPC, seed: int) -> Planned:
    """Planning with the true simulator and the true distance: the ceiling of a planner.

    A simulator on arrays is compiled into the search. Others run on the host.
    """
    advance, distance = cast(Callable[..., Any], world.advance), cast(Callable[..., Any], world.away)

    def rollout(_: None, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        starts = np.broadcast_to(states[:, None], (*actions.shape[:2], states.shape[-1]))
        return world.open_loop(starts, actions)[..., 1:, :]

    predict = unroll(advance)
    compiled = WorldModel(lambda _, states: states, lambda _, context, actions: predict(context, actions))
    model = compiled if world.compiles else dataclasses.replace(compiled, predict=rollout, host=True)
    horizon, receding = mpc.horizon * mpc.block, mpc.receding * mpc.block  # it plans frames, not blocks
    own = dataclasses.replace(mpc, distance=distance, block=1, horizon=horizon, receding=receding)
    return Planned(Controller(model, own, world.action_size, seed), lambda states, _: np.asarray(states, np.float32))


def baselines(world: World, mpc: MPC, seed: int) -> dict[str, tuple[str, Policy]]:
    """Name -> (kind, policy) of everything that needs no model: floors, and the true simulator as the ceiling.

    Of an Environment no states are known, and the action 0 is the middle of its Box, which may do something.
    """
    size, still = world.action_size, "middle action" if isinstance(world, Environment) else "nothing"
    policies: dict[str, tuple[str, Policy]] = {
        still: ("floor", Random(size, seed, scale=0.0)),
        "random actions": ("floor", Random(size, seed)),
    }
    if isinstance(world, Environment):
        return policies
    if WEAK in world.policies:
        policies[f"policy {WEAK}"] = ("floor", Behaving(world, WEAK, seed))
    policies["straight line"] = ("floor", Scripted(world.straight))
    policies[SIMULATOR] = ("ceiling", by_simulator(world, mpc, seed))
    if world.has_expert:
        policies["expert"] = ("ceiling", Scripted(world.expert))
    return policies


class Row(NamedTuple):
    """One line of the control table."""

    name: str
    kind: str  # "result", "floor" or "ceiling"
    task: str
    episodes: int
    once: int  # episodes in which the goal was reached in any frame
    end: int  # episodes in which it was reached in the last frame
    seconds: float  # for all episodes

    def share(self, which: str) -> tuple[float, float, float]:
        """The share of successes ("once" or "end"), and its 95 % interval (low, high)."""
        return getattr(self, which) / self.episodes, *interval(getattr(self, which), self.episodes)


def interval(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927). It has a width also at 0 and at `count` successes."""
    low, high = stats.binomtest(successes, count).proportion_ci(0.95, "wilson")
    return float(low), float(high)


def apart(one: Row, other: Row, which: str = "once") -> bool:
    """Whether `one` is better than `other` with separated intervals."""
    return one.share(which)[1] > other.share(which)[2]


def films(world: World, tasks: Tasks, trials: Trials, most: int = 6) -> Iterator[list[np.ndarray]]:
    """Per task, frames uint8 [H,W,3] until the goal is reached. The goal's image shows through."""
    for e in range(min(most, len(tasks.number))):
        done = np.flatnonzero(trials.reached[e])
        states = trials.states[e, : int(done[0]) + 2] if len(done) else trials.states[e]
        images, goal = (rgb(world.picture(s)).astype(np.uint16) for s in (states, tasks.goals[e]))
        yield list(((images * (255 - FILM_GOAL) + goal * FILM_GOAL) // 255).astype(np.uint8))


def rgb(images: np.ndarray) -> np.ndarray:
    """Images uint8 [..., H, W, 2 or 3] with three channels."""
    missing = 3 - images.shape[-1]
    return np.concatenate([images, np.zeros((*images.shape[:-1], missing), images.dtype)], -1) if missing else images
