"""The agent of "A path towards autonomous machine intelligence" (LeCun 2022): five functions in one loop.

Perception turns an image into a latent, the short-term memory keeps latents, the world model predicts what actions lead
to, the cost says how bad that is, and the actor acts. The configurator of the paper, which sets all of them, is the
command line here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.costs import Distance, autoregressive, squared_error
from cjepa_jax.planning.mpc import MPC
from cjepa_jax.planning.solve import solve

Critic = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]  # (heads, memory [...,m,D], z, goal [...,D])


def keep_first(memory: jax.Array, z: jax.Array, frame: jax.Array) -> jax.Array:
    """The short-term memory after a frame: [E,m,D], latents [E,D], the frame's number -> [E,m,D].

    The first m latents stay. Until there are m, the newest one stands for those that are missing.
    """
    return jnp.where((jnp.arange(memory.shape[1]) >= frame)[:, None], z[:, None], memory)


def keep_none(memory: jax.Array, z: jax.Array, frame: jax.Array) -> jax.Array:
    """As `keep_first`, but the present latent is in all places. A world model that was trained with true first frames
    never saw such a memory."""
    return jnp.broadcast_to(z[:, None], memory.shape)


@dataclasses.dataclass(frozen=True)
class Modules:
    """The agent's functions. They are traced into one program, together with the search.

    Attributes:
      perceive: (params, images uint8 [E,H,W,C]) -> latents [E,D].
      world: (params, memory [m,D], latent [D], actions [S,H,A]) -> latents [S,H,D] after each action, in one
        environment.
      slots: latents in the memory, m.
      remember: see keep_first.
      intrinsic: the cost of a latent, its distance from the goal's. It is not trained.
      critic: -> [...], the sum of intrinsic costs that will follow z until the goal is reached. Trained. None: no
        critic.
      policy: as critic, -> actions [...,A]. The actor's Mode 1. None: it has only Mode 2, the planner.
      params: of perceive and world. heads: of critic and policy.
    """

    perceive: Callable[[Any, Any], jax.Array]
    world: Callable[..., jax.Array]
    slots: int
    remember: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = keep_first
    intrinsic: Distance = squared_error
    critic: Critic | None = None
    policy: Critic | None = None
    params: Any = None
    heads: Any = None

    @classmethod
    def of(cls, objective: Any, params: Any, extra: Any) -> "Modules":
        """Of an objective that predicts the next latent (objectives.world, objectives.remembering)."""
        memory, recent = objective.memory, objective.recent

        def perceive(state: tuple, images: jax.Array) -> jax.Array:
            return objective.latents(state[0] | state[1], images[:, None])[:, 0]

        def world(state: tuple, kept: jax.Array, z: jax.Array, actions: jax.Array) -> jax.Array:
            def step(latents: jax.Array, own: jax.Array) -> jax.Array:
                first = jnp.broadcast_to(kept, (len(latents), *kept.shape))
                none = jnp.zeros((len(own), memory, own.shape[-1]), own.dtype)
                latents, own = jnp.concatenate([first, latents], 1), jnp.concatenate([none, own], 1)
                return objective.predict(*state, latents, own)

            past = jnp.zeros((0, actions.shape[-1]), actions.dtype)
            return autoregressive(step, recent)((z[None], past), actions)

        return cls(perceive=perceive, world=world, slots=memory, params=(params, extra))

    def cost(self, memory: jax.Array, z: jax.Array, goal: jax.Array, actions: jax.Array) -> jax.Array:
        """The energy of candidates [S,H,A] in one environment: intrinsic costs of all steps, plus the critic's value of
        the last latent. [S]."""
        outcome = self.world(self.params, memory, z, actions)
        total = self.intrinsic(outcome, goal).sum(1)
        if self.critic is None:
            return total
        kept, goals = (jnp.broadcast_to(x, (len(actions), *x.shape)) for x in (memory, goal))
        return total + self.critic(self.heads, kept, outcome[:, -1], goals)


class Agent:
    """The loop, in E environments at once: perceive, remember, act.

    It does nothing until its memory is full. Then the actor plans (mode 2, as the paper's slow, deliberate mode) or
    asks its policy (mode 1, without a world model).

    Args:
      modules: the five functions.
      mpc: planner, horizon, receding, batch and warm. The rest is not used.
      size: numbers in an action.
      seed: every draw derives from it, from an environment's index and from the number of the search.
      mode: 1 or 2.
    Raises: ConfigError for another mode, or for mode 1 without a policy.
    """

    def __init__(self, modules: Modules, mpc: MPC, size: int, seed: int = 0, mode: int = 2):
        if mode not in (1, 2) or (mode == 1 and modules.policy is None):
            raise ConfigError(f"agent.mode is {mode!r}: must be 2, or 1 with a policy")
        self.modules, self.mpc, self.size, self.seed, self.mode = modules, mpc, size, seed, mode
        self._perceive, self._remember = jax.jit(modules.perceive), jax.jit(modules.remember)
        self._react, self._search = jax.jit(self._policy), jax.jit(self._plan)

    def _policy(self, heads, memory, z, goal):
        policy: Any = self.modules.policy
        return jnp.clip(policy(heads, memory, z, goal), -1, 1)

    def _plan(self, params, heads, key, index, memory, z, goal, mean):
        modules = dataclasses.replace(self.modules, params=params, heads=heads)

        def cost(context, goal, actions):
            return modules.cost(*context, goal, actions)

        return solve(
            self.mpc.planner, cost, key=key, index=index, context=(memory, z), goal=goal, mean=mean,
            batch=self.mpc.batch,
        ).actions  # fmt: skip

    def perceive(self, images: Any) -> jax.Array:
        """Latents [E,D] of images uint8 [E,H,W,C]."""
        return self._perceive(self.modules.params, images)

    def plan(self, index: Any, memory: Any, z: Any, goal: Any, mean: np.ndarray, search: int = 0) -> np.ndarray:
        """The actions [E,H,A] of search number `search`, from latents z [E,D] with their memory [E,m,D]."""
        key = jax.random.fold_in(jax.random.key(self.seed), search)
        arrays = dict(index=jnp.asarray(index), memory=memory, z=z, goal=goal, mean=mean)
        return np.asarray(self._search(self.modules.params, self.modules.heads, key, **arrays))

    def start(self, goals: Any, index: np.ndarray) -> None:
        """New tasks. `goals` are images [E,H,W,C], `index` the environments' numbers, int [E]."""
        self.goal, self.index, self.frame, self.searches = self.perceive(goals), index, 0, 0
        self.memory = jnp.zeros((len(index), self.modules.slots, *self.goal.shape[1:]))
        self.rest = np.zeros((len(index), self.mpc.horizon, self.size), np.float32)
        self.left = 0  # actions of the plan that are still to be done

    def act(self, images: Any) -> np.ndarray:
        """The next action [E,1,A], from what is seen now."""
        z = self.perceive(images)
        self.memory = self._remember(self.memory, z, self.frame)
        self.frame += 1
        if self.frame < self.modules.slots:
            return np.zeros((len(self.index), 1, self.size), np.float32)
        if self.mode == 1:
            return np.asarray(self._react(self.modules.heads, self.memory, z, self.goal))[:, None]
        if not self.left:
            mean = self.rest if self.mpc.warm else np.zeros_like(self.rest)
            self.rest = self.plan(self.index, self.memory, z, goal=self.goal, mean=mean, search=self.searches)
            self.searches, self.left = self.searches + 1, self.mpc.receding
        action, self.left = self.rest[:, :1], self.left - 1
        self.rest = np.concatenate([self.rest[:, 1:], np.zeros_like(action)], 1)
        return action
