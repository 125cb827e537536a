"""Balls: discs and boxes that move, collide and occlude each other."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import check_flag, check_range, check_share
from cjepa_jax.data.worlds.physics import WALL, Bodies, Physics, simulate
from cjepa_jax.data.worlds.rigid import Rigid
from cjepa_jax.errors import ConfigError

SUBSTEPS = Physics._field_defaults["substeps"]


class Setup(NamedTuple):
    """The initial state of a scene."""

    bodies: Bodies
    physics: Physics
    colour: np.ndarray  # uint8 [K,3]
    depth: np.ndarray  # [K] distance from the viewer, 0 near .. 1 far. Nearer objects are drawn later.
    sky: np.ndarray  # [2,3] background colours at the top and the bottom, 0 .. 255


@dataclass(frozen=True)
class Balls(Rigid):
    """Discs and boxes of different size, mass and colour under Newton's laws.

    Units, the contents of a scene and interventions are those of rigid.Rigid. Most objects share one plane and collide.
    The share `foreground` moves in a second plane in front. Those objects collide only with each other and occlude the
    rest. Walls are drawn as a frame. Gravity is drawn as a background that darkens downwards.

    Gravity is 3 view widths / s^2 or 0. Walls are 0.03 thick inside the view. Per scene: restitution 0.7 .. 0.95,
    friction 0 .. 0.5. Per object: spin -6 .. 6 radians / s, density 0.5 .. 2 (log-uniform), a box's width 1 / 1.6 ..
    1.6 of its height (log-uniform), any angle and direction of motion. Mass, restitution and friction are not visible.
    A frame takes 16 physics steps. Restitution is Newton's. With friction, an impact can give a turning object energy.

    The question: is object j in the right half of the view at the end?

    `hold_out` holds out three things. For "count": 1 or 2 objects more than `objects` allows. For "colour": hues per
    shape, see layout.colours. For "layout": scenes whose mean position is in the lower right quarter.

    Args:
      objects: minimum and maximum number of objects.
      radius: of discs, in view widths. Boxes have the same area. All shrink where they would not fit.
      speed: initial speed, view widths / s. The limit is the minimum radius per physics step. A faster object could
        pass through others.
      gravity, walls: True or False for all scenes. None: drawn per scene (probability 1/2, walls 3/4).
      boxes: share of boxes.
      foreground: share of objects in the front plane.
    """

    objects: tuple[int, int] = (3, 6)
    radius: tuple[float, float] = (0.09, 0.16)
    speed: tuple[float, float] = (0.8, 2.4)
    gravity: bool | None = None
    walls: bool | None = None
    boxes: float = 0.4
    foreground: float = 0.25

    setup_type: ClassVar[type] = Setup
    question: ClassVar[str] = "Is object j in the right half of the view at the end?"
    state_names: ClassVar[tuple[str, ...]] = (
        *Rigid.state_names[:-3],
        "box",  # 1 box, 0 disc
        "depth",  # 0 near .. 1 far
        "layer",  # 0 back, 1 front. Only objects of the same layer collide.
        *Rigid.state_names[-3:],
    )

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "objects", check_range("data.options.objects", self.objects, 1, 16, int))
        object.__setattr__(self, "radius", check_range("data.options.radius", self.radius, 0.01, 0.3))
        object.__setattr__(self, "speed", check_range("data.options.speed", self.speed, 0.0, 20.0))
        for name in ("boxes", "foreground"):
            check_share(f"data.options.{name}", getattr(self, name))
        for name in ("gravity", "walls"):
            check_flag(f"data.options.{name}", getattr(self, name))
        limit = self.radius[0] * SUBSTEPS / self.dt
        self.check_speed(limit)
        if self.speed[1] > limit:
            raise ConfigError(
                f"data.options.speed is {self.speed!r}; with data.options.dt = {self.dt:g} and the least of "
                f"data.options.radius = {self.radius[0]:g} its high must be at most {limit:.4g}, or walls leak"
            )

    def setup(self, i: int) -> Setup:
        """Initial state of scene i, independent of size, frames and dt."""
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
        bodies = Bodies(
            kind=kind,
            half=half,
            position=position,
            angle=2 * np.pi * u[7],
            velocity=velocity,
            spin=6 * (2 * u[8] - 1),
            mass=mass,
            layer=front.astype(int),
        )
        base = rng.uniform(150, 235) + rng.uniform(-12, 12, 3)
        sky = np.clip(np.stack([base, base - (45 if physics.gravity else 0)]), 0, 255)
        colours = layout.colours(rng, count, kind, self.held("colour"))
        return Setup(bodies, physics, colours, depth, sky)

    def outcome(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each object ends in the right half, bool [K], and final positions [K,2]."""
        act = self.done(setup, removed)
        motion, _ = simulate(act.setup.bodies, setup.physics, self.frames, self.dt, act.removed, events=False)
        final = np.where(act.removed[:, None], 0, motion[-1, :, :2]).astype(np.float32)[: len(removed)]
        return final[:, 0] > 0.5, final

    def asked(self, setup: Setup) -> np.ndarray:
        """Every object."""
        return np.ones(len(setup.depth), bool)

    def order(self, setup: Setup, removed: np.ndarray) -> list[int]:
        """The objects that are not removed, from far to near."""
        return [k for k in np.argsort(-setup.depth, kind="stable").tolist() if not removed[k]]

    def background(self, setup: Setup) -> np.ndarray:
        """A sky. Scenes with walls have a dark frame around it."""
        picture = draw.gradient(self.size, *setup.sky)
        if setup.physics.walls:
            draw.frame(picture, WALL, 0.35)
        return picture

    def traits(self, setup: Setup) -> np.ndarray:
        """Shape, depth, layer and colour [K,6]."""
        bodies = setup.bodies
        return np.stack([bodies.kind, setup.depth, bodies.layer, *(setup.colour / 255).T], -1)
