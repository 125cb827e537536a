"""Receding-horizon control: plan from what is seen now, act for a while, plan again."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.base import Plan, Planner, Sampler
from cjepa_jax.planning.costs import Distance, autoregressive, squared_error, to_goal
from cjepa_jax.planning.solve import solve, solve_on_host

MOST_FRAMES = 10_000  # of a plan


@dataclasses.dataclass(frozen=True)
class WorldModel:
    """A world model as functions of its parameters. They are traced into one program, together with the search.

    Attributes:
      encode: (params, observations [E, ...]) -> contexts, a pytree of arrays with a first axis E.
      predict: (params, context of one environment, actions [S,H,A]) -> latents [S,H,*latent] after each action.
      goal: (params, observations of the goals [E, ...]) -> latents [E,*latent]. None: `encode`.
      params: a pytree.
      host: whether `predict` is a simulator in NumPy instead, for all environments at once: (params, contexts [E,D],
        actions [E,S,H,A]) -> [E,S,H,D].
    """

    encode: Callable[[Any, Any], Any]
    predict: Callable[..., Any]
    goal: Callable[[Any, Any], jax.Array] | None = None
    params: Any = None
    host: bool = False

    @classmethod
    def of(cls, latents: Callable, predict: Callable, params: Any, extra: Any, memory: int) -> "WorldModel":
        """Of the two functions of objectives.base.World. Images are uint8 [E, H, W, C].

        Args:
          latents: (params | extra, frames [B,T,H,W,C]) -> [B,T,*latent].
          predict: (params, extra, latents [B,t,*latent], actions [B,t,A]) -> the next latent [B,*latent].
          memory: number of latents that it sees at most.
        """

        def goal(state: tuple, images: jax.Array) -> jax.Array:
            return latents(state[0] | state[1], images[:, None])[:, 0]

        def encode(state: tuple, images: jax.Array) -> jax.Array:
            return goal(state, images)[:, None]

        def rollout(state: tuple, context: jax.Array, actions: jax.Array) -> jax.Array:
            past = jnp.zeros((0, actions.shape[-1]), actions.dtype)
            return autoregressive(functools.partial(predict, *state), memory)((context, past), actions)

        return cls(encode=encode, predict=rollout, goal=goal, params=(params, extra))


def of_slots(objective: Any, params: Any) -> WorldModel:
    """The world model of a slot predictor (objectives.slots.Slots) that was trained with actions.

    Observations are dicts: "slots" float32 [E,t,K,D] of the last t frames, "actions" [E,t - 1,A] between them, and
    "proprio" [E,t,P]. Of goals only the last frame counts. Latents are [E,S,D] (Slots.advance).
    """

    def tokens(params: Any, seen: dict[str, jax.Array]) -> jax.Array:
        return objective.embedded(params, seen["slots"], seen["proprio"])

    def encode(params: Any, seen: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
        return tokens(params, seen), seen["actions"], (seen["slots"] != 0).any((1, 3))

    def rollout(params: Any, context: tuple[jax.Array, ...], actions: jax.Array) -> jax.Array:
        *past, there = context

        def step(latents: jax.Array, done: jax.Array) -> jax.Array:
            return objective.advance(params, latents, done, jnp.broadcast_to(there, (len(latents), *there.shape)))

        return autoregressive(step, objective.history)((past[0], past[1]), actions)

    return WorldModel(encode, rollout, goal=lambda params, seen: tokens(params, seen)[:, -1], params=params)


@dataclasses.dataclass(frozen=True)
class MPC:
    """How to control with a world model.

    Args:
      planner: such as cem.CEM.
      horizon: planned actions, H.
      receding: actions that are done before the next plan.
      block: frames of one planned action. It holds the actions of all of them (an action block: A is block times the
        environment's).
      distance, over: see costs.to_goal.
      warm: whether the next search starts at the rest of the last plan. Otherwise it starts at 0.
      batch: environments that are searched at a time, 0: all.
    Raises: ConfigError for a value outside its limits.
    """

    planner: Planner
    horizon: int = 5
    receding: int = 1
    block: int = 1
    distance: Distance = dataclasses.field(default=squared_error, repr=False)
    over: str = "last"
    warm: bool = True
    batch: int = 0

    def __post_init__(self):
        for name, least, most in (("horizon", 1, MOST_FRAMES), ("receding", 1, self.horizon), ("block", 1, 1000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"mpc.{name} is {value!r}: must be an integer within {least} and {most}")


class Controller:
    """The state of control in E environments: their goals, and the rests of their plans.

    Args:
      model: encodes and predicts.
      mpc: the settings.
      size: numbers in an action of the environment.
      seed: every draw derives from it, from an environment's index and from the number of the search.
    """

    def __init__(self, model: WorldModel, mpc: MPC, size: int, seed: int = 0):
        self.model, self.mpc, self.size, self.seed = model, mpc, size, seed
        self.last: Plan | None = None
        self._encode_goal = jax.jit(model.goal or model.encode)
        self._search = jax.jit(self._pure_search)
        self._score = jax.jit(jax.vmap(to_goal(lambda latents, _: latents, mpc.distance, mpc.over)))

    def _pure_search(self, params, key, index, observations, goal, mean):
        mpc, model = self.mpc, self.model
        cost = to_goal(lambda context, actions: model.predict(params, context, actions), mpc.distance, mpc.over)
        context = model.encode(params, observations)
        return solve(mpc.planner, cost, key=key, index=index, context=context, goal=goal, mean=mean, batch=mpc.batch)

    def _search_on_host(self, params, key, index, observations, goal, mean) -> Plan:
        context = np.asarray(self.model.encode(params, observations))

        def cost(actions: np.ndarray) -> np.ndarray:
            return np.asarray(self._score(self.model.predict(params, context, actions), goal, jnp.asarray(actions)))

        return solve_on_host(cast(Sampler, self.mpc.planner), cost, key=key, index=index, mean=mean)

    def start(self, goals: Any, index: np.ndarray) -> None:
        """New tasks. `goals` are observations [E, ...], `index` the environments' numbers, int [E]."""
        self.index, self.round = jnp.asarray(index, jnp.int32), 0
        self.aim(goals)
        self.mean = np.zeros((len(index), self.mpc.horizon, self.mpc.block * self.size), np.float32)

    def aim(self, goals: Any) -> None:
        """The same tasks, whose goals are seen otherwise from now on."""
        self.goal = self._encode_goal(self.model.params, goals)

    def act(self, observations: Any) -> np.ndarray:
        """The next actions [E, receding * block, A] from what is seen now."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.round)
        search = self._search_on_host if self.model.host else self._search
        arrays = dict(index=self.index, observations=observations, goal=self.goal, mean=self.mean)
        plan = search(self.model.params, key=key, **arrays)
        self.round, self.last, done = self.round + 1, plan, self.mpc.receding
        actions = np.asarray(plan.actions)
        if self.mpc.warm:  # in NumPy: where the parameters are placed must not make the next call another program
            self.mean = np.concatenate([actions[:, done:], np.zeros_like(actions[:, :done])], 1)
        return actions[:, :done].reshape(len(self.index), done * self.mpc.block, self.size)
