"""Balls: discs and boxes that move, collide and hide each other."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import World, check_flag, check_range, check_removed, check_share, check_step
from cjepa_jax.data.worlds.physics import WALL, Bodies, Physics, graph, simulate


class Setup(NamedTuple):
    """Everything that scene i is before time starts."""

    bodies: Bodies
    physics: Physics
    colour: np.ndarray  # uint8 [K,3]
    depth: np.ndarray  # [K] distance from the viewer, 0 near .. 1 far: nearer objects are drawn later
    sky: np.ndarray  # [2,3] background colours at the top and the bottom, 0 .. 255


@dataclass(frozen=True)
class Balls(World):
    """Discs and boxes of different size, mass and colour under Newton's laws, with do(remove).

    World units: the view is 1 x 1, x to the right, y down, seconds. Most objects share a plane and collide; a share of
    `foreground` moves in a second plane in front, collides only within it and hides what is behind. Walls are seen as
    a frame. Gravity is seen as a background that darkens downwards. Mass is not visible. A dark mark inside each
    object turns with it.

    The question: is object j in the right half of the view at the end? Held out are (`hold_out`): 1 or 2 objects more
    than `objects` says; hues by shape, as layout.colours says; layouts whose mean place is in the lower right quarter.

    objects: least and most objects. radius: of discs, in view widths; boxes have the same area; all shrink where they
    would not fit. speed: initial, view widths / s. dt: seconds between frames. gravity, walls: True or False for all
    scenes, None: drawn per scene (even odds; walls 3 in 4). boxes: share of boxes. foreground: share in front.

    A scene holds video uint8 [T,H,W,3], visible `masks` and full `amodal` masks bool [K,T,H,W], `states` float32
    [T,K,S] (columns: state_names), `contacts` float32 [C,4] (first and last time in frames, object a, object b or -1
    for a wall; see physics.simulate), their `graph` bool [K,K], `labels` float32 [P] (label_names: count, then means
    at frame T // 2).
    A removed object keeps its row: its states are 0, its masks empty.
    """

    objects: tuple[int, int] = (3, 6)
    radius: tuple[float, float] = (0.09, 0.16)
    speed: tuple[float, float] = (0.8, 2.4)
    dt: float = 0.1
    gravity: bool | None = None
    walls: bool | None = None
    boxes: float = 0.4
    foreground: float = 0.25

    setup_type: ClassVar[type] = Setup
    question: ClassVar[str] = "Is object j in the right half of the view at the end?"
    label_names: ClassVar[tuple[str, ...]] = (
        "count", "position/x", "position/y", "velocity/x", "velocity/y", "size/area",
    )  # fmt: skip
    state_names: ClassVar[tuple[str, ...]] = (
        "present",  # 1, or 0 if removed (then the whole row is 0)
        "position/x", "position/y",  # centre, view widths
        "angle",  # radians, clockwise as seen
        "velocity/x", "velocity/y",  # view widths / s
        "spin",  # radians / s
        "size/width", "size/height",  # at angle 0, view widths
        "size/area",  # share of the view
        "mass",  # density x area; densities 0.5 .. 2
        "box",  # 1 box, 0 disc
        "depth",  # 0 near .. 1 far
        "layer",  # objects of one layer collide: 0 back, 1 front
        "colour/r", "colour/g", "colour/b",  # 0 .. 1
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "objects", check_range("data.options.objects", self.objects, 1, 16, int))
        object.__setattr__(self, "radius", check_range("data.options.radius", self.radius, 0.01, 0.3))
        object.__setattr__(self, "speed", check_range("data.options.speed", self.speed, 0.0, 20.0))
        check_step("data.options.dt", self.dt)
        for name in ("boxes", "foreground"):
            check_share(f"data.options.{name}", getattr(self, name))
        for name in ("gravity", "walls"):
            check_flag(f"data.options.{name}", getattr(self, name))

    def setup(self, i: int) -> Setup:
        """Initial conditions of scene i, independent of size, frames and dt."""
        rng = self.rng(i)
        count = self.object_count(rng, self.objects)
        falls, walled = rng.random(2) < (0.5, 0.75)
        physics = Physics(
            gravity=3.0 * bool(falls if self.gravity is None else self.gravity),
            walls=bool(walled if self.walls is None else self.walls),
            restitution=rng.uniform(0.7, 0.95),
            friction=rng.uniform(0.0, 0.5),
        )
        u = rng.random((9, count))
        kind = np.where(u[0] < self.boxes, layout.BOX, layout.DISC)
        depth, front = u[1], u[1] < self.foreground
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * u[2]
        half = layout.half_sizes(kind, radius, 1.6 ** (2 * u[3] - 1))
        position, shrink = layout.place_held(rng, layout.reach(kind, half), front, WALL, held=self.held("layout"))
        half = half * shrink
        speed, heading = self.speed[0] + (self.speed[1] - self.speed[0]) * u[4], 2 * np.pi * u[5]
        velocity = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
        mass = layout.areas(kind, half) * 2 ** (2 * u[6] - 1)
        bodies = Bodies(kind, half, position, 2 * np.pi * u[7], velocity, 6 * (2 * u[8] - 1), mass, front.astype(int))
        base = rng.uniform(150, 235) + rng.uniform(-12, 12, 3)
        sky = np.clip(np.stack([base, base - (45 if physics.gravity else 0)]), 0, 255)
        colours = layout.colours(rng, count, kind, self.held("colour"))
        return Setup(bodies, physics, colours, depth, sky)

    def play(self, setup: Setup, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene under do(remove), simulated from its initial conditions. Raises DataError."""
        removed = check_removed(removed, len(setup.depth))
        motion, contacts = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed)
        polygons = self.polygons(setup, motion)
        visible, amodal = draw.masks(polygons, order(setup, removed), self.frames, self.size)
        states = self.states(setup, motion, removed)
        return {
            "video": self.video(setup, motion, polygons, removed),
            "masks": visible,
            "amodal": amodal,
            "states": states,
            "contacts": contacts,
            "graph": graph(contacts, len(removed)),
            "labels": self.labels(states),
        }

    def film(self, setup: Setup, removed: np.ndarray | None = None) -> np.ndarray:
        """The video alone of the scene under do(remove), uint8 [T,H,W,3]. Raises DataError."""
        removed = check_removed(removed, len(setup.depth))
        motion, _ = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed, events=False)
        return self.video(setup, motion, self.polygons(setup, motion), removed)

    def outcome(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each object ends in the right half [K], and where [K,2]."""
        motion, _ = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed, events=False)
        final = np.where(removed[:, None], 0, motion[-1, :, :2]).astype(np.float32)
        return final[:, 0] > 0.5, final

    def asked(self, setup: Setup) -> np.ndarray:
        """Every object."""
        return np.ones(len(setup.depth), bool)

    def polygons(self, setup: Setup, motion: np.ndarray) -> list[list[np.ndarray]]:
        """The objects' outlines in pixels, fixed point: one part [T,V,2] each."""
        world = layout.outlines(setup.bodies.kind, setup.bodies.half, motion[..., :2], motion[..., 2])
        return draw.outlines(world, self.size)

    def video(self, setup: Setup, motion: np.ndarray, polygons: list, removed: np.ndarray) -> np.ndarray:
        """Far to near, each object in its colour with a darker mark of its shape, off centre so that turning shows."""
        half = setup.bodies.half
        cos, sin = np.cos(motion[..., 2]), np.sin(motion[..., 2])
        offset = 0.35 * half[:, 0, None] * np.stack([cos, sin], -1)
        world = layout.outlines(setup.bodies.kind, 0.4 * half, motion[..., :2] + offset, motion[..., 2])
        marks = draw.outlines(world, self.size)
        picture = draw.gradient(self.size, *setup.sky)
        if setup.physics.walls:
            draw.frame(picture, WALL, 0.35)
        video = np.repeat(picture[None], self.frames, 0)
        colour, dark = setup.colour.tolist(), (setup.colour * 0.6).astype(np.uint8).tolist()
        for k in order(setup, removed):
            for t in range(self.frames):
                draw.fill(video[t], polygons[k][0][t], colour[k])
                draw.fill(video[t], marks[k][0][t], dark[k])
        return video

    def states(self, setup: Setup, motion: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """States float32 [T,K,S], columns as state_names; rows of removed objects are 0."""
        bodies = setup.bodies
        fixed = [2 * bodies.half[:, 0], 2 * bodies.half[:, 1], layout.areas(bodies.kind, bodies.half), bodies.mass]
        fixed += [bodies.kind, setup.depth, bodies.layer, *(setup.colour / 255).T]
        states = np.empty((*motion.shape[:2], len(self.state_names)), np.float32)
        states[..., 0], states[..., 1:7], states[..., 7:] = 1, motion, np.stack(fixed, -1)
        states[:, removed] = 0
        return states


def order(setup: Setup, removed: np.ndarray) -> list[int]:
    """Present objects from far to near."""
    return [k for k in np.argsort(-setup.depth, kind="stable").tolist() if not removed[k]]
