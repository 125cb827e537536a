"""Motion: one object moves in one of eight directions. Everything else about a clip is drawn independently of it."""

import colorsys
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import World, check_range, check_removed, check_share, check_step
from cjepa_jax.errors import ConfigError

DIRECTIONS = 8
GROUNDS = ("plain", "complex", "mixed")
TILES = 6  # a complex ground has 6 x 6 patches
SUN = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], -1)  # unit vectors, y down


class Setup(NamedTuple):
    """The initial state of a scene. Lengths in view widths. Object 0 moves."""

    kind: np.ndarray  # [K] DISC or BOX
    half: np.ndarray  # [K,2]
    position: np.ndarray  # [K,2] centres. Of the moving object: the middle of its path
    angle: np.ndarray  # [K]
    colour: np.ndarray  # uint8 [K,3]
    direction: int  # 0 .. 7, times 45 degrees clockwise from the right
    speed: float  # view widths / s
    ground: np.ndarray  # uint8 [6,6,3] colours of patches
    complex: bool  # whether the ground has patches


@dataclass(frozen=True)
class Motion(World):
    """A disc or a box that moves straight at constant speed in front of objects at rest, on a plain or complex ground.

    A scene's `class` is the direction: 0 right, 1 down and right, 2 down, and so on clockwise, with equal chances.
    Speed, size, shape, angle, colour, place and ground are drawn independently of it and of each other. The place is
    the middle of the path, which the object passes `middle` seconds after the first frame. So the mean position of a
    clip of 2 middle / dt + 1 frames says nothing about the direction. With the default ranges the path of 16 frames
    stays in view. Objects do not affect each other.

    do(direction): `twin(i, direction)` is scene i rendered again with another direction. Everything else is unchanged.

    A scene holds what a Balls scene holds, with empty contacts [0,4], and `class` int64 []. `labels` are the count of
    objects and the moving object's causes: direction as a unit vector, speed, size as a share of the view, hue in
    0 .. 1, and place. Without the moving object they are 0.

    `hold_out` holds out three things. For "count": 1 or 2 objects more than `objects` allows. For "colour": hues per
    shape, see layout.colours. For "layout": places in the lower right quarter.

    Args:
      objects: minimum and maximum number of objects, one of which moves. It is drawn in front of the others.
      radius: of discs. Boxes have the same area.
      speed: of the moving object, view widths / s.
      ground: "plain" (one grey), "complex" (patches of random colours) or "mixed" (each with probability 1/2).
      boxes: share of boxes.
      middle: seconds from the first frame to the middle of the path.
      dt: seconds between frames.
    """

    objects: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.08, 0.12)
    speed: tuple[float, float] = (0.15, 0.3)
    ground: str = "mixed"
    boxes: float = 0.5
    middle: float = 0.75
    dt: float = 0.1

    setup_type: ClassVar[type] = Setup
    label_names: ClassVar[tuple[str, ...]] = (
        "count", "direction/x", "direction/y", "speed", "size", "hue", "place/x", "place/y",
    )  # fmt: skip
    state_names: ClassVar[tuple[str, ...]] = (
        "present",  # 1, or 0 if removed (then the whole row is 0)
        "position/x", "position/y",  # centre, view widths
        "angle",  # radians, clockwise as seen
        "velocity/x", "velocity/y",  # view widths / s
        "size/width", "size/height",  # at angle 0, view widths
        "size/area",  # share of the view
        "box",  # 1 box, 0 disc
        "colour/r", "colour/g", "colour/b",  # 0 .. 1
    )  # fmt: skip
    classes: ClassVar[int] = DIRECTIONS  # of `class`, and the values of `twin`

    def __post_init__(self):
        super().__post_init__()
        for name, least, most, kind in (
            ("objects", 1, 16, int),
            ("radius", 0.01, 0.3, float),
            ("speed", 0.0, 20.0, float),
        ):
            value = check_range(f"data.options.{name}", getattr(self, name), least, most, kind)
            object.__setattr__(self, name, value)
        check_step("data.options.dt", self.dt)
        check_share("data.options.boxes", self.boxes)
        if self.ground not in GROUNDS:
            raise ConfigError(f"data.options.ground is {self.ground!r}; it must be one of {', '.join(GROUNDS)}")
        if isinstance(self.middle, bool) or not isinstance(self.middle, int | float) or not 0 <= self.middle <= 60:
            raise ConfigError(f"data.options.middle is {self.middle!r}; it must be a time from 0 to 60 s")

    @property
    def margin(self) -> float:
        """Least distance of the middle of a path from the border, view widths. At most 0.5."""
        return min(0.5, self.speed[1] * self.middle + 1.5 * self.radius[1])

    def setup(self, i: int) -> Setup:
        """Initial state of scene i, independent of size and frames."""
        rng = self.rng(i)
        count = self.object_count(rng, self.objects)
        direction, patched = int(rng.integers(DIRECTIONS)), rng.random() < 0.5
        patched = patched if self.ground == "mixed" else self.ground == "complex"
        speed = rng.uniform(*self.speed)
        u = rng.random((6, count))
        kind = np.where(u[0] < self.boxes, layout.BOX, layout.DISC)
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * u[1]
        half = layout.half_sizes(kind, radius, 1.6 ** (2 * u[2] - 1))
        position = self.margin + (1 - 2 * self.margin) * u[3:5].T
        position[1:] = 0.1 + 0.8 * u[3:5, 1:].T  # at rest: anywhere
        held = self.held("layout")
        while held is not None and bool((position[0] > 0.5).all()) != held:
            position[0] = rng.uniform(self.margin, max(self.margin + 1e-3, 1 - self.margin), 2)
        base = rng.uniform(90, 220)
        spread = rng.uniform(-45, 45, (TILES, TILES, 1)) + rng.uniform(-25, 25, (TILES, TILES, 3))
        ground = np.clip(base + spread * patched, 0, 255).astype(np.uint8)
        colours = layout.colours(rng, count, kind, self.held("colour"))
        return Setup(
            kind=kind,
            half=half,
            position=position,
            angle=2 * np.pi * u[5],
            colour=colours,
            direction=direction,
            speed=speed,
            ground=ground,
            complex=bool(patched),
        )

    def play(self, setup: Setup, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene under do(remove). Raises DataError."""
        removed = check_removed(removed, len(setup.kind))
        polygons, order = self.polygons(setup), [k for k in self.order(setup) if not removed[k]]
        visible, amodal = draw.masks(polygons, order, self.frames, self.size)
        states = self.states(setup, removed)
        return {
            "video": self._video(setup, polygons, order),
            "masks": visible,
            "amodal": amodal,
            "states": states,
            "contacts": np.zeros((0, 4), np.float32),
            "labels": self.labels(states),
            "class": np.array(setup.direction, np.int64),
        }

    def film(self, setup: Setup, removed: np.ndarray | None = None) -> np.ndarray:
        """The video only, uint8 [T,H,W,3]. Raises DataError."""
        removed = check_removed(removed, len(setup.kind))
        return self._video(setup, self.polygons(setup), [k for k in self.order(setup) if not removed[k]])

    def twin(self, i: int, direction: int) -> np.ndarray:
        """The video of scene i under do(direction): uint8 [T,H,W,3]. Raises IndexError."""
        if not 0 <= direction < DIRECTIONS:
            raise IndexError(f"direction {direction} is out of range: 0 to {DIRECTIONS - 1}")
        return self.film(self.setup(i)._replace(direction=int(direction)))

    def order(self, setup: Setup) -> list[int]:
        """The drawing order: the moving object last."""
        return list(range(len(setup.kind)))[::-1]

    def centres(self, setup: Setup) -> np.ndarray:
        """Centres in every frame [T,K,2]."""
        seconds = self.dt * np.arange(self.frames)[:, None] - self.middle
        path = np.repeat(setup.position[None], self.frames, 0)
        path[:, 0] += seconds * setup.speed * SUN[setup.direction]
        return path

    def polygons(self, setup: Setup) -> list[list[np.ndarray]]:
        """Outlines in fixed-point pixels: a part [T,V,2] for each object."""
        path = self.centres(setup)
        angle = np.broadcast_to(setup.angle, path.shape[:2])
        return draw.outlines(layout.outlines(setup.kind, setup.half, path, angle), self.size)

    def _video(self, setup: Setup, polygons: list, order: list[int]) -> np.ndarray:
        tile = np.arange(self.size) * TILES // self.size
        video = np.repeat(setup.ground[tile][:, tile][None], self.frames, 0)
        draw.paint(video, [(part, setup.colour[k].tolist()) for k in order for part in polygons[k]])
        return video

    def labels(self, states: np.ndarray) -> np.ndarray:
        """Probe targets float32 [P] as label_names, from states [T,K,S]."""
        first = dict(zip(self.state_names, states[0, 0].astype(float), strict=True))
        velocity = np.array([first["velocity/x"], first["velocity/y"]])
        speed = np.hypot(*velocity)
        hue = colorsys.rgb_to_hsv(*(first[f"colour/{c}"] for c in "rgb"))[0]
        place = np.array([first["position/x"], first["position/y"]]) + self.middle * velocity
        direction = velocity / (speed if speed else 1.0)
        count = states[0, :, self.state_names.index("present")].sum()
        return np.array([count, *direction, speed, first["size/area"], hue, *place], np.float32)

    def states(self, setup: Setup, removed: np.ndarray) -> np.ndarray:
        """States float32 [T,K,S], columns as state_names. Rows of removed objects are 0."""
        velocity = np.zeros_like(setup.position)
        velocity[0] = setup.speed * SUN[setup.direction]
        columns = [setup.angle, *velocity.T, *(2 * setup.half.T), layout.areas(setup.kind, setup.half), setup.kind]
        fixed = np.stack([*columns, *(setup.colour / 255).T], -1)
        states = np.empty((self.frames, len(removed), len(self.state_names)), np.float32)
        states[..., 0], states[..., 1:3], states[..., 3:] = 1, self.centres(setup), fixed
        states[:, removed] = 0
        return states
