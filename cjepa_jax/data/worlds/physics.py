"""Rigid discs and boxes under Chipmunk (pymunk), arranged so that a removed body changes nothing it never touches.

Sequential impulses depend on the order in which pairs are found. Chipmunk's default bounding-box tree changes that
order whenever any body moves differently; its spatial hash visits shapes by id, and what it finds for a pair depends
on the two bodies only. So: spatial hash, every body added in a fixed order, and a removed body stays in the space
with a filter that meets nothing.
"""

from typing import NamedTuple

import numpy as np
import pymunk

from cjepa_jax.data.worlds.layout import BOX

WALL = 0.03  # thickness of the walls inside the view, in view widths
SUBSTEPS = 16  # physics steps between frames; a power of two, so contact times in frames are exact


class Bodies(NamedTuple):
    """Initial conditions of K bodies. Lengths in view widths, y down, angles in radians clockwise, times in seconds."""

    kind: np.ndarray  # [K] DISC or BOX
    half: np.ndarray  # [K,2] half width and height; a disc's radius twice
    position: np.ndarray  # [K,2]
    angle: np.ndarray  # [K]
    velocity: np.ndarray  # [K,2]
    spin: np.ndarray  # [K]
    mass: np.ndarray  # [K]
    layer: np.ndarray  # [K] bodies of different layers do not collide


class Physics(NamedTuple):
    """What holds for the whole scene. gravity: view widths / s^2, down."""

    gravity: float
    walls: bool
    restitution: float
    friction: float


def simulate(
    bodies: Bodies, physics: Physics, frames: int, dt: float, removed: np.ndarray, events: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Motion float64 [T,K,6] (x, y, angle, vx, vy, spin) and contacts float32 [C,4] (first, last, a, b).

    first and last are the times in frames at the end of the physics steps in which two bodies began to touch and had
    come apart (or the clip ended); a is a body, b another with a < b, or -1 for a wall; in order of first, then a, b.
    A contact changes states from `first` on. Disabled bodies (`removed` bool [K]) fly on and touch nothing.
    With events=False the contacts are left empty; the motion is the same.
    """
    space = pymunk.Space()
    space.gravity = (0.0, physics.gravity)
    space.collision_slop = 5e-4  # Chipmunk's default of 0.1 is meant for pixels
    space.use_spatial_hash(0.25, 127)
    if physics.walls:
        add_walls(space, physics)
    index = add_bodies(space, bodies, physics, removed)
    log = Recorder(space, index) if events else None
    objects = [shape.body for shape in index]
    motion = np.empty((frames, len(objects), 6))
    for t in range(frames):
        for step in range(SUBSTEPS if t else 0):
            if log is not None:
                log.step = (t - 1) * SUBSTEPS + step + 1
            space.step(dt / SUBSTEPS)
        motion[t] = [(*b.position, b.angle, *b.velocity, b.angular_velocity) for b in objects]
    return motion, np.zeros((0, 4), np.float32) if log is None else log.close((frames - 1) * SUBSTEPS)


def add_bodies(space: pymunk.Space, bodies: Bodies, physics: Physics, removed: np.ndarray) -> dict[pymunk.Shape, int]:
    """Add all bodies in order; returns each one's shape with its index."""
    index = {}
    columns = (bodies.kind, bodies.half, bodies.position, bodies.angle, bodies.velocity, bodies.spin, bodies.mass)
    rows = zip(*(column.tolist() for column in columns), bodies.layer.tolist(), removed.tolist(), strict=True)
    for k, (kind, (w, h), position, angle, velocity, spin, mass, layer, gone) in enumerate(rows):
        inertia = mass * ((w * w + h * h) / 3 if kind == BOX else w * w / 2)
        body = pymunk.Body(mass, inertia)
        body.position, body.angle, body.velocity, body.angular_velocity = tuple(position), angle, tuple(velocity), spin
        shape = pymunk.Poly.create_box(body, (2 * w, 2 * h)) if kind == BOX else pymunk.Circle(body, w)
        shape.elasticity, shape.friction = physics.restitution**0.5, physics.friction**0.5  # a pair's is the product
        bit = 0 if gone else 1 << (layer + 1)
        shape.filter = pymunk.ShapeFilter(categories=bit, mask=bit and bit | 1)
        space.add(body, shape)
        index[shape] = k
    return index


def add_walls(space: pymunk.Space, physics: Physics) -> None:
    """Four thick walls whose inner sides are WALL inside the view."""
    thick = 0.25
    low, high = WALL - thick, 1 - WALL + thick
    for a, b in (((-1, low), (2, low)), ((-1, high), (2, high)), ((low, -1), (low, 2)), ((high, -1), (high, 2))):
        wall = pymunk.Segment(space.static_body, a, b, thick)
        wall.elasticity, wall.friction = physics.restitution**0.5, physics.friction**0.5
        wall.filter = pymunk.ShapeFilter(categories=1)
        space.add(wall)


class Recorder:
    """Collects the contacts of a space while its `step` is kept up to date."""

    def __init__(self, space: pymunk.Space, index: dict[pymunk.Shape, int]):
        self.space, self.index, self.step = space, index, 0
        self.touching: dict[tuple[pymunk.Shape, ...], int] = {}  # by shapes: in a corner a body meets two walls
        self.done: list[tuple[float, float, int, int]] = []
        space.on_collision(None, None, begin=self.begin, separate=self.separate)

    def begin(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data) -> None:
        self.touching[arbiter.shapes] = self.step

    def separate(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data) -> None:
        shapes = arbiter.shapes
        first = self.touching.pop(shapes) if shapes in self.touching else self.touching.pop(shapes[::-1])
        self.add(shapes, first, self.step)

    def add(self, shapes: tuple[pymunk.Shape, ...], first: int, last: int) -> None:
        a, b = sorted(self.index.get(shape, -1) for shape in shapes)
        self.done.append((first, last, b, a) if a < 0 else (first, last, a, b))

    def close(self, last: int) -> np.ndarray:
        """The contacts [C,4]. Takes the callbacks back: freeing the space would call them once more."""
        self.space.on_collision(None, None, begin=pymunk.empty_callback, separate=pymunk.empty_callback)
        for shapes, first in self.touching.items():
            self.add(shapes, first, last)
        contacts = np.array(sorted(self.done, key=lambda row: (row[0], *row[2:])), np.float32).reshape(-1, 4)
        contacts[:, :2] /= SUBSTEPS
        return contacts
