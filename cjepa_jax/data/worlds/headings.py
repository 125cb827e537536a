"""Headings: Balls with one white object. It starts in one of eight directions, which is the scene's class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cjepa_jax.data.worlds.balls import Balls, Setup
from cjepa_jax.data.worlds.motion import DIRECTIONS, SUN
from cjepa_jax.errors import ConfigError

WHITE = 255


@dataclass(frozen=True)
class Headings(Balls):
    """Balls with a white object, object 0, which starts in one of eight directions. The others move as in Balls.

    A scene's `class` is the direction in which the white object starts: 0 right, 1 down and right, 2 down, and so on
    clockwise, with equal chances. Later it may collide with walls and other objects, so it has another direction at the
    end of most clips. All else in the initial state is drawn independently of the direction. The mean place of a clip
    is not: the object has moved in this direction. docs/WORLDS.md says how much that gives away.

    do(direction): `twin(i, direction)` is scene i simulated again, with the white object started in another direction
    at the same speed.

    `labels` are causes of the white object in the first frame: the count of objects, the direction as a unit vector,
    speed, size as a share of the view, and place. Without the white object they are 0, but for the count.

    Args: as Balls, with slower objects, no gravity and walls by default, and all in one plane. `speed` must be above 0.
    """

    objects: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.09, 0.13)
    speed: tuple[float, float] = (0.15, 0.3)
    gravity: bool | None = False
    walls: bool | None = True
    foreground: float = 0.0

    label_names: ClassVar[tuple[str, ...]] = (
        "count", "direction/x", "direction/y", "speed", "size", "place/x", "place/y",
    )  # fmt: skip
    classes: ClassVar[int] = DIRECTIONS  # of `class`, and the values of `twin`

    def __post_init__(self):
        super().__post_init__()
        if self.speed[0] <= 0:
            raise ConfigError(f"data.options.speed is {self.speed!r}; its low must be above 0: directions need a speed")

    def setup(self, i: int) -> Setup:
        """Initial state of scene i: that of Balls, with the white object's heading rounded to a direction."""
        setup = super().setup(i)
        setup.colour[0] = WHITE
        return started(setup, direction_of(setup.bodies.velocity[0]))

    def drawn(self, setup: Setup, removed: np.ndarray) -> dict[str, np.ndarray]:
        """The scene of Balls, and its class."""
        return super().drawn(setup, removed) | {"class": np.array(direction_of(setup.bodies.velocity[0]), np.int64)}

    def twin(self, i: int, direction: int) -> np.ndarray:
        """The video of scene i under do(direction): uint8 [T,H,W,3]. Raises IndexError."""
        if not 0 <= direction < DIRECTIONS:
            raise IndexError(f"direction {direction} is out of range: 0 to {DIRECTIONS - 1}")
        return self.film(started(self.setup(i), int(direction)))

    def labels(self, states: np.ndarray) -> np.ndarray:
        """Probe targets float32 [P] as label_names, from states [T,K,S]."""
        first = dict(zip(self.state_names, states[0, 0].astype(float), strict=True))
        velocity = np.array([first["velocity/x"], first["velocity/y"]])
        speed = np.hypot(*velocity)
        place = first["position/x"], first["position/y"]
        count = states[0, :, self.state_names.index("present")].sum()
        return np.array([count, *velocity / (speed or 1.0), speed, first["size/area"], *place], np.float32)


def direction_of(velocity: np.ndarray) -> int:
    """The nearest of the eight directions to a velocity (x, y), y down: 0 to 7."""
    return int(np.round(np.arctan2(velocity[1], velocity[0]) / (2 * np.pi / DIRECTIONS))) % DIRECTIONS


def started(setup: Setup, direction: int) -> Setup:
    """The initial state with the white object started in this direction, at its own speed."""
    velocity = setup.bodies.velocity.copy()
    velocity[0] = np.hypot(*velocity[0]) * SUN[direction]
    return setup._replace(bodies=setup.bodies._replace(velocity=velocity))
