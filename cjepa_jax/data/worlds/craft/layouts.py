"""Craft's scene layouts: positions of fixtures, and where moving objects start. Each layout may be mirrored."""

import math
from typing import NamedTuple

import numpy as np

from cjepa_jax.data.worlds.layout import BOX, JAR
from cjepa_jax.data.worlds.physics import DRIVEN, FIXED, WALL, Bodies

BASKET, LAUNCHER, BAR, SHELF, RAMP, LIFT, POST = range(7)  # roles of fixtures
ROLES = ("basket", "launcher", "turning bar", "shelf", "ramp", "lift", "post")
GROUND = 1 - WALL  # y of the ground
GRAVITY = 3.0  # view widths / s^2
THIN = 0.018  # half thickness of shelves, ramps, bars


class Fixture(NamedTuple):
    """An object that forces do not move: half sizes, centre, angle, velocity, spin."""

    role: int
    half: tuple[float, float]
    place: tuple[float, float]
    angle: float = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)
    spin: float = 0.0

    @property
    def kind(self) -> int:
        return JAR if self.role == BASKET else BOX

    @property
    def mode(self) -> int:
        return DRIVEN if self.role in (BAR, LIFT) else FIXED


class Zone(NamedTuple):
    """Where a moving object may start: at rest with its lowest point at `y`, or in the air within the range `y`."""

    x: tuple[float, float]
    y: float | tuple[float, float]
    velocity: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))  # ranges of x and y


class Plan(NamedTuple):
    """A layout with all random numbers drawn."""

    fixtures: list[Fixture]
    zones: list[Zone]  # object n starts in zone n. Further objects start in any zone.
    pads: list[list[float]]  # see Physics.pads


def basket(rng: np.random.Generator, low: float, high: float) -> Fixture:
    half = (rng.uniform(0.13, 0.17), rng.uniform(0.1, 0.13))
    return Fixture(BASKET, half, (rng.uniform(low, high), GROUND - half[1]))


def shelf(rng: np.random.Generator, x: float, y: tuple[float, float], half: float) -> tuple[Fixture, Zone]:
    """A shelf and the zone on it."""
    height = rng.uniform(*y)
    place = Fixture(SHELF, (half, THIN), (x, height))
    return place, Zone((x - half + 0.03, x + half - 0.03), height - THIN)


def pushed(on: Zone) -> tuple[Zone, Zone]:
    """Splits a zone on a shelf in two: one for an object that slides fast along it, one for objects that it hits."""
    return on._replace(x=(on.x[0], on.x[0] + 0.1), velocity=((1.2, 2.6), (0.0, 0.0))), on._replace(
        x=(on.x[0] + 0.2, on.x[1])
    )


def bar(rng: np.random.Generator, x: float, y: float, half: tuple[float, float]) -> Fixture:
    turn = rng.uniform(2.0, 4.5) * (1 if rng.random() < 0.5 else -1)
    return Fixture(BAR, (rng.uniform(*half), THIN), (x, y), rng.uniform(0, math.pi), spin=turn)


def launcher(rng: np.random.Generator, x: float, target: Fixture, owner: int) -> tuple[Fixture, Zone, list[float]]:
    """A launcher on the ground, the zone on it, and its pad: a throw at the target with a random error."""
    half, top = 0.1, GROUND - 2 * THIN
    speed = math.sqrt(2 * GRAVITY * rng.uniform(0.45, 0.75))
    flight = (speed + math.sqrt(max(0.0, speed**2 - 2 * GRAVITY * 2 * target.half[1]))) / GRAVITY
    across = (target.place[0] - x) / flight * rng.uniform(0.85, 1.15)
    fixture = Fixture(LAUNCHER, (half, THIN), (x, GROUND - THIN))
    pad = [owner, rng.uniform(0.15, 0.6), x - half, top - 0.2, x + half, top, across, -speed]
    return fixture, Zone((x - 0.04, x + 0.04), top), pad


def shelves(rng: np.random.Generator) -> Plan:
    """Objects rest on a shelf. Others move towards them from the side. The basket is below the shelf's end."""
    place, on = shelf(rng, rng.uniform(0.3, 0.36), (0.5, 0.62), 0.23)
    fast, on = pushed(on)
    goal = basket(rng, 0.66, 0.76)
    above = Zone((0.4, 0.92), (0.1, 0.25), ((-0.8, 0.2), (-0.3, 0.3)))
    return Plan([goal, place, bar(rng, rng.uniform(0.62, 0.85), 0.42, (0.1, 0.14))], [on, fast, above, on], [])


def launch(rng: np.random.Generator) -> Plan:
    """A launcher throws the objects on it at the basket, past a turning bar and falling objects."""
    goal = basket(rng, 0.66, 0.8)
    start, on, pad = launcher(rng, rng.uniform(0.16, 0.24), goal, 1)
    place, high = shelf(rng, rng.uniform(0.4, 0.48), (0.64, 0.76), 0.11)
    falling = Zone((0.3, 0.92), (0.1, 0.3), ((-0.5, 0.5), (-0.5, 0.2)))
    ground = Zone((0.4, 0.5), GROUND, ((0.0, 1.0), (0.0, 0.0)))
    turning = bar(rng, rng.uniform(0.6, 0.8), rng.uniform(0.3, 0.42), (0.1, 0.14))
    return Plan([goal, start, place, turning], [on, falling, high, ground], [pad])


