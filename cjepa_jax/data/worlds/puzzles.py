"""The puzzles of Ramps. Each function adds the objects of one puzzle to a sketch and returns (subject, goal)."""

import math

import cv2
import numpy as np

from cjepa_jax.data.worlds.layout import BOX, DISC, JAR, TRIANGLE, outlines
from cjepa_jax.data.worlds.physics import FIXED, MOVING, WALL

GRAVITY = 6.0  # view widths / s^2
FLOOR = 1 - WALL
THIN = 0.018  # half thickness of bars
TOUCH = 2e-4  # overlap of objects that are in contact at the start


class Sketch:
    """Collects objects: kind, half sizes, centre, angle and mode. Puzzles are laid out from left to right."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.rows = rng, []

    def add(self, kind: int, half: tuple[float, float], x: float, y: float, angle: float = 0.0, mode: int = FIXED):
        self.rows.append((kind, *half, x, y, angle, mode))
        return len(self.rows) - 1

    def ball(self, x: float, y: float, radius: float) -> int:
        return self.add(DISC, (radius, radius), x, y, mode=MOVING)

    def bar(self, x: float, y: float, end_x: float, end_y: float, mode: int = FIXED) -> int:
        """A bar whose upper side connects two points, left to right."""
        length, angle = math.hypot(end_x - x, end_y - y), math.atan2(end_y - y, end_x - x)
        x, y = (x + end_x) / 2 - THIN * math.sin(angle), (y + end_y) / 2 + THIN * math.cos(angle)
        return self.add(BOX, (length / 2, THIN), x, y=y, angle=angle, mode=mode)

    def above(self, x: float, y: float, angle: float, along: float, high: float) -> tuple[float, float]:
        """The point at distance `along` a slope from (x, y) and `high` above it."""
        cos, sin = math.cos(angle), math.sin(angle)
        high -= TOUCH
        return x + along * cos + high * sin, y + along * sin - high * cos

    def jar(self, x: float) -> int:
        half = self.uniform(0.11, 0.14), self.uniform(0.07, 0.1)
        x = min(max(x, WALL + half[0]), FLOOR - half[0])
        return self.add(JAR, half, x, FLOOR - half[1] + TOUCH, mode=FIXED if self.rng.random() < 0.5 else MOVING)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def scatter(self, count: int, near: tuple[int, int]) -> None:
        """Adds `count` balls, boxes and bars where there is room, some of them between the two objects `near`."""
        kind, half, position, angle, _ = self.columns()
        parts = [p.astype(np.float32) for shape in outlines(kind, half, position, angle) for p in shape]
        low, high = position[list(near)].min(0) - 0.05, position[list(near)].max(0) + 0.05
        for _ in range(count):
            (what, mode), scale = [(DISC, MOVING), (BOX, MOVING), (BOX, FIXED)][self.rng.integers(3)], 1.0
            half = np.array([self.uniform(0.04, 0.06)] * 2)
            if what == BOX:
                half = np.array([self.uniform(0.07, 0.11), THIN]) if mode == FIXED else half * (1.0, 0.8)
            angle = self.uniform(-1.2, 1.2) if mode == FIXED else 0.0
            between = self.rng.random() < 0.4
            while True:
                far = scale * (half[0] if what == DISC else math.hypot(*half))
                place = self.rng.uniform(low, high) if between else self.rng.uniform(0, 1, 2)
                place = np.clip(place, WALL + far, FLOOR - far)
                if all(cv2.pointPolygonTest(part, place.tolist(), True) < -far - 0.005 for part in parts):
                    break
                scale, between = scale * 0.97, between and scale > 0.7
            self.add(what, tuple((half * scale).tolist()), *place.tolist(), angle, mode)
            new = outlines(np.array([what]), half[None] * scale, place[None], np.array([angle]))
            parts.extend(part.astype(np.float32) for part in new[0])

    def columns(self) -> tuple[np.ndarray, ...]:
        """Kind [K], half sizes [K,2], positions [K,2], angles [K] and modes [K]."""
        rows = np.array(self.rows)
        return rows[:, 0].astype(int), rows[:, 1:3], rows[:, 3:5], rows[:, 5], rows[:, 6].astype(int)


def slide(s: Sketch) -> tuple[int, int]:
    """A ball rolls off a ramp and flies towards a jar. A box on the ramp or a bar beyond it may block it."""
    angle, radius = s.uniform(0.3, 0.6), s.uniform(0.045, 0.06)
    x, y, along = s.uniform(0.42, 0.52), s.uniform(0.42, 0.55), s.uniform(0.28, 0.36)
    s.bar(x - 0.4 * math.cos(angle), y - 0.4 * math.sin(angle), x, y)
    subject = s.ball(*s.above(x, y, angle, -along, radius), radius)
    speed = math.sqrt(4 / 3 * GRAVITY * along * math.sin(angle))
    down = speed * math.sin(angle)
    time = (math.sqrt(down**2 + 2 * GRAVITY * (FLOOR - 0.2 - y)) - down) / GRAVITY
    goal = s.jar(x + speed * math.cos(angle) * time + s.uniform(-0.1, 0.1))
    if s.rng.random() < 0.3:
        s.add(BOX, (0.03, 0.03), *s.above(x, y, angle, -s.uniform(0.05, 0.15), 0.03), angle, int(s.rng.integers(2)))
    else:
        lean = s.uniform(-0.8, 0.8)
        s.add(BOX, (s.uniform(0.06, 0.1), THIN), x + s.uniform(0.15, 0.35), y + s.uniform(-0.1, 0.15), lean)
    return subject, goal


def push(s: Sketch) -> tuple[int, int]:
    """A ball lies on a shelf. A second ball from a ramp may push it off, towards a jar."""
    x, y, length = s.uniform(0.45, 0.58), s.uniform(0.4, 0.55), s.uniform(0.2, 0.28)
    angle, radius, other = s.uniform(0.5, 0.8), s.uniform(0.045, 0.06), s.uniform(0.045, 0.06)
    s.bar(x - length, y, x, y)
    subject = s.ball(x - s.uniform(0.01, 0.08), y - radius + TOUCH, radius)
    left = x - length - 0.005
    s.bar(left - 0.25 * math.cos(angle), y - 0.25 * math.sin(angle), left, y)
    s.ball(*s.above(left, y, angle, -s.uniform(0.12, 0.22), other), other)
    return subject, s.jar(x + s.uniform(0.05, 0.35))


def track(s: Sketch) -> tuple[int, int]:
    """A ball rolls down a long ramp to a post at its end, unless a box on the ramp stops it."""
    angle, radius = s.uniform(0.25, 0.45), s.uniform(0.045, 0.06)
    x, y, length = s.uniform(0.8, 0.9), s.uniform(0.75, 0.9), s.uniform(0.6, 0.7)
    s.bar(x - length * math.cos(angle), y - length * math.sin(angle), x, y)
    subject = s.ball(*s.above(x, y, angle, -length + s.uniform(0.06, 0.2), radius), radius)
    goal = s.add(BOX, (THIN, 0.07), *s.above(x, y, angle, -THIN, 0.07 + 0.002), angle)
    half, high = s.uniform(0.03, 0.045), s.uniform(0.0, 1.0)
    place = s.above(x, y, angle, -s.uniform(0.15, 0.3), half if high < 0.4 else 0.2)
    s.add(BOX, (half, half), *place, angle, FIXED if high > 0.4 or high < 0.2 else MOVING)
    return subject, goal


def balance(s: Sketch) -> tuple[int, int]:
    """Two balls lie on a plank that tips to the heavier side. The goal lies on the floor at the right."""
    x, width, half = s.uniform(0.42, 0.55), s.uniform(0.08, 0.11), s.uniform(0.2, 0.26)
    top = FLOOR - math.sqrt(3) * width
    s.add(TRIANGLE, (width, width), x, FLOOR - width / math.sqrt(3))
    s.bar(x - half, top + TOUCH - 2 * THIN, x + half, top + TOUCH - 2 * THIN, MOVING)
    radius, other = s.uniform(0.045, 0.065), s.uniform(0.045, 0.065)
    plank = top + 2 * TOUCH - 2 * THIN
    subject = s.ball(x + half * s.uniform(0.3, 0.8), plank - radius, radius)
    s.ball(x - half * s.uniform(0.3, 0.8), plank - other, other)
    return subject, s.bar(x + 0.5 * half, FLOOR - 2 * THIN + TOUCH, FLOOR - 0.01, FLOOR - 2 * THIN + TOUCH)


def trap(s: Sketch) -> tuple[int, int]:
    """A ball lies on a plank across two posts, which may be too far apart. The goal lies on the floor below."""
    x, y, apart, half = s.uniform(0.4, 0.6), s.uniform(0.5, 0.7), s.uniform(0.17, 0.22), s.uniform(0.035, 0.05)
    for side in (-1, 1):
        s.add(BOX, (half, (FLOOR - y) / 2), x + side * apart, (FLOOR + y) / 2)
    low = x - apart + half * s.uniform(-1.0, 1.6)
    high = x + apart + half * s.uniform(-1.6, 1.0)
    s.bar(low, y - 2 * THIN + TOUCH, high, y - 2 * THIN + TOUCH, MOVING)
    radius = s.uniform(0.045, 0.06)
    subject = s.ball(x + s.uniform(-0.6, 0.6) * apart, y - 2 * THIN - radius + 2 * TOUCH, radius)
    inner = apart - half - 0.01
    return subject, s.bar(x - inner, FLOOR - 2 * THIN + TOUCH, x + inner, FLOOR - 2 * THIN + TOUCH)


def funnel(s: Sketch) -> tuple[int, int]:
    """A ball falls between two bars that may lead it into a jar."""
    x, y, gap = s.uniform(0.4, 0.6), s.uniform(0.5, 0.6), s.uniform(0.08, 0.1)
    for side in (-1, 1):
        angle, length = s.uniform(0.5, 1.0), s.uniform(0.2, 0.3)
        near, far = x + side * gap, x + side * (gap + length * math.cos(angle))
        ends = [(near, y), (far, y - length * math.sin(angle))][::side]
        s.bar(*ends[0], *ends[1])
    radius = s.uniform(0.04, 0.055)
    subject = s.ball(x + s.uniform(-0.24, 0.24), s.uniform(0.1, 0.16), radius)
    return subject, s.jar(x + s.uniform(-0.16, 0.16))


PUZZLES = (slide, push, track, balance, trap, funnel)
HELD = (4, 5)  # the puzzles that only the layout split has
CORE = 5  # number of objects of the largest puzzle
