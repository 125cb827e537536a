"""Rigid bodies in the plane, simulated with Chipmunk (pymunk).

Objects not connected to a removed object by contacts keep bit-identical trajectories. Sequential impulses depend on
the order in which the engine finds colliding pairs. Chipmunk's default bounding-box tree changes that order whenever
any body moves differently. Its spatial hash visits shapes by id, and the result for a pair depends on the two bodies
only. So this module uses the spatial hash and adds bodies in a fixed order. A removed body stays in the space with a
filter that excludes all collisions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pymunk
from pymunk import batch

from cjepa_jax.data.worlds.layout import BOX, DISC, areas, parts

WALL = 0.03  # thickness of the walls inside the view, in view widths
MOVING, FIXED, DRIVEN = 0, 1, 2  # modes: moved by forces, always at rest, always at its initial velocity and spin


class Bodies(NamedTuple):
    """Initial conditions of K bodies. Lengths in view widths, y down, angles in radians clockwise, times in seconds."""

    kind: np.ndarray  # [K] DISC, BOX, TRIANGLE or JAR
    half: np.ndarray  # [K,2] half width and half height. For a disc both are the radius.
    position: np.ndarray  # [K,2]
    angle: np.ndarray  # [K]
    velocity: np.ndarray  # [K,2]
    spin: np.ndarray  # [K]
    mass: np.ndarray  # [K]
    layer: np.ndarray  # [K] bodies of different layers do not collide
    mode: np.ndarray | None = None  # [K] MOVING, FIXED or DRIVEN. None: all are MOVING.


class Physics(NamedTuple):
    """Parameters of the whole scene. gravity: view widths / s^2, downwards."""

    gravity: float
    walls: bool
    restitution: float
    friction: float
    pads: np.ndarray = np.zeros((0, 8))  # [P,8] launch pads: owner, time in s, box low x, y, high x, y, velocity x, y
    iterations: int = 10  # of the contact solver. Stacks need more.
    substeps: int = 16  # physics steps between frames. A power of two makes contact times in frames exact.
    ground: float | None = None  # y of the top of an infinite horizontal ground. None: no ground.
    floor: bool = False  # whether contacts report the lower wall and the ground as object -2, other walls as -1


def simulate(
    bodies: Bodies, physics: Physics, frames: int, dt: float, removed: np.ndarray, events: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Simulates a clip.

    `first` and `last` of a contact are times in frames, at the ends of physics steps. In the first of these steps the
    two bodies began to touch. In the last one they had separated, or the clip ended. `a` is a body. `b` is another body
    with a < b, or -1 for a wall or the ground (-2: see Physics.floor). Contacts are sorted by first, then a, then b.
    A contact changes states from `first` on.

    Removed bodies (`removed` bool [K]) continue to move but touch nothing. At its time a pad gives its velocity to
    every moving body with its centre in the box, unless the owner is removed. This counts as a contact of the two.

    Args:
      events: False returns no contacts. The motion is the same.
    Returns: motion float64 [T,K,6] (x, y, angle, vx, vy, spin) and contacts float32 [C,4] (first, last, a, b).
    """
    space = pymunk.Space()
    space.gravity = (0.0, physics.gravity)
    space.iterations = physics.iterations
    space.collision_slop = 5e-4  # Chipmunk's default of 0.1 is meant for pixels
    space.use_spatial_hash(0.25, 127)
    walls = add_walls(space, physics)
    index = add_bodies(space, bodies, physics, removed)
    log, substeps = Recorder(space, walls | index) if events else None, physics.substeps
    objects = list(dict.fromkeys(shape.body for shape in index))  # each body once, in order
    launches: dict[int, list] = {}
    for pad in physics.pads.tolist():
        if not removed[int(pad[0])]:
            launches.setdefault(round(pad[1] / dt * substeps), []).append(pad)
    motion = np.empty((frames, len(objects), 6))
    each, read = reader(space, objects)
    for t in range(frames):
        for step in range((t - 1) * substeps if t else 0, t * substeps):
            if log is not None:
                log.step = step + 1
            for pad in launches.get(step, ()):
                launch(objects, removed, pad, log)
            space.step(dt / substeps)
        motion[t, each] = read()
    return motion, np.zeros((0, 4), np.float32) if log is None else log.close(frames - 1, substeps)


