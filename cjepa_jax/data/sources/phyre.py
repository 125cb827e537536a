"""PHYRE: rollouts of the real simulator, and functions for its benchmark (Bakhtin et al. 2019, arXiv:1908.05656).

The simulator has no build for this Python, so it runs in a worker under the user's Python 3.9 (docs/DATA.md, PHYRE).
"""

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.sources import folder, phyre_client
from cjepa_jax.errors import ConfigError, DataError, did_you_mean

SETUPS = ("ball_within_template", "ball_cross_template", "two_balls_within_template", "two_balls_cross_template")
SPLITS = {"train": (0, 0), "eval": (1, 1), "test": (2, 4)}  # place in a fold; second word of seeds (2, 3: the pipeline)
FPS = 60  # simulated steps a second
CANDIDATES = 256  # actions drawn for a scene, of which the first valid one is played
CHUNK = 256  # tasks or actions a message
# PHYRE's published colours of the codes 0 to 6.
PALETTE = np.array(
    [
        (255, 255, 255), (243, 79, 70), (107, 206, 187), (24, 119, 242), (75, 74, 164), (185, 202, 210), (0, 0, 0),
    ],
    np.uint8,
)  # fmt: skip
MOVING = (1, 2, 3, 5)  # codes of moving objects: the user's, green, blue, grey (purple and black: fixed)


