"""Craft: launchers, baskets, turning bars, ramps, and questions about causes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import SPLITS, check_range, check_removed
from cjepa_jax.data.worlds.craft import layouts, questions
from cjepa_jax.data.worlds.craft.facts import EVENTS, Facts, entries
from cjepa_jax.data.worlds.craft.layouts import BASKET, GRAVITY, LAUNCHER, LAYOUTS, ROLES, Fixture, Plan, Zone
from cjepa_jax.data.worlds.physics import MOVING, WALL, Bodies, Physics, simulate
from cjepa_jax.data.worlds.rigid import Rigid

PALETTE = {
    "gray": (125, 125, 130), "red": (220, 50, 47), "blue": (45, 85, 215), "green": (50, 165, 70),
    "brown": (140, 90, 45), "purple": (145, 70, 180), "cyan": (50, 200, 220), "yellow": (240, 200, 30),
}  # fmt: skip
SHAPES = {layout.DISC: "disc", layout.BOX: "box", layout.TRIANGLE: "triangle"}
BLACK, PLATE = (42, 42, 48), (235, 235, 235)  # colours of fixtures, and of a launcher's plate
LOW = {layout.DISC: 1.0, layout.BOX: 1.0, layout.TRIANGLE: 3**-0.5}  # centre to lowest point, share of the half size
OVERLAP = 2e-4  # initial overlap with the support. It is below the solver's tolerance, so objects rest at once.
QUESTIONS = 1  # last word of the seeds of questions. It makes them independent of the scene's draws.
ENTERS, TOUCHES_GROUND, LEAVES = range(3)  # kinds of events


class Setup(NamedTuple):
    """The initial state of a scene. Fixtures come first, then objects that move under forces."""

    bodies: Bodies
    physics: Physics
    colour: np.ndarray  # uint8 [K,3]
    sky: np.ndarray  # [2,3] background colours at the top and the bottom, 0 .. 255
    layout: int  # index into LAYOUTS
    role: np.ndarray  # [K] index of a fixture's role in ROLES, -1 for objects that move
    hue: np.ndarray  # [K] index of a moving object's colour in PALETTE, -1 for fixtures
    large: np.ndarray  # bool [K]


@dataclass(frozen=True)
class Craft(Rigid):
    """Discs, boxes and triangles among a basket, launchers, turning bars, lifts, shelves and ramps.

    do(remove) can remove any object. `questions` asks questions of CRAFT's five types, see craft/questions.py.

    Units and the contents of a scene are those of Rigid. Four walls, 0.03 thick inside the view, keep moving objects
    inside and are drawn as a frame. The lower wall is the ground. Fixtures are black. Turning bars and lifts keep their
    initial velocity and spin. Other fixtures do not move. Objects that move under forces have one of eight colours, and
    no two have the same. Within a scene all objects of one shape have one size, small or large. A clip of 32 frames,
    about three seconds, shows everything that happens.

    Gravity is 3 view widths / s^2. Per scene: restitution 0.2 .. 0.5, friction 0.1 .. 0.35. Per object: density 0.5 ..
    2, log-uniform. None of these is visible. A frame takes 8 physics steps. Objects start without spin, at rest or at
    speeds of up to 2.6 view widths / s sideways and 0.6 up or 0.3 down. A launcher throws once, at 0.15 .. 0.6 s. It
    throws all objects that move under forces and have their centre within 0.2 above its plate. The upward velocity is
    1.64 .. 2.12 view widths / s. The sideways velocity is 0.85 .. 1.15 of the value that leads to the basket's middle.
    Bars turn at 2 .. 4.5 radians / s in either direction and are 0.2 .. 0.4 long. Lifts move sideways at 0.25 .. 0.5
    view widths / s. Baskets are 0.26 .. 0.34 wide and 0.2 .. 0.26 high. Shelves, ramps and bars are 0.036 thick.

    A scene also holds `events` float32 [E,3] (time in frames, kind, object), in order. Kind 0: an object enters the
    basket. The time is the first frame from which on its centre is inside until the end of the clip. Kind 1: an object
    touches the ground. The time is the start of the contact. Kind 2: an object's centre leaves the view. Lifts do so.
    Start and end of all contacts are in `contacts`.

    The question: does object j end in the basket? It is asked of objects that move under forces.

    `hold_out` holds out three things. For "count": 1 or 2 objects more than `objects` allows. It counts only objects
    that move under forces, so totals with fixtures overlap: by default 7 .. 9 objects in "train", 9 .. 11 in "count".
    For "colour": three colours for each shape, those where (index in PALETTE + 3 x kind) % 8 < 3. For "layout": the
    last two of the seven layouts.

    Args:
      objects: minimum and maximum number of objects that move under forces. There are also three or four fixtures.
      small, large: ranges of the radii of discs, in view widths. Other shapes have the same area. All shrink where they
        would not fit.
    """

    objects: tuple[int, int] = (4, 5)
    small: tuple[float, float] = (0.045, 0.055)
    large: tuple[float, float] = (0.07, 0.08)

    setup_type: ClassVar[type] = Setup
    dos: ClassVar[tuple[str, ...]] = ("remove",)  # names in questions are by colour, size and role
    question: ClassVar[str] = "Does object j end in the basket?"
    label_names: ClassVar[tuple[str, ...]] = (*Rigid.label_names, "inside")
    state_names: ClassVar[tuple[str, ...]] = (
        *Rigid.state_names,
        "kind",  # 0 disc, 1 box, 2 triangle, 3 basket
        "large",  # 1 or 0
        "mode",  # 0 moves under forces, 1 fixed, 2 keeps its initial velocity and spin
        "role",  # index of a fixture's role in ROLES, -1 for objects that move under forces
        "hue",  # index of the colour in PALETTE for objects that move under forces, -1 for fixtures
        "inside",  # 1 while its centre is in the basket
    )
    categories: ClassVar[Mapping[str, range]] = {  # the values of states that are the number of a class
        "kind": range(4),
        "large": range(2),
        "mode": range(3),
        "role": range(-1, len(ROLES)),
        "hue": range(-1, len(PALETTE)),
        "inside": range(2),
    }

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "objects", check_range("data.options.objects", self.objects, 1, 6, int))
        for name in ("small", "large"):
            object.__setattr__(self, name, check_range(f"data.options.{name}", getattr(self, name), 0.02, 0.12))

    def setup(self, i: int) -> Setup:
        """Initial state of scene i, independent of size, frames and dt."""
        rng = self.rng(i)
        count = self.object_count(rng, self.objects)
        held, seen = self.held("layout"), len(LAYOUTS) - layouts.HELD
        number = int(rng.integers(seen if held else 0, seen if held is False else len(LAYOUTS)))
        plan = LAYOUTS[number](rng)
        kind, large = classes(rng, count)
        radius = np.where(large, rng.uniform(*self.large), rng.uniform(*self.small))
        half, position, velocity = place(rng, plan, kind, layout.half_sizes(kind, radius, np.ones(count)))
        hue = hues(rng, kind, self.held("colour"))
        fixtures = plan.fixtures
        kind = np.array([f.kind for f in fixtures] + kind.tolist())
        half = np.array([f.half for f in fixtures] + half.tolist())
        angle, spin = (np.array([getattr(f, name) for f in fixtures] + [0.0] * count) for name in ("angle", "spin"))
        position = np.array([f.place for f in fixtures] + position)
        velocity = np.array([f.velocity for f in fixtures] + velocity)
        mode = np.array([f.mode for f in fixtures] + [MOVING] * count)
        mass = layout.areas(kind, half) * 2 ** (2 * rng.random(len(kind)) - 1)
        bodies = Bodies(
            kind=kind,
            half=half,
            position=position,
            angle=angle,
            velocity=velocity,
            spin=spin,
            mass=mass,
            layer=np.zeros(len(kind), int),
            mode=mode,
        )
        pads = np.array(plan.pads).reshape(-1, 8)
        if rng.random() < 0.5:
            bodies, pads = layouts.mirrored(bodies, pads)
        physics = Physics(
            GRAVITY, True, rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.35), pads, substeps=8, floor=True
        )  # fmt: skip
        base = rng.uniform(195, 240) + rng.uniform(-10, 10, 3)
        colour = np.array([BLACK] * len(fixtures) + [list(PALETTE.values())[h] for h in hue], np.uint8)
        role = np.array([f.role for f in fixtures] + [-1] * count)
        hue, large = (np.concatenate([np.full(len(fixtures), v), a]) for v, a in ((-1, hue), (False, large)))
        return Setup(
            bodies=bodies,
            physics=physics,
            colour=colour,
            sky=np.stack([base, base - 40]),
            layout=number,
            role=role,
            hue=hue,
            large=large,
        )

    def play(self, setup: Setup, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene under do(remove), simulated from its initial state. Raises DataError."""
        removed = check_removed(removed, len(setup.role))
        scene = super().play(setup, removed)
        scene["events"] = events(scene["states"], scene["contacts"], removed)
        scene["contacts"][:, 3] = np.maximum(scene["contacts"][:, 3], -1)
        return scene

    def background(self, setup: Setup) -> np.ndarray:
        """A sky that darkens downwards, in a dark frame."""
        picture = draw.gradient(self.size, *setup.sky)
        draw.frame(picture, WALL, 0.35)
        return picture

    def marks(self, setup: Setup) -> np.ndarray:
        """Colours of the marks [K,3]: darker than the objects. A launcher's plate is bright."""
        return np.where((setup.role == LAUNCHER)[:, None], PLATE, 0.6 * setup.colour).astype(np.uint8)

    def traits(self, setup: Setup) -> np.ndarray:
        """The last columns of the states: constant ones from the colour on, and zeros for "inside"."""
        bodies = setup.bodies
        rest = [bodies.kind, setup.large, bodies.mode, setup.role, setup.hue, np.zeros(len(setup.role))]
        return np.concatenate([super().traits(setup), np.stack(rest, -1)], -1)

    def states(self, setup: Setup, motion: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """States float32 [T,K,S], columns as state_names. Rows of removed objects are 0."""
        states = super().states(setup, motion, removed)
        states[..., -1] = self.inside(setup, motion, removed)
        return states

    def inside(self, setup: Setup, motion: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """Whether each object's centre is in the basket in each frame, bool [T,K], from motion [T,K,2 or more]."""
        basket = int(np.nonzero(setup.role == BASKET)[0][0])
        (width, height), (x, y) = setup.bodies.half[basket], setup.bodies.position[basket]
        rim = layout.RIM * width
        across, down = motion[..., 0] - x, motion[..., 1] - y
        within = (np.abs(across) < width - rim) & (down > -height) & (down < height - rim)
        return within & ~removed & (setup.role < 0) & ~removed[basket]

    def asked(self, setup: Setup) -> np.ndarray:
        """Objects that move under forces."""
        return setup.role < 0

    def looks(self, setup: Setup) -> np.ndarray:
        """Classes by role for fixtures, by shape and size for objects that move."""
        return np.where(setup.role >= 0, 8 + setup.role, setup.bodies.kind + 4 * setup.large)

    def outcome(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each object ends in the basket, bool [K], and final positions [K,2]. Raises DataError."""
        removed = check_removed(removed, len(setup.role))
        motion, _ = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed, events=False)
        final = np.where(removed[:, None], 0, motion[-1, :, :2]).astype(np.float32)
        return self.inside(setup, motion[-1:], removed)[0], final

    def names(self, setup: Setup) -> list[str]:
        """Unique names of the objects in questions: "small red disc", "launcher", "left shelf"."""
        roles, x, result = setup.role.tolist(), setup.bodies.position[:, 0], []
        for k, role in enumerate(roles):
            if role < 0:
                hue = list(PALETTE)[setup.hue[k]]
                result.append(f"{'large' if setup.large[k] else 'small'} {hue} {SHAPES[int(setup.bodies.kind[k])]}")
            else:
                others = [x[j] for j, same in enumerate(roles) if same == role and j != k]
                side = "" if not others else "left " if x[k] < min(others) else "right "
                result.append(side + ROLES[role])
        return result

    def facts(self, setup: Setup) -> Facts:
        """Simulates a scene, and the scene without each of its objects. Raises no errors."""
        names, count = self.names(setup), len(setup.role)
        movers = np.nonzero(setup.role < 0)[0].tolist()
        kinds = [f"{n.split()[0]} {n.split()[2]}" if k in movers else n for k, n in enumerate(names)]
        happens = {event: np.zeros((count + 1, count), bool) for event in EVENTS}
        for row, removed in enumerate(np.eye(count + 1, count, -1, dtype=bool)):
            motion, contacts = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed)
            within = self.inside(setup, motion, removed)
            happens["basket"][row] = within[-1]
            happens["ground"][row, contacts[contacts[:, 3] == -2, 2].astype(int)] = True
            if row == 0:
                seen, first = motion, contacts
                entry = entries(within)
        touched: list[dict[int, float]] = [{} for _ in names]
        for time, _, a, b in first.tolist():
            for x, y in ((int(a), int(b)), (int(b), int(a))):
                if x in movers and y in movers:
                    touched[x].setdefault(y, time)
        low = np.zeros(count, bool)
        low[first[(first[:, 3] == -2) & (first[:, 0] < 1), 2].astype(int)] = True
        rest, left = (setup.bodies.velocity == 0).all(1), seen[-1, :, 0] < 0.5
        order = [sorted((time, k) for k, time in row.items()) for row in touched]
        return Facts(
            names=names,
            kinds=kinds,
            movers=movers,
            basket=setup.role.tolist().index(BASKET),
            rest=rest,
            low=low,
            left=left,
            entry=entry,
            touched=order,
            happens=happens,
        )

    def questions(self, i: int) -> list[dict[str, Any]]:
        """Questions about scene i with their answers, see craft/questions.py. Raises IndexError."""
        return self.questions_of(self.facts(self.setup(i)), i)

    def questions_of(self, facts: Facts, i: int) -> list[dict[str, Any]]:
        """Questions about scene i from its facts, without a simulation."""
        return questions.draw(facts, np.random.default_rng([self.seed, SPLITS[self.split], i, QUESTIONS]))


def classes(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapes [K] and whether each object is large [K].

    Up to four objects have two shapes, more have three, as evenly distributed as possible. Each shape has one size.
    """
    shapes = rng.permutation(len(SHAPES))[: 2 if count <= 4 else 3]
    member = rng.permutation(np.arange(count) % len(shapes))
    return shapes[member], (rng.random(len(shapes)) < 0.5)[member]


def hues(rng: np.random.Generator, kind: np.ndarray, held: bool | None) -> np.ndarray:
    """Different colours [K]. held: True uses only colours held out for the shape, False only others, None all."""
    while True:
        hue = rng.permutation(len(PALETTE))[: len(kind)]
        if held is None or (((hue + 3 * kind) % len(PALETTE) < 3) == held).all():
            return hue


def place(rng: np.random.Generator, plan: Plan, kind: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, list, list]:
    """Half sizes [K,2], centres and velocities of the objects that move under forces.

    Each object starts in a separate zone, or in another one if that is too narrow. All shrink by 10 % until they fit.
    """
    order, obstacles, zones = rng.permutation(len(kind)).tolist(), [obstacle(f) for f in plan.fixtures], plan.zones
    while True:
        far = layout.reach(kind, half).tolist()
        placed: dict[int, tuple[float, float, Zone]] = {}
        tries = rng.random((len(kind), 24, 3)).tolist()
        for n, k in enumerate(order):
            low = float(half[k, 1]) * LOW[int(kind[k])]
            for m, (u, v, w) in enumerate(tries[k]):
                zone = zones[n] if m < 8 and n < len(zones) else zones[int(w * len(zones))]
                x, y = spot(zone, u, v, low)
                apart = all((x - a) ** 2 + (y - b) ** 2 > (far[k] + far[j]) ** 2 for j, (a, b, _) in placed.items())
                if apart and free(obstacles, x, y, far[k], zone):
                    placed[k] = (x, y, zone)
                    break
            else:
                break
        if len(placed) == len(kind):
            break
        half = 0.9 * half
    rows = [placed[k] for k in range(len(kind))]
    return half, [row[:2] for row in rows], [[rng.uniform(*speed) for speed in row[2].velocity] for row in rows]


def spot(zone: Zone, u: float, v: float, low: float) -> tuple[float, float]:
    """A position in the zone from uniform draws u and v, for an object whose lowest point is `low` below its centre."""
    x = zone.x[0] + (zone.x[1] - zone.x[0]) * u
    if isinstance(zone.y, tuple):
        return x, zone.y[0] + (zone.y[1] - zone.y[0]) * v
    return x, zone.y - low + OVERLAP


def free(obstacles: list[tuple[float, ...]], x: float, y: float, far: float, zone: Zone) -> bool:
    """Whether a circle of radius `far` is free of the side and upper walls and of all obstacles but its support."""
    if not WALL + far < x < 1 - WALL - far or y < WALL + far:
        return False
    for w, h, a, b, cos, sin in obstacles:
        dx, dy = abs(cos * (x - a) + sin * (y - b)) - w, abs(cos * (y - b) - sin * (x - a)) - h
        if max(dx, 0.0) ** 2 + max(dy, 0.0) ** 2 < far**2 and b - h != zone.y:
            return False
    return True


def obstacle(fixture: Fixture) -> tuple[float, ...]:
    """The box that a fixture may cover: half sizes, centre, cosine and sine of its angle."""
    w, h = fixture.half if not fixture.spin else (max(fixture.half),) * 2
    return w, h, *fixture.place, math.cos(fixture.angle), math.sin(fixture.angle)


def events(states: np.ndarray, contacts: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """The events float32 [E,3] (time in frames, kind, object), from states [T,K,S] and contacts [C,4]."""
    rows = [(first, TOUCHES_GROUND, int(a)) for first, _, a, b in contacts.tolist() if b == -2]
    entry = entries(states[..., -1] > 0)
    rows += [(entry[k], ENTERS, k) for k in np.nonzero(np.isfinite(entry))[0].tolist()]
    gone = (np.abs(states[..., 1:3] - 0.5) > 0.5).any(-1) & ~removed
    rows += [(np.argmax(gone[:, k]), LEAVES, k) for k in np.nonzero(gone.any(0))[0].tolist()]
    return np.array(sorted(rows), np.float32).reshape(-1, 3)
