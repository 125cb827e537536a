"""The base class of worlds with actions: episodes, policies and tasks on top of a simulator of flat states."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds.base import SPLITS, check_removed
from cjepa_jax.data.worlds.interventions import Doing, Done
from cjepa_jax.data.worlds.physics import Bodies
from cjepa_jax.errors import ConfigError, DataError

MIXED = "mixed"
GOALS = 1000  # draws of a goal until an episode of an expert is given up


class Setup(NamedTuple):
    """What an episode follows from."""

    first: np.ndarray  # float64 [D] initial state of the simulator
    policy: int  # index in the world's `policies`, or of a task after them
    seed: int  # of the policy's draws


class Parts(NamedTuple):
    """The objects of an initial state, as interventions change them. The agent is object 0. View widths, seconds."""

    bodies: Bodies
    colour: np.ndarray  # [K,3] 0 .. 255
    wall: np.ndarray | None = None  # [K] what a scene has once, in each row: x of the wall between rooms
    door: np.ndarray | None = None  # [K] y of its door


class Task(NamedTuple):
    """A start and a goal, states of the simulator: float64 [D] each."""

    start: np.ndarray
    goal: np.ndarray


@dataclass(frozen=True)
class Acting(Doing):
    """A world in which an agent acts. Scene i is an episode of `frames` frames. It is a function of (seed, split, i).

    `advance` maps states [..., D] and actions [..., A] to the next states. Actions are within -1 and 1. A scene holds:
      video: uint8 [T,H,W,3].
      masks, amodal: visible parts and whole objects, bool [K,T,H,W].
      actions: float32 [T,A]. actions[t] leads from frame t to frame t + 1. The last one leads out of the clip.
      proprio: float32 [T,P], what the agent feels of itself, columns as `proprio_names`.
      states: float32 [T,K,S], columns as `state_names`.
      labels: float32 [P], as `label_names`, in frame T // 2.
    Under an intervention the actions stay those of the episode. A twin of the agent does them too.

    Args:
      do, attribute, value: see interventions.Doing. The classes say which a world has.
      policy: what acts in the episodes: one of the world's `policies`, or "mixed" (each episode has one of them). In a
        world with an expert also one of its `tasks`: the expert does such a task, with noise, and stays at the goal.
        Some worlds have `probing` policies too.
      mix: with the policy "mixed": pairs of such a name and its share of the episodes, which sum to 1. (): the
        `policies`, with equal chances.
    """

    policy: str = MIXED
    mix: tuple[tuple[str, float], ...] = ()

    dos: ClassVar[tuple[str, ...]] = ("remove",)
    attributes: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "episodes"
    setup_type: ClassVar[type] = Setup
    policies: ClassVar[tuple[str, ...]] = ()
    probing: ClassVar[tuple[str, ...]] = ()  # policies that "mixed" has only by `mix`
    objects: ClassVar[int] = 1  # K. The agent is object 0. A world may set it per instance
    action_size: ClassVar[int] = 2  # A
    proprio_names: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[str, ...]] = ()  # kinds of tasks
    noise: ClassVar[float] = 0.25  # standard deviation, added to the actions of an expert that does a task
    compiles: ClassVar[bool] = (
        False  # whether `advance` and `picture` work on arrays of any library with NumPy's namespace
    )

    def __post_init__(self):
        super().__post_init__()
        choices = (MIXED, *self._behaviours)
        if self.policy not in choices:
            raise ConfigError(f"data.options.policy is {self.policy!r}; it must be one of {', '.join(choices)}")
        object.__setattr__(self, "mix", self._checked_mix())
        if self.hold_out:
            raise ConfigError(f"data.options.hold_out is True; {type(self).__name__} holds nothing out")

    @property
    def _behaviours(self) -> tuple[str, ...]:
        """The policies, the tasks that an expert does, and the probing policies."""
        return (*self.policies, *(self.tasks if self.has_expert else ()), *self.probing)

    def _checked_mix(self) -> tuple[tuple[str, float], ...]:
        """`mix` as tuples. Raises ConfigError."""
        try:
            mix = tuple((name, float(share)) for name, share in self.mix)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"data.options.mix is {self.mix!r}; it must be pairs of a name and a share") from error
        for name, share in mix:
            if name not in self._behaviours:
                raise ConfigError(f"data.options.mix has {name!r}; it must have some of {', '.join(self._behaviours)}")
            if not 0 <= share <= 1:
                raise ConfigError(f"data.options.mix has the share {share}; it must be within 0 and 1")
        if mix and self.policy != MIXED:
            raise ConfigError(f"data.options.policy is {self.policy!r}; it must be {MIXED!r} with data.options.mix")
        if mix and abs(sum(share for _, share in mix) - 1) > 1e-6:
            raise ConfigError(f"data.options.mix is {self.mix!r}; its shares must sum to 1")
        return mix

    @property
    def has_expert(self) -> bool:
        """Whether the world defines `expert`."""
        return type(self).expert is not Acting.expert

    def first(self, rng: np.random.Generator) -> np.ndarray:
        """A random initial state, float64 [D]."""
        raise NotImplementedError

    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The next states [..., D] of states [..., D] under actions [..., A]. Actions are clipped to -1 .. 1."""
        raise NotImplementedError

    def picture(self, states: np.ndarray) -> np.ndarray:
        """Images uint8 [..., H, W, C] of states [..., D]."""
        raise NotImplementedError

    def seen(self, states: np.ndarray, frame: int) -> np.ndarray:
        """Images of states [..., D] as frame number `frame` of an episode shows them. -1: any late frame."""
        return self.picture(states)

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether states [..., D] count as the goals [..., D]: bool [...]."""
        raise NotImplementedError

    def away(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """How far states [..., D] are from the goals [..., D], in tolerances: [...]. A planner's cost."""
        raise NotImplementedError

    def straight(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Actions [..., A] that move the agent along a straight line to its place in the goal."""
        raise NotImplementedError

    def expert(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Actions [..., A] of a scripted expert that knows the simulator's state."""
        raise NotImplementedError

    def goal(self, rng: np.random.Generator, task: str, start: np.ndarray) -> np.ndarray | None:
        """A goal of a kind of task from `start`, [D]. None if this start has none: another one is drawn."""
        raise NotImplementedError

    def behave(self, policy: str, rng: np.random.Generator, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A policy of one episode: state [D] -> action [A]. It draws from `rng` alone, in the order of the frames."""
        raise NotImplementedError

    def scene(self, states: np.ndarray, removed: np.ndarray) -> dict[str, np.ndarray]:
        """`video`, `masks`, `amodal`, `states`, `proprio` and `labels` of the simulator's states [T,D]."""
        raise NotImplementedError

    def without(self, first: np.ndarray, actions: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """The simulator's states [T,D] from `first` on without the removed objects, under the same `actions` [T,A]."""
        raise NotImplementedError

    def parts(self, first: np.ndarray) -> Parts:
        """The objects of an initial state [D]. For worlds with more than do(remove)."""
        raise NotImplementedError

    def under(self, first: np.ndarray, actions: np.ndarray, act: Done) -> dict[str, np.ndarray]:
        """As `scene`, simulated from the changed objects of `first` on under `actions` [T,A]. Twins have no row."""
        raise NotImplementedError

    def changed(self, setup: Setup, chosen: np.ndarray) -> np.ndarray:
        """See World."""
        return chosen.copy() if self.do in ("remove", "insert") else super().changed(self.parts(setup.first), chosen)

    def stepper(self, firsts: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Simulations from `firsts` [..., D] on: each call takes actions [..., A] and returns the next states."""
        states = firsts

        def step(actions: np.ndarray) -> np.ndarray:
            nonlocal states
            states = self.advance(states, actions)
            return states

        return step

    def open_loop(self, firsts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The states [..., T + 1, D] from `firsts` [..., D] on under actions [..., T, A]."""
        step = self.stepper(firsts)
        return np.stack([firsts, *(step(actions[..., t, :]) for t in range(actions.shape[-2]))], -2)

    def setup(self, i: int) -> Setup:
        """The start, policy and seed of episode i."""
        rng = self.rng(i)
        first, seed, drawn = self.first(rng), int(rng.integers(2**31)), int(rng.integers(len(self.policies)))
        if self.mix:
            ends = np.cumsum([share for _, share in self.mix])
            chosen = self.mix[min(int(np.searchsorted(ends, rng.random(), side="right")), len(ends) - 1)][0]
            return Setup(first, self._behaviours.index(chosen), seed)
        return Setup(first, drawn if self.policy == MIXED else self._behaviours.index(self.policy), seed)

    def trajectory(self, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
        """The simulator's states, float64 [T,D], and the policy's actions [T,A]."""
        name, rng = self._behaviours[setup.policy], seeds.generator(setup.seed, "policy of an episode")
        act = (self._demonstrate if name in self.tasks else self.behave)(name, rng, setup.first)
        step, states, actions = self.stepper(setup.first), [setup.first], []
        for t in range(self.frames):
            actions.append(act(states[-1]))
            if t + 1 < self.frames:
                states.append(step(actions[-1]))
        return np.stack(states), np.stack(actions)

    def _demonstrate(self, task: str, rng: np.random.Generator, first: np.ndarray):
        """The expert on its way to a goal of this kind from `first`. Raises DataError if no goal is found."""
        goals = (self.goal(rng, task, first) for _ in range(GOALS))
        goal = next((goal for goal in goals if goal is not None), None)
        if goal is None:
            raise DataError(f"{type(self).__name__}: no goal of the task {task!r} was found in {GOALS} draws")
        return lambda state: np.clip(self.expert(state, goal) + rng.normal(0, self.noise, self.action_size), -1, 1)

    def felt(self, states: np.ndarray) -> np.ndarray:
        """What the agent feels of itself in states [E,D]: `proprio`, float32 [E,P]."""
        return self.scene(states, np.zeros(self.objects, bool))["proprio"]

    def play(self, setup: Setup, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The episode under `do` of the objects `removed`, bool [K]. Raises DataError."""
        removed = check_removed(removed, self.objects)
        states, actions = self.trajectory(setup)
        if self.do != "remove" and removed.any():
            found = self.under(setup.first, actions, self.done(self.parts(setup.first), removed))
        else:
            found = self.scene(self.without(setup.first, actions, removed) if removed.any() else states, removed)
        return {**found, "actions": actions.astype(np.float32)}

    def task(self, i: int, kind: str = "") -> Task:
        """Task i of a kind (default: the first of `tasks`), a function of (seed, split, i). Raises DataError."""
        kind = kind or self.tasks[0]
        if kind not in self.tasks:
            raise DataError(f"the kind of task is {kind!r}; {type(self).__name__} has {', '.join(self.tasks)}")
        rng = seeds.generator(self.seed, "tasks of a world with actions", SPLITS[self.split], self._index(i))
        while True:
            start = self.first(rng)
            goal = self.goal(rng, kind, start)
            if goal is not None:
                return Task(start, goal)

    def _index(self, i: int) -> int:
        self.rng(i)  # raises IndexError
        return int(i)