def reader(space: pymunk.Space, objects: list[pymunk.Body]) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """The bodies [K] in Chipmunk's order, and a function that reads their position, angle, velocity and spin [K,6]."""
    fields, buffer = batch.BodyFields, batch.Buffer()
    batch.get_space_bodies(space, fields.BODY_ID, buffer)
    order = np.frombuffer(buffer.int_buf(), np.uintp).tolist()  # valid until a body is added
    place = {body.id: k for k, body in enumerate(objects)}
    rows = [n for n, body in enumerate(order) if body in place]  # without the static body of the walls
    wanted = fields.POSITION | fields.ANGLE | fields.VELOCITY | fields.ANGULAR_VELOCITY

    def read() -> np.ndarray:
        buffer.clear()
        batch.get_space_bodies(space, wanted, buffer)
        return np.frombuffer(buffer.float_buf()).reshape(-1, 6)[rows]

    return np.array([place[order[n]] for n in rows], int), read


def add_bodies(space: pymunk.Space, bodies: Bodies, physics: Physics, removed: np.ndarray) -> dict[pymunk.Shape, int]:
    """Add all bodies in order. Returns a dictionary from shapes to body indices."""
    index = {}
    columns = (bodies.kind, bodies.half, bodies.position, bodies.angle, bodies.velocity, bodies.spin, bodies.mass)
    mode = np.zeros(len(bodies.kind), int) if bodies.mode is None else bodies.mode
    rows = zip(*(column.tolist() for column in (*columns, bodies.layer, mode, removed)), strict=True)
    for k, (kind, (w, h), position, angle, velocity, spin, mass, layer, how, gone) in enumerate(rows):
        if how == MOVING:
            body = pymunk.Body(mass, moment(kind, bodies.half[k], mass))
        else:
            body = pymunk.Body(body_type=pymunk.Body.STATIC if how == FIXED else pymunk.Body.KINEMATIC)
        body.position, body.angle = tuple(position), angle
        if how != FIXED:
            body.velocity, body.angular_velocity = tuple(velocity), spin
        if kind == DISC:
            shapes = [pymunk.Circle(body, w)]
        elif kind == BOX:
            shapes = [pymunk.Poly.create_box(body, (2 * w, 2 * h))]
        else:
            shapes = [pymunk.Poly(body, part.tolist()) for part in parts(kind, bodies.half[k])]
        bit = 0 if gone else 1 << (layer + 1)
        for shape in shapes:
            shape.elasticity = physics.restitution**0.5  # Chipmunk multiplies the values of a pair
            shape.friction = physics.friction**0.5
            shape.filter = pymunk.ShapeFilter(categories=bit, mask=bit and bit | 1)
            index[shape] = k
        space.add(body, *shapes)
    return index


def moment(kind: int, half: np.ndarray, mass: float) -> float:
    """Moment of inertia about the origin of the object's parts, which have equal density."""
    w, h = half.tolist()
    if kind == DISC:
        return mass * (w * w / 2)
    if kind == BOX:
        return mass * ((w * w + h * h) / 3)
    density = mass / float(areas(np.array([kind]), half[None])[0])
    pieces = [part.tolist() for part in parts(kind, half)]
    return sum(pymunk.moment_for_poly(density * abs(pymunk.area_for_poly(p)), p) for p in pieces)


def launch(objects: list[pymunk.Body], removed: np.ndarray, pad: list[float], log: "Recorder | None") -> None:
    """Set the velocity of the moving bodies in a pad's box to the pad's velocity."""
    owner, _, left, top, right, bottom, vx, vy = pad
    for k, body in enumerate(objects):
        x, y = body.position
        moves = body.body_type == pymunk.Body.DYNAMIC and not removed[k]
        if moves and left <= x <= right and top <= y <= bottom:
            body.velocity = (vx, vy)
            if log is not None:
                log.done.append((log.step, log.step, *sorted((k, int(owner)))))