def slope(rng: np.random.Generator) -> Plan:
    """Objects roll and slide down a ramp towards the basket. Others stand on a shelf beyond it."""
    tilt, half = rng.uniform(0.3, 0.5), 0.26
    x, y = rng.uniform(0.27, 0.31), rng.uniform(0.42, 0.52)
    ramp = Fixture(RAMP, (half, THIN), (x, y), tilt)
    goal = basket(rng, 0.6, 0.74)
    place, on = shelf(rng, rng.uniform(0.8, 0.85), (0.5, 0.66), 0.1)
    above = Zone((0.1, 0.4), (0.1, 0.24), ((-0.2, 0.6), (-0.2, 0.2)))
    thrown = Zone((0.6, 0.9), (0.1, 0.3), ((-0.9, 0.0), (-0.4, 0.2)))
    return Plan([goal, ramp, place], [above, on, above, thrown], [])


def mill(rng: np.random.Generator) -> Plan:
    """A turning bar is between falling objects and the basket. Other objects stand on shelves at both sides."""
    turning = bar(rng, rng.uniform(0.45, 0.55), rng.uniform(0.42, 0.5), (0.14, 0.2))
    goal = basket(rng, 0.35, 0.65)
    left, on = shelf(rng, rng.uniform(0.13, 0.17), (0.5, 0.62), 0.12)
    right, there = shelf(rng, rng.uniform(0.83, 0.87), (0.5, 0.62), 0.12)
    falling = Zone((0.3, 0.7), (0.1, 0.24), ((-0.3, 0.3), (-0.3, 0.3)))
    thrown = Zone((0.12, 0.2), (0.2, 0.35), ((0.2, 1.4), (-0.6, 0.2)))
    return Plan([goal, turning, left, right], [falling, on, there, thrown], [])


def carry(rng: np.random.Generator) -> Plan:
    """A lift carries objects under a post, which sweeps them off into the basket."""
    speed, y = rng.uniform(0.25, 0.5), rng.uniform(0.48, 0.58)
    lift = Fixture(LIFT, (0.17, THIN), (rng.uniform(0.22, 0.28), y), velocity=(speed, 0.0))
    post = Fixture(POST, (THIN, 0.16), (rng.uniform(0.6, 0.75), y - 0.04 - 0.16))
    goal = basket(rng, post.place[0] - 0.14, post.place[0] + 0.04)
    x = lift.place[0]
    on = Zone((x - 0.14, x + 0.14), y - THIN, ((speed, speed), (0.0, 0.0)))
    ground = Zone((0.1, 0.3), GROUND, ((0.0, 1.2), (0.0, 0.0)))
    still = Zone((0.1, 0.35), GROUND)
    falling = Zone((0.1, 0.9), (0.08, 0.2), ((-0.4, 0.4), (-0.4, 0.2)))
    return Plan([goal, lift, post], [on, falling, on, ground, still], [])


def relay(rng: np.random.Generator) -> Plan:
    """A ramp leads down to a launcher, which throws objects at a basket on the far side."""
    goal = basket(rng, 0.74, 0.82)
    start, on, pad = launcher(rng, rng.uniform(0.36, 0.44), goal, 1)
    ramp = Fixture(RAMP, (0.16, THIN), (rng.uniform(0.17, 0.2), rng.uniform(0.55, 0.65)), rng.uniform(0.4, 0.6))
    above = Zone((0.1, 0.26), (0.15, 0.35), ((-0.2, 0.3), (-0.2, 0.2)))
    thrown = Zone((0.5, 0.9), (0.1, 0.3), ((-0.6, 0.3), (-0.4, 0.2)))
    return Plan([goal, start, ramp], [on, above, thrown, above], [pad])


def gate(rng: np.random.Generator) -> Plan:
    """A turning bar sweeps the end of a shelf, above the basket."""
    place, on = shelf(rng, rng.uniform(0.28, 0.32), (0.55, 0.65), 0.2)
    fast, on = pushed(on)
    turning = bar(rng, rng.uniform(0.64, 0.7), rng.uniform(0.5, 0.58), (0.12, 0.16))
    goal = basket(rng, 0.62, 0.78)
    above = Zone((0.5, 0.9), (0.1, 0.25), ((-0.5, 0.3), (-0.3, 0.3)))
    return Plan([goal, place, turning], [on, fast, above, on], [])


LAYOUTS = (shelves, launch, slope, mill, carry, relay, gate)
HELD = 2  # number of held-out layouts: the last ones


def mirrored(bodies: Bodies, pads: np.ndarray) -> tuple[Bodies, np.ndarray]:
    """The bodies and the pads, mirrored left to right."""
    bodies = bodies._replace(
        position=bodies.position * (-1, 1) + (1, 0),
        velocity=bodies.velocity * (-1, 1),
        angle=-bodies.angle,
        spin=-bodies.spin,
    )
    pads = pads.copy()
    pads[:, [2, 4]] = 1 - pads[:, [4, 2]]
    pads[:, 6] *= -1
    return bodies, pads
