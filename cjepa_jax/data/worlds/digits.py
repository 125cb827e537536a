"""Digits: two digits that drift and bounce, as in Moving MNIST, drawn from a bitmap of 5 x 7 cells."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds.base import World, check_integer, check_range, check_removed
from cjepa_jax.errors import ConfigError

ROWS, COLUMNS = 7, 5
FONT = (  # one line per digit, its rows from the top: bits of 5 columns
    (14, 17, 19, 21, 25, 17, 14), (4, 12, 4, 4, 4, 4, 14), (14, 17, 1, 2, 4, 8, 31), (14, 17, 1, 6, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2), (31, 16, 30, 1, 1, 17, 14), (6, 8, 16, 30, 17, 17, 14), (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14), (14, 17, 17, 15, 1, 2, 12),
)  # fmt: skip
BITS = (np.array(FONT)[:, :, None] >> np.arange(COLUMNS)[::-1]) & 1  # [10,7,5]


class Setup(NamedTuple):
    """The initial state of a scene, in view widths and frames."""

    digit: np.ndarray  # int [K] 0 .. 9
    position: np.ndarray  # [K,2] centres
    velocity: np.ndarray  # [K,2] view widths a frame


@dataclass(frozen=True)
class Digits(World):
    """White digits on black. Each moves straight at constant speed and bounces off the edges of the view.

    Digits do not affect each other. Object 0 is drawn in front. Nobody acts: `actions` are one zero a frame, so a world
    model of episodes trains on it. Frames are anti-aliased, so moves of less than a pixel are visible.

    A scene holds:
      video: uint8 [T,H,W,3].
      masks, amodal: masks of the visible parts and of whole digits, bool [K,T,H,W].
      states: float32 [T,K,S], columns as state_names.
      actions: float32 [T,1], all 0.
      labels: float32 [P], as label_names: the count of digits, then means at frame T // 2.

    Args:
      digits: K.
      height: of a digit, view widths. Its width is 5/7 of it.
      speed: view widths a frame. The direction is drawn.
    Raises: ConfigError for a value outside its limits, and for hold_out: nothing is held out.
    """

    digits: int = 2
    height: float = 0.35
    speed: tuple[float, float] = (0.02, 0.06)

    kind: ClassVar[str] = "episodes"
    action_size: ClassVar[int] = 1
    proprio_names: ClassVar[tuple[str, ...]] = ()
    setup_type: ClassVar[type] = Setup
    label_names: ClassVar[tuple[str, ...]] = ("count", "position/x", "position/y", "velocity/x", "velocity/y")
    state_names: ClassVar[tuple[str, ...]] = (
        "present", "position/x", "position/y", "velocity/x", "velocity/y", "digit",
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        check_integer("data.options.digits", self.digits, 1)
        if self.digits > 8:
            raise ConfigError(f"data.options.digits is {self.digits!r}; it must be at most 8")
        if isinstance(self.height, bool) or not isinstance(self.height, int | float) or not 0.1 <= self.height <= 0.6:
            raise ConfigError(f"data.options.height is {self.height!r}; it must be within 0.1 and 0.6")
        object.__setattr__(self, "speed", check_range("data.options.speed", self.speed, 0.0, 0.2))
        if self.hold_out:
            raise ConfigError(f"data.options.hold_out is True; {type(self).__name__} holds nothing out")

    @property
    def _half(self) -> np.ndarray:
        """Half width and half height, [2]."""
        return self.height / 2 * np.array([COLUMNS / ROWS, 1])

    def setup(self, i: int) -> Setup:
        """Digits anywhere in the view."""
        rng = self.rng(i)
        digit, half = rng.integers(0, 10, self.digits), self._half
        position = half + (1 - 2 * half) * rng.random((self.digits, 2))
        speed, heading = rng.uniform(*self.speed, self.digits), rng.uniform(0, 2 * np.pi, self.digits)
        return Setup(digit, position, speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1))

    def motion(self, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
        """Places and velocities [T,K,2]: straight lines that the edges fold back."""
        half = self._half
        room = 1 - 2 * half
        straight = setup.position - half + np.arange(self.frames)[:, None, None] * setup.velocity
        phase = straight % (2 * room)
        back = phase > room
        return half + np.where(back, 2 * room - phase, phase), np.where(back, -setup.velocity, setup.velocity)

    def play(self, setup: Setup, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene without the digits `removed`. Raises DataError."""
        removed = check_removed(removed, len(setup.digit))
        position, velocity = self.motion(setup)
        cover = np.stack([self._cover(BITS[digit], position[:, k]) for k, digit in enumerate(setup.digit)])
        cover[removed] = 0
        ink, hidden = np.zeros(cover.shape[1:]), np.zeros(cover.shape[1:], bool)
        for each in cover[::-1]:
            ink += each * (1 - ink)
        amodal = cover > 0
        masks = amodal.copy()
        for k in range(len(masks)):
            masks[k] &= ~hidden
            hidden |= amodal[k]
        digit = np.broadcast_to(setup.digit[:, None], (self.frames, len(removed), 1))
        states = np.concatenate([np.ones_like(digit), position, velocity, digit], -1).astype(np.float32)
        states[:, removed] = 0
        return {
            "video": np.repeat(np.rint(255 * ink).astype(np.uint8)[..., None], 3, -1), "masks": masks,
            "amodal": amodal, "states": states, "actions": np.zeros((self.frames, 1), np.float32),
            "labels": self.labels(states),
        }  # fmt: skip

    def _cover(self, bits: np.ndarray, place: np.ndarray) -> np.ndarray:
        """How much of each pixel a digit [7,5] at places [T,2] covers: 0 .. 1 [T,H,W], exact areas."""
        cell, edges = self.height / ROWS, np.arange(self.size + 1) / self.size
        along = []
        for axis, cells in enumerate((COLUMNS, ROWS)):
            low = place[:, axis, None, None] + cell * (np.arange(cells)[:, None] - cells / 2)  # [T,cells,1]
            overlap = np.minimum(edges[1:], low + cell) - np.maximum(edges[:-1], low)
            along.append(np.clip(overlap * self.size, 0, 1))
        across, down = along
        return (down.swapaxes(1, 2) @ bits @ across).clip(0, 1)