def graph(contacts: np.ndarray, objects: int) -> np.ndarray:
    """The contact graph, bool [K,K], symmetric: whether two objects touched within the clip."""
    touched = np.zeros((objects, objects), bool)
    pairs = contacts[contacts[:, 3] >= 0, 2:].astype(int)
    touched[pairs[:, 0], pairs[:, 1]] = touched[pairs[:, 1], pairs[:, 0]] = True
    return touched


def after(contacts: np.ndarray, at: int, substeps: int) -> np.ndarray:
    """The rows of contacts [C,4] that a simulation from the state at frame `at` has too.

    They begin after it, or the bodies still touch in the first step after it, at whose end `last` is when they do not.
    """
    first, last = np.rint(contacts[:, :2].astype(np.float64).T * substeps)  # exact: see Physics.substeps
    return contacts[(first > at * substeps) | (last > at * substeps + 1)]


def reached(contacts: np.ndarray, removed: np.ndarray, mode: np.ndarray | None = None) -> np.ndarray:
    """The time in frames at which a chain of contacts from the removed bodies reaches each body, [K]. Infinity: never.

    `contacts` must be those of both simulations, with and without the removed bodies. A body that forces do not move
    transmits nothing, unless it is itself removed.
    """
    time = np.where(removed, 0.0, np.inf)
    moves = np.ones(len(removed), bool) if mode is None else mode == MOVING
    while True:
        new = time.copy()
        for first, last, a, b in contacts.tolist():
            for x, y in ((int(a), int(b)), (int(b), int(a))):
                if b >= 0 and moves[y] and time[x] <= last:
                    new[y] = min(new[y], max(first, time[x]))
        if (new == time).all():
            return time
        time = new


def add_walls(space: pymunk.Space, physics: Physics) -> dict[pymunk.Shape, int]:
    """Adds four thick walls whose inner sides are WALL inside the view, and the ground, as `physics` asks for them.

    Returns: a dictionary from shapes to their numbers in contacts.
    """
    thick, index = 0.25, {}
    low, high = WALL - thick, 1 - WALL + thick
    sides = (((-1, low), (2, low)), ((-1, high), (2, high)), ((low, -1), (low, 2)), ((high, -1), (high, 2)))
    ends = sides if physics.walls else ()
    if physics.ground is not None:
        ends = (*ends, ((-9, physics.ground + thick), (10, physics.ground + thick)))
    for a, b in ends:
        wall = pymunk.Segment(space.static_body, a, b, thick)
        wall.elasticity, wall.friction = physics.restitution**0.5, physics.friction**0.5
        wall.filter = pymunk.ShapeFilter(categories=1)
        space.add(wall)
        index[wall] = -2 if physics.floor and a[1] == b[1] > 0.5 else -1
    return index


class Recorder:
    """Records the contacts of a space. The caller keeps `step` up to date."""

    def __init__(self, space: pymunk.Space, index: dict[pymunk.Shape, int]):
        self.space, self.index, self.step = space, index, 0
        self.touching: dict[tuple[pymunk.Shape, ...], int] = {}  # by shapes: in a corner a body touches two walls
        self.done: list[tuple[float, float, int, int]] = []
        space.on_collision(None, None, begin=self.begin, separate=self.separate)

    def begin(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data) -> None:
        self.touching[arbiter.shapes] = self.step

    def separate(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data) -> None:
        shapes = arbiter.shapes
        first = self.touching.pop(shapes) if shapes in self.touching else self.touching.pop(shapes[::-1])
        self.add(shapes, first, self.step)

    def add(self, shapes: tuple[pymunk.Shape, ...], first: int, last: int) -> None:
        a, b = sorted(self.index[shape] for shape in shapes)
        self.done.append((first, last, b, a) if a < 0 else (first, last, a, b))

    def close(self, last: int, substeps: int) -> np.ndarray:
        """The contacts [C,4] until frame `last`. Removes the callbacks, because freeing the space would call them."""
        self.space.on_collision(None, None, begin=pymunk.empty_callback, separate=pymunk.empty_callback)
        for shapes, first in self.touching.items():
            self.add(shapes, first, last * substeps)
        contacts = np.array(sorted(self.done, key=lambda row: (row[0], *row[2:])), np.float32).reshape(-1, 4)
        contacts[:, :2] /= substeps
        return contacts
