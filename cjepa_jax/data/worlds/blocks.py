"""Blocks: stacked towers, ledges and bridges on the ground. Some of them fall."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import check_range
from cjepa_jax.data.worlds.physics import Bodies, Physics, simulate
from cjepa_jax.data.worlds.rigid import Rigid
from cjepa_jax.errors import ConfigError

GROUND = 0.94  # y of the ground's top, view widths
OVERLAP = 2e-4  # initial overlap with the support. It is below the solver's tolerance, so blocks rest at once.
SUBSTEPS = 8
TOWER, LEDGE, BRIDGE = 0, 1, 2
LEAST = (1, 3, 3)  # minimum number of blocks of each


class Setup(NamedTuple):
    """The initial state of a scene."""

    bodies: Bodies
    physics: Physics
    colour: np.ndarray  # uint8 [K,3]
    sky: np.ndarray  # [2,3] background colours at the top and the bottom, 0 .. 255
    level: np.ndarray  # [K] number of blocks between each block and the ground


@dataclass(frozen=True)
class Blocks(Rigid):
    """Stacked blocks under gravity, initially at rest.

    Units, the contents of a scene and interventions are those of Rigid. A scene is up to three structures side by side.
    In a tower each block is off the middle of the one below. A ledge is a plank on a block, loaded on one side or both.
    A bridge is a plank on two pillars, loaded or not. Some structures stand. Some fall without an intervention. Some
    fall when a supporting block or a counterweight is removed. Standing blocks move by less than 0.005, even in stacks
    of six. Falling blocks enter the ground by at most 0.02, for a moment. The ground is part of the background. Its top
    is at y = 0.94, and it has no end at the sides. Contacts with it have b = -1.

    Gravity is 4 view widths / s^2. Per scene: restitution 0 .. 0.1, friction 0.4 .. 0.9. Per block: density 0.5 .. 2,
    log-uniform. None of these is visible. A frame takes 8 physics steps.

    The question: does block j fall? It falls if its centre is lower at the end of the clip than at the start by more
    than half of its height. The question is asked of the blocks that stand on others.

    `hold_out` holds out three things. For "count": 1 or 2 objects more than `objects` allows. For "colour": hues per
    shape, see layout.colours. For "layout": scenes with a bridge. A bridge takes 3 blocks, so for this split the
    minimum of `objects` must be at least 3.

    Args:
      objects: minimum and maximum number of blocks.
      width, height: of blocks, in view widths. Some blocks have a factor for width and height: a ledge's block 0.7 and
        1, its plank 1.6 and 0.5, its load 0.6 and 1, a bridge's pillars 0.7 and 1.2, its plank 2 and 0.5. All blocks of
        a scene shrink by one factor where they would be more than 0.92 wide or 0.86 high.
    """

    objects: tuple[int, int] = (3, 6)
    width: tuple[float, float] = (0.13, 0.26)
    height: tuple[float, float] = (0.1, 0.2)

    setup_type: ClassVar[type] = Setup
    dos: ClassVar[tuple[str, ...]] = ("remove", "insert", "set")  # most swapped blocks would begin inside others
    attributes: ClassVar[tuple[str, ...]] = ("velocity", "mass", "colour")  # a turned block would begin inside others
    room: ClassVar[tuple[float, float, float, float]] = (0.0, 0.0, 1.0, GROUND)
    question: ClassVar[str] = "Does block j fall: is it lower at the end by more than half of its height?"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "objects", check_range("data.options.objects", self.objects, 1, 16, int))
        if self.split == "layout" and self.objects[0] < LEAST[BRIDGE]:
            raise ConfigError(
                f"data.options.objects is {self.objects!r}; its low must be at least {LEAST[BRIDGE]} for data.split = "
                "'layout', whose scenes all have a bridge"
            )
        for name in ("width", "height"):
            object.__setattr__(self, name, check_range(f"data.options.{name}", getattr(self, name), 0.02, 0.5))
        self.check_speed(self.height[0] / 4 * SUBSTEPS / self.dt)  # half of the thinnest plank in a physics step

    def setup(self, i: int) -> Setup:
        """Initial state of scene i, independent of size, frames and dt."""
        rng = self.rng(i)
        count = self.object_count(rng, self.objects)
        blocks = self.structures(rng, count)
        low, high = (blocks[:, 0] - blocks[:, 2]).min(), (blocks[:, 0] + blocks[:, 2]).max()
        scale = min(1.0, 0.92 / (high - low), 0.86 / (blocks[:, 1] + blocks[:, 3]).max())
        left = 0.04 + (0.92 - scale * (high - low)) * rng.random()
        level = blocks[:, 4].astype(int)
        x, y = left + scale * (blocks[:, 0] - low), GROUND - scale * blocks[:, 1] + OVERLAP * (level + 1)
        half, kind = scale * blocks[:, 2:4], np.full(count, layout.BOX)
        mass = layout.areas(kind, half) * 2 ** (2 * rng.random(count) - 1)
        place, still = np.stack([x, y], -1), np.zeros(count)
        bodies = Bodies(
            kind=kind,
            half=half,
            position=place,
            angle=still,
            velocity=np.zeros((count, 2)),
            spin=still,
            mass=mass,
            layer=still.astype(int),
        )
        bounce, friction = rng.uniform(0.0, 0.1), rng.uniform(0.4, 0.9)
        physics = Physics(4.0, False, bounce, friction, iterations=25, ground=GROUND, substeps=SUBSTEPS)
        base = rng.uniform(160, 235) + rng.uniform(-12, 12, 3)
        colours = layout.colours(rng, count, kind, self.held("colour"))
        return Setup(bodies, physics, colours, np.clip(np.stack([base, base - 30]), 0, 255), level)

    def structures(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Blocks [K,5]: centre x, height of the centre above the ground, half width, half height, level."""
        blocks, edge, held = [], 0.0, self.held("layout")
        while len(blocks) < count:
            left = count - len(blocks)
            known = (TOWER, LEDGE, LEDGE) if held is False else (TOWER, LEDGE, LEDGE, BRIDGE)
            shapes = [s for s in known if LEAST[s] <= left]
            shape = BRIDGE if held and not blocks and BRIDGE in shapes else int(rng.choice(shapes))
            size = int(rng.integers(max(LEAST[shape], min(2, left)), min(left, 5) + 1))
            if left - size < 2 or count - left > count / 2:
                size = left  # avoids a single block and a fourth structure
            part = (self.tower, self.ledge, self.bridge)[shape](rng, size)
            while overlap(part):
                part = (self.tower, self.ledge, self.bridge)[shape](rng, size)
            part[:, 0] += edge - (part[:, 0] - part[:, 2]).min()
            edge = (part[:, 0] + part[:, 2]).max() + rng.uniform(0.01, 0.1)
            blocks.extend(part.tolist())
        return np.array(blocks)

    def sizes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Half widths and heights of blocks [count,2]."""
        low, high = np.array([self.width, self.height]).T
        return (low + (high - low) * rng.random((count, 2))) / 2

    def tower(self, rng: np.random.Generator, count: int, x: float = 0.0, top: float = 0.0, level: int = 0):
        """`count` stacked blocks [count,5]. The first stands at x and height `top`."""
        lean, blocks = rng.uniform(-1.1, 1.1), np.empty((count, 5))
        for k, (w, h) in enumerate(self.sizes(rng, count).tolist()):
            blocks[k] = x, top + h, w, h, level + k
            x, top = x + w * (lean + rng.uniform(-0.4, 0.4)), top + 2 * h
        return blocks

    def ledge(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """A plank on one block, and towers on its left and right."""
        (w, h), (half, thick) = self.sizes(rng, 2) * [[0.7, 1.0], [1.6, 0.5]]
        side = rng.choice([-1, 1])
        x, top = w * side * rng.uniform(0.3, 1.0), 2 * h + 2 * thick
        blocks = [[[0, h, w, h, 0], [x, 2 * h + thick, half, thick, 1]]]
        outer = int(rng.integers(0, count - 1)) if rng.random() < 0.5 else count - 2
        for number, sign in ((outer, side), (count - 2 - outer, -side)):
            if number:
                part = self.tower(rng, number, 0.0, top, 2)
                part[:, :] *= [0.6, 1, 0.6, 1, 1]
                part[:, 0] += x + sign * half * rng.uniform(0.3, 1.0)
                blocks.append(part)
        return np.concatenate(blocks)

    def bridge(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """A plank on two pillars, and a tower on it."""
        (w, h), (half, thick) = self.sizes(rng, 2) * [[0.7, 1.2], [2.0, 0.5]]
        apart = max(half - w * rng.uniform(-0.3, 1.0), 1.1 * w)  # distance of the pillars' centres from the middle
        blocks = [[[-apart, h, w, h, 0], [apart, h, w, h, 0]]]
        blocks.append([[w * rng.uniform(-0.3, 0.3), 2 * h + thick, half, thick, 1]])
        blocks.append(self.tower(rng, count - 3, half * rng.uniform(-1, 1), 2 * h + 2 * thick, 2))
        return np.concatenate(blocks)

    def background(self, setup: Setup) -> np.ndarray:
        """A sky and a dark band of ground."""
        picture = draw.gradient(self.size, *setup.sky)
        draw.band(picture, GROUND, 0.35)
        return picture

    def outcome(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each block falls, bool [K], and final positions, float32 [K,2]."""
        act, count = self.done(setup, removed), len(removed)
        motion, _ = simulate(act.setup.bodies, setup.physics, self.frames, self.dt, act.removed, events=False)
        falls = motion[-1, :, 1] - act.setup.bodies.position[:, 1] > act.setup.bodies.half[:, 1]
        final = np.where(act.removed[:, None], 0, motion[-1, :, :2]).astype(np.float32)
        return (falls & ~act.removed)[:count], final[:count]

    def asked(self, setup: Setup) -> np.ndarray:
        """The blocks that stand on others."""
        return setup.level > 0


def overlap(blocks: np.ndarray) -> bool:
    """Whether any two of blocks [K,5] overlap by more than a border."""
    apart = np.abs(blocks[:, None, :2] - blocks[:, :2]) - blocks[:, None, 2:4] - blocks[:, 2:4]
    return bool(np.triu((apart < -1e-9).all(-1), 1).any())