@dataclass(frozen=True)
class Phyre:
    """Scene i is one random valid action at a task of one split of a fold, simulated by PHYRE.

    split: "train", "eval" (PHYRE's dev) or "test". size: pixels, height = width. PHYRE draws 256. A smaller size
    reduces this (area for pixels, nearest for masks), a larger one leaves it unchanged. frames: T. count: any number of
    scenes, 0: one for each task. Scenes cycle through all tasks in a random order. seed: of that order and of the
    actions. Actions derive from (seed, split, i) and are uniform over the valid ones: solving actions are neither
    preferred nor avoided.
    setup: PHYRE's evaluation setup. fold: 0 .. 9. stride: simulated steps, of 1/60 s, between frames. python: the
    interpreter that has `phyre`, "": the environment variable CJEPA_PHYRE_PYTHON. timeout: seconds that the simulator
    may take for a request.

    A scene holds video uint8 [T,H,W,3] in PHYRE's colours, visible `masks` bool [K,T,H,W], equal to PHYRE's drawing to
    the pixel (the task's objects in its order, then the user's balls), `states` float32 [T,K,S] (columns: state_names),
    `action` float64 [D] in 0 .. 1, and `labels` float32 [P] (label_names: the count of objects, then means over those
    that move, at frame T // 2). Frame 0 is one step after the start. All T frames are simulated, while PHYRE's own
    rollouts (`simulate`) end when the task is solved or after 1000 steps.

    do(remove) is PHYRE's own simulation of the same start without these objects (balls, bars or the user's balls). A
    removed object keeps its row: its states are 0, its masks empty.

    Raises ConfigError for a value out of its limits or an interpreter that cannot be used. Raises DataError if the
    simulator fails or no drawn action is valid.
    """

    split: str = "train"
    path: str = ""  # unused: the tasks come with PHYRE
    size: int = 224
    frames: int = 16
    count: int = 0
    seed: int = 0
    setup: str = "ball_within_template"
    fold: int = 0
    stride: int = 15
    python: str = ""
    timeout: float = 60.0
    tasks: tuple[str, ...] = field(init=False, repr=False, compare=False)  # names "TTTTT:III" of the split, sorted
    order: tuple[int, ...] = field(init=False, repr=False, compare=False)  # in which scenes use them

    can_rerender: ClassVar[bool] = True
    label_names: ClassVar[tuple[str, ...]] = (
        "count", "position/x", "position/y", "velocity/x", "velocity/y", "size/diameter",
    )  # fmt: skip
    state_names: ClassVar[tuple[str, ...]] = (
        "present",  # 1, or 0 if removed (then the whole row is 0)
        "position/x", "position/y",  # centre of mass, view widths, y down
        "angle",  # radians in 0 .. 2 pi, clockwise as seen
        "velocity/x", "velocity/y",  # mean until the next frame, view widths / s
        "size/diameter",  # view widths
        "shape/ball", "shape/bar", "shape/jar", "shape/standing_sticks",
        "colour/red", "colour/green", "colour/blue", "colour/purple", "colour/grey", "colour/black",
    )  # fmt: skip

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        if self.setup not in SETUPS:
            hint = did_you_mean(str(self.setup), SETUPS)
            raise ConfigError(f"data.options.setup is {self.setup!r}: must be one of {', '.join(SETUPS)}{hint}")
        limits = (("size", 8, 1024), ("frames", 1, 512), ("count", 0, 2**31), ("seed", 0, 2**63))
        limits += (("options.fold", 0, 9), ("options.stride", 1, 600))
        for name, least, most in limits:
            value = getattr(self, name.removeprefix("options."))
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
                raise ConfigError(f"data.{name} is {value!r}: must be an integer in {least} .. {most}")
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout < 1e6:
            raise ConfigError(f"data.options.timeout is {self.timeout!r}: must be a number of seconds over 0")
        splits = self.ask("fold", setup=self.setup, seed=int(self.fold))
        object.__setattr__(self, "tasks", tuple(splits[SPLITS[self.split][0]]))
        order = seeds.generator(self.seed, "order of PHYRE's tasks", SPLITS[self.split][1]).permutation(len(self.tasks))
        object.__setattr__(self, "order", tuple(order.tolist()))

    def ask(self, op: str, **arguments: Any) -> Any:
        """The reply of this process's simulator to one request (phyre_worker.py)."""
        python = self.python or os.environ.get("CJEPA_PHYRE_PYTHON", "")
        if not python:
            text = "data.options.python is '', and so is CJEPA_PHYRE_PYTHON. One must name the interpreter with PHYRE"
            raise ConfigError(f"{text}. {phyre_client.SETUP}")
        return phyre_client.simulator(os.path.expanduser(python), float(self.timeout))(op, **arguments)

    @property
    def dimensions(self) -> int:
        """D of an action: x, y and radius of each ball."""
        return 6 if self.setup.startswith("two_balls") else 3

    def __len__(self) -> int:
        return self.count or len(self.tasks)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: `rollout(i)`."""
        return self.rollout(i)

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove), `removed` bool [K]: uint8 [T,H,W,3]."""
        return self.rollout(i, removed)["video"]

    def rollout(self, i: int, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scene i under do(remove), `removed` bool [K] (None: nothing is removed). Raises IndexError, DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        name = self.tasks[self.order[i % len(self.tasks)]]
        actions = np.random.default_rng([self.seed, SPLITS[self.split][1], i]).random((CANDIDATES, self.dimensions))
        gone = [] if removed is None else np.flatnonzero(removed).tolist()
        found = self.ask(
            "rollout", name=name, actions=actions, frames=int(self.frames), stride=int(self.stride), removed=gone
        )
        if found is None:
            raise DataError(f"PHYRE's task {name}: none of {CANDIDATES} actions is valid (scene {i})")
        index, colours, seen, features = found
        if removed is not None and (np.shape(removed) != colours.shape or np.asarray(removed).dtype != bool):
            given = f"{np.asarray(removed).dtype} {np.shape(removed)}"
            raise DataError(f"PHYRE's task {name}: removed is {given}, not bool ({len(colours)},) (scene {i})")
        present = np.isin(np.arange(len(colours)), gone, invert=True)
        video, masks = self._draw(seen, colours)
        states = self._states(features, present)
        moving = present & np.isin(colours, MOVING)
        columns = [self.state_names.index(label) for label in self.label_names[1:]]
        means = states[self.frames // 2, moving][:, columns].mean(0) if moving.any() else np.zeros(len(columns))
        labels = np.concatenate([[present.sum()], means]).astype(np.float32)
        return {"video": video, "masks": masks, "states": states, "action": actions[index], "labels": labels}

    def _draw(self, seen: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Video and masks from the object visible at each pixel, uint8 [T,256,256] (rows upwards, 0 is none)."""
        seen = np.ascontiguousarray(seen[:, ::-1])
        palette = np.zeros((256, 1, 3), np.uint8)
        palette[: len(colours) + 1, 0] = PALETTE[np.concatenate([[0], colours])]
        rgb = cv2.applyColorMap(seen.reshape(-1, seen.shape[2]), palette).reshape(*seen.shape, 3)
        pairs = [folder.shrink(frame, ids, self.size) for frame, ids in zip(rgb, seen, strict=True)]
        video, ids = (np.stack(part) for part in zip(*pairs, strict=True))
        return video, ids == np.arange(1, len(colours) + 1, dtype=np.uint8)[:, None, None, None]

    def _states(self, features: np.ndarray, present: np.ndarray) -> np.ndarray:
        """States [T,K,S] from PHYRE's features [T+1,K,14]: x, y (upwards), angle / 2 pi, diameter, shape, colour."""
        states = np.empty((self.frames, features.shape[1], len(self.state_names)), np.float32)
        states[..., 0] = 1
        states[..., 1:3] = features[:-1, :, :2]
        states[..., 2] = 1 - states[..., 2]
        states[..., 3] = 2 * np.pi * ((1 - features[:-1, :, 2]) % 1)
        states[..., 4:6] = np.diff(features[..., :2], axis=0) * (1, -1) * (FPS / self.stride)
        states[..., 6:] = features[:-1, :, 3:]
        states[:, ~present] = 0
        return states

    def initial_scenes(self, tasks: Sequence[str]) -> np.ndarray:
        """The picture that an agent sees before it acts: uint8 [N,256,256,3] for N tasks."""
        parts = [tasks[first : first + CHUNK] for first in range(0, len(tasks), CHUNK)]
        codes = [self.ask("scenes", names=list(part)) for part in parts]
        return PALETTE[np.concatenate(codes)[:, ::-1]] if codes else np.zeros((0, 256, 256, 3), np.uint8)

    def valid(self, task: str, actions: np.ndarray) -> np.ndarray:
        """Which actions [N,D] are valid: bool [N]. Invalid ones leave the scene or cover an object."""
        return self.ask("valid", name=task, actions=np.asarray(actions, float))

    def valid_actions(self, task: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` uniform draws among the valid actions of a task: float64 [count,D]. Raises DataError if valid actions
        are too rare."""
        found = np.zeros((0, self.dimensions))
        for _ in range(1000):
            if len(found) >= count:
                return found[:count]
            drawn = rng.random((CHUNK, self.dimensions))
            found = np.concatenate([found, drawn[self.valid(task, drawn)]])
        raise DataError(f"PHYRE's task {task}: only {len(found)} of {1000 * CHUNK} drawn actions are valid")

    def statuses(self, task: str, actions: np.ndarray) -> np.ndarray:
        """PHYRE's result for actions [N,D]: int8 [N], 1 solved, -1 not solved, 0 invalid (not an attempt)."""
        actions = np.asarray(actions, float)
        parts = [actions[first : first + CHUNK] for first in range(0, len(actions), CHUNK)]
        return np.concatenate(
            [np.zeros(0, np.int8), *(self.ask("statuses", name=task, actions=part) for part in parts)]
        )

    def simulate(self, task: str, action: np.ndarray, stride: int = FPS) -> tuple[int, np.ndarray | None]:
        """PHYRE's own rollout of an action [D]: the status as in `statuses` and its frames uint8 [F,256,256,3], one
        every `stride` steps until the task is solved or 1000 steps are over. None for an invalid action."""
        status, codes = self.ask("simulate", name=task, action=np.asarray(action, float), stride=int(stride))
        return status, None if codes is None else PALETTE[codes[:, ::-1]]
