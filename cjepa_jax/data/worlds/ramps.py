"""Ramps: puzzles of balls, bars, ramps and jars. One object has to reach another."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import check_range
from cjepa_jax.data.worlds.physics import FIXED, WALL, Bodies, Physics, simulate
from cjepa_jax.data.worlds.puzzles import CORE, GRAVITY, HELD, PUZZLES, THIN, Sketch
from cjepa_jax.data.worlds.rigid import Rigid

SUBSTEPS = 8
TOUCH = 2.0  # frames for which the subject must touch the goal, if the goal is not a jar


class Setup(NamedTuple):
    """The initial state of a scene."""

    bodies: Bodies
    physics: Physics
    colour: np.ndarray  # uint8 [K,3]
    sky: np.ndarray  # [2,3] background colours at the top and the bottom, 0 .. 255
    subject: int
    goal: int
    puzzle: int  # index into puzzles.PUZZLES


@dataclass(frozen=True)
class Ramps(Rigid):
    """Puzzles with a subject and a goal, in the spirit of PHYRE.

    Units, the contents of a scene and interventions are those of Rigid. Four walls, 0.03 thick inside the view, are
    drawn as a frame. A scene is one of six puzzles (slide, push, track, balance, trap, funnel, see puzzles.py). Its
    sizes and positions are random, and it may be mirrored. It also has random balls, boxes and bars, some of them
    between subject and goal. Objects that never move also have masks and states and can be removed. Objects that can
    move have a dark mark. The subject's mark is white, the goal's is black.

    Gravity is 6 view widths / s^2. Per scene: restitution 0.05 .. 0.3, friction 0.3 .. 0.7. Per object: density 0.5 ..
    2, log-uniform. None of these is visible. All objects are initially at rest. In view widths: balls have radii of
    0.04 .. 0.065, bars are 0.036 thick, jars are 0.22 .. 0.28 wide and 0.14 .. 0.2 high. A jar never moves with
    probability 1/2. Additional objects shrink where they would not fit. A frame takes 8 physics steps.

    The question: does the subject reach its goal? It is asked of the subject. If the goal is a jar, the subject's
    centre must be in it at the end. Any other goal must be touched for at least 2 frames in total. Without the subject
    or the goal the answer is no.

    `hold_out` holds out three things. For "count": 1 or 2 objects more than `objects` allows. For "colour": hues per
    shape, see layout.colours. For "layout": the puzzles trap and funnel.

    Args:
      objects: minimum and maximum number of objects. The minimum is at least 5.
    """

    objects: tuple[int, int] = (5, 7)

    setup_type: ClassVar[type] = Setup
    attributes: ClassVar[tuple[str, ...]] = (
        "velocity",
        "angle",
        "mass",
        "colour",
    )  # spun bars would pass through others
    question: ClassVar[str] = "Does object j reach the goal: end in the jar, or touch the goal for 2 frames?"
    state_names: ClassVar[tuple[str, ...]] = (
        *Rigid.state_names,
        "disc", "box", "triangle", "jar",  # 1 for the object's shape
        "fixed",  # 1 if it never moves
        "subject", "goal",  # 1 for the object with this role
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "objects", check_range("data.options.objects", self.objects, CORE, 16, int))
        self.check_speed(THIN * SUBSTEPS / self.dt)

    def setup(self, i: int) -> Setup:
        """Initial state of scene i, independent of size, frames and dt."""
        rng = self.rng(i)
        count, held = self.object_count(rng, self.objects), self.held("layout")
        puzzle = int(rng.choice([n for n in range(len(PUZZLES)) if held is None or (n in HELD) == held]))
        sketch = Sketch(rng)
        roles = PUZZLES[puzzle](sketch)
        sketch.scatter(count - len(sketch.rows), roles)
        order = rng.permutation(count)
        kind, half, position, angle, mode = (column[order] for column in sketch.columns())
        if rng.random() < 0.5:
            position, angle = [1, 0] + [-1, 1] * position, -angle
        mass = layout.areas(kind, half) * 2 ** (2 * rng.random(count) - 1)
        still = np.zeros(count)
        bodies = Bodies(
            kind=kind,
            half=half,
            position=position,
            angle=angle,
            velocity=np.zeros((count, 2)),
            spin=still,
            mass=mass,
            layer=still.astype(int),
            mode=mode,
        )
        physics = Physics(
            GRAVITY, True, rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.7), iterations=15, substeps=SUBSTEPS
        )
        base = rng.uniform(175, 240) + rng.uniform(-12, 12, 3)
        sky = np.clip(np.stack([base, base - 30]), 0, 255)
        subject, goal = np.argsort(order)[list(roles)].tolist()
        colours = layout.colours(rng, count, kind, self.held("colour"))
        return Setup(bodies=bodies, physics=physics, colour=colours, sky=sky, subject=subject, goal=goal, puzzle=puzzle)

    def background(self, setup: Setup) -> np.ndarray:
        """A sky in a dark frame."""
        picture = draw.gradient(self.size, *setup.sky)
        draw.frame(picture, WALL, 0.35)
        return picture

    def marks(self, setup: Setup) -> np.ndarray:
        """Colours of the marks [K,3]: white for the subject, black for the goal, dark for other moving objects.

        The marks of other fixed objects have the object's colour, so they are invisible.
        """
        marks = np.where(setup.bodies.mode[:, None] == FIXED, setup.colour, super().marks(setup))
        marks[setup.subject], marks[setup.goal] = 255, 0
        return marks

    def traits(self, setup: Setup) -> np.ndarray:
        """Colour, shape and roles of each object, [K,10]."""
        each = np.arange(len(setup.colour))
        shape = setup.bodies.kind[:, None] == [layout.DISC, layout.BOX, layout.TRIANGLE, layout.JAR]
        roles = np.stack([setup.bodies.mode == FIXED, each == setup.subject, each == setup.goal], -1)
        return np.concatenate([super().traits(setup), shape, roles], -1)

    def outcome(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the subject reaches the goal (False for all others), bool [K], and final positions [K,2]."""
        act, count = self.done(setup, removed), len(removed)
        motion, contacts = simulate(act.setup.bodies, setup.physics, self.frames, self.dt, act.removed)
        happens = np.zeros(count, bool)
        if not act.removed[[setup.subject, setup.goal]].any():
            happens[setup.subject] = reaches(act.setup, motion[-1], contacts)
        return happens, np.where(act.removed[:, None], 0, motion[-1, :, :2]).astype(np.float32)[:count]

    def asked(self, setup: Setup) -> np.ndarray:
        """Only the subject."""
        return np.arange(len(setup.colour)) == setup.subject

    def looks(self, setup: Setup) -> np.ndarray:
        """Classes by shape, mode and size. The goal is a separate class, because its mark is different."""
        return super().looks(setup) + 64 * (np.arange(len(setup.colour)) == setup.goal)


def reaches(setup: Setup, last: np.ndarray, contacts: np.ndarray) -> bool:
    """Whether the subject has reached the goal, from the motion in the last frame [K,6] and all contacts [C,4]."""
    if setup.bodies.kind[setup.goal] == layout.JAR:
        x, y = last[setup.subject, :2] - last[setup.goal, :2]
        cos, sin = np.cos(last[setup.goal, 2]), np.sin(last[setup.goal, 2])
        right, down = abs(cos * x + sin * y), cos * y - sin * x
        width, height = setup.bodies.half[setup.goal]
        return bool(right < width and abs(down) < height)
    pair = (contacts[:, 2:] == sorted((setup.subject, setup.goal))).all(1)
    return bool((contacts[pair, 1] - contacts[pair, 0]).sum() >= TOUCH)
