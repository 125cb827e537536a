"""Any Gymnasium environment that renders RGB frames, with what control needs of a world. Needs the extra `gym`.

Its states are not known. A state here is a record: the seed that began the episode, the frame as the model sees it, and
whether the environment calls it a success.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data import transforms
from cjepa_jax.data.formats import episode_file, video
from cjepa_jax.data.worlds.acting.base import Task
from cjepa_jax.data.worlds.base import SPLITS
from cjepa_jax.errors import ConfigError, one_line
from cjepa_jax.host import optional


def load() -> ModuleType:
    """The package gymnasium. Raises ConfigError if it is not installed."""
    return optional.need("gymnasium", "gym", "--env=gym:...")


@dataclasses.dataclass(frozen=True)
class Environment:
    """A Gymnasium environment. Its tasks are episodes whose seeds derive from `seed`.

    Actions are within -1 and 1, the ends of the environment's Box. Success is `info["is_success"]`, or the end of the
    episode by `terminated` where there is no such entry. After the end of an episode its last state stays.

    Args:
      name: what gymnasium.make takes: ID, or MODULE:ID to import the module that registers it.
      goal: where the goal's image is from. A dict: the frame after a reset with these options. A path: the last frames
        of the episodes of this file, task after task. "": the image `info["goal"]` of the reset.
      size: pixels of a frame. It is reduced and cut as those of recorded episodes are.
      seed: of the tasks.
      options: keyword arguments of gymnasium.make.
      stride, mean, deviation: of the data that the model was trained on (data/sources/episode_file.py).
    Raises: ConfigError, one line, for an environment that does not fit.
    """

    name: str
    goal: Any = ""
    size: int = 64
    seed: int = 0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stride: int = 1
    mean: Any = 0.0
    deviation: Any = 1.0
    box: Any = dataclasses.field(init=False, repr=False, compare=False)

    tasks: ClassVar[tuple[str, ...]] = ("episode",)

    def __post_init__(self):
        with contextlib.closing(self._made()) as env:
            object.__setattr__(self, "box", env.action_space)
            box = load().spaces.Box
            if not isinstance(self.box, box) or not np.issubdtype(self.box.dtype, np.floating):
                raise self._error(f"its actions are {self.box}: must be a Box of floats")
            if not self.box.is_bounded():
                raise self._error("its actions have no limits. Wrap it in gymnasium.wrappers.RescaleAction")
            if env.render_mode != "rgb_array" or "rgb_array" not in env.metadata.get("render_modes", ()):
                raise self._error("has no render_mode 'rgb_array', so a model cannot see it")
            self._reset(env, 0)
            self._frame(env)

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return int(np.prod(self.box.shape))

    @property
    def record(self) -> np.dtype:
        """What a state is."""
        image = ("image", np.uint8, (self.size, self.size, 3))
        return np.dtype([("seed", np.int64), image, ("success", np.bool_)])

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"--env=gym:{self.name}: {text}")

    def _made(self) -> Any:
        """A new environment. Raises ConfigError."""
        gymnasium = load()
        try:
            return gymnasium.make(self.name, render_mode="rgb_array", disable_env_checker=True, **self.options)
        except Exception as error:  # of any code that the name imports
            text = f"{type(error).__name__}: {one_line(str(error))}"
            raise self._error(f"{text}. Name it as gymnasium.make does: ID, or MODULE:ID") from error

    def _called(self, what: str, function: Callable[..., Any], *given: Any) -> Any:
        """What the environment's code returns. Raises ConfigError for all that it raises."""
        try:
            return function(*given)
        except Exception as error:
            raise self._error(f"{what} failed: {type(error).__name__}: {one_line(str(error))}") from error

    def _frame(self, env: Any) -> np.ndarray:
        return self.shown(self._called("render()", env.render), "render()")

    def _reset(self, env: Any, seed: int, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The information of a reset. Raises ConfigError."""
        try:
            return env.reset(seed=int(seed), options=options)[1]
        except Exception as error:
            text = f"{type(error).__name__}: {one_line(str(error))}"
            raise self._error(f"reset with the options {options} failed: {text}") from error

    def shown(self, image: Any, where: str) -> np.ndarray:
        """An image as the model sees it, uint8 [S,S,3]. Raises ConfigError for anything else than an image."""
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise self._error(f"{where} gives {image.dtype} {list(image.shape)}. It must give uint8 [H, W, 3]")
        frames = video.reduce_frames(image[None], self.size)
        return transforms.centre_square(*frames.shape[1:3]).frames(frames, self.size)[0]

    def _state(self, seed: int, image: np.ndarray, success: bool = False) -> np.ndarray:
        return np.array((seed, image, success), self.record)

    def task(self, i: int, kind: str = "") -> Task:
        """Task i: the record of its start, and one with the goal's image. Raises ConfigError without a goal."""
        rng = seeds.generator(self.seed, "tasks of a world with actions", SPLITS["test"], i)
        seed = int(rng.integers(2**31))
        with contextlib.closing(self._made()) as env:
            info = self._reset(env, seed)
            start = self._frame(env)
            return Task(self._state(seed, start), self._state(seed, self._goal(env, seed, i, info)))

    def _goal(self, env: Any, seed: int, i: int, info: Mapping[str, Any]) -> np.ndarray:
        if isinstance(self.goal, dict):
            self._reset(env, seed, self.goal)
            return self._frame(env)
        if self.goal:
            index = episode_file.index(self.goal)
            last = (index.offsets + index.lengths - 1)[i % len(index.lengths)]
            frames = episode_file.read(self.goal, int(last), count=1, stride=1, agent=())
            return self.shown(frames[episode_file.PIXELS][0], self.goal)
        if "goal" not in info:
            text = "its reset gives no image info['goal']. Name options of a reset, or a file of episodes, with --goal"
            raise self._error(text)
        return self.shown(info["goal"], "info['goal']")

    def stepper(self, firsts: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Running episodes from records [E] on: each call takes actions [E,A] and returns the next records."""
        envs = [self._made() for _ in firsts]
        for env, first in zip(envs, firsts, strict=True):
            self._reset(env, first["seed"])
            if (self._frame(env) != first["image"]).any():
                raise self._error("two resets with one seed show different frames, so its tasks cannot be repeated")
        states, over = firsts, np.zeros(len(firsts), bool)

        def step(actions: np.ndarray) -> np.ndarray:
            nonlocal states
            states = states.copy()
            for e in np.flatnonzero(~over):
                own = self.native(np.clip(actions[e], -1, 1)).reshape(self.box.shape).astype(self.box.dtype)
                _, _, terminated, truncated, info = self._called("step()", envs[e].step, own)
                over[e] = terminated or truncated
                image = self._frame(envs[e])
                states[e] = self._state(states[e]["seed"], image, bool(info.get("is_success", terminated)))
            return states

        weakref.finalize(step, lambda: [env.close() for env in envs])
        return step

    def native(self, actions: Any) -> Any:
        """Actions [..., A] within -1 and 1 as the environment takes them, flat. Arrays of any library with NumPy's."""
        low, high = self.box.low.ravel(), self.box.high.ravel()
        return low + (actions + 1) / 2 * (high - low)

    def as_recorded(self, actions: Any) -> Any:
        """Blocks of actions [..., stride A] within -1 and 1 as the model's data have them."""
        each = actions.reshape(*actions.shape[:-1], self.stride, self.action_size)
        return ((self.native(each) - self.mean) / self.deviation).reshape(actions.shape)

    def picture(self, states: np.ndarray) -> np.ndarray:
        """Images uint8 [..., S, S, 3] of records."""
        return states["image"]

    def seen(self, states: np.ndarray, frame: int) -> np.ndarray:
        """The same."""
        return states["image"]

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether the environment called the records a success."""
        return states["success"]
