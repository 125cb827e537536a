"""Shadows: discs and boxes under moving lamps. They cast shadows on the floor and on each other."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import cv2
import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import check_range, check_share, check_step
from cjepa_jax.data.worlds.interventions import Changeable
from cjepa_jax.errors import ConfigError

AMBIENT = 0.35  # share of the light that remains in shadow
REACH = 1.2  # distance along the floor at which a lamp's light has halved, view widths


class Setup(NamedTuple):
    """The initial state of a scene. Lengths in view widths."""

    kind: np.ndarray  # [K] DISC or BOX
    half: np.ndarray  # [K,2]
    position: np.ndarray  # [K,2]
    angle: np.ndarray  # [K]
    height: np.ndarray  # [K] above the floor
    colour: np.ndarray  # uint8 [K,3]
    lights: np.ndarray  # [L,3] x, y and height above the floor in the first frame
    floor: np.ndarray  # [3] colour, 0 .. 255
    turn: np.ndarray  # [L] angular speed of the lamps around the middle of the view, radians / s


@dataclass(frozen=True)
class Shadows(Changeable):
    """Lamps that circle above a floor, and objects at rest below them. Only the shadows move.

    World units: the view is 1 x 1, x right, y down, seen from above. A lamp is a point light, an object a prism. The
    shadow on the floor or on the top of a lower object is the convex hull of the object's outline and of its top
    projected from the lamp. This is exact for point lights. At d view widths from below a lamp, measured along the
    floor, the light is 0.35 + 0.65 / (1 + (d / 1.2)^2) of the colour. So a lamp's light halves at 1.2 view widths. In
    shadow the light is 0.35. Several lamps share the 0.65 equally. do(remove) also removes the object's shadow and
    lights the area that was in it. Other interventions are those of interventions.Changeable. Shadow pixels are not
    part of an object's mask. Where two objects overlap, the taller one is visible.

    Per lamp: 0.35 .. 0.7 view widths from the middle of the view, at any angle, 0.25 .. 0.6 above the upper limit of
    `height`. So each lamp is above every object. Per object: any angle. A box's width is 1 / 1.6 .. 1.6 of its length
    (log-uniform). Centres of objects are at least 0.85 of the sum of their circumscribed radii apart.

    The question: does object j's top get more light at the end than the average over the tops of all present objects?

    `hold_out` holds out three things. For "count": 1 or 2 objects more than `objects` allows. For "colour": hues per
    shape, see layout.colours. For "layout": scenes whose mean position is in the lower right quarter.

    A scene holds what a Balls scene holds, with empty contacts [0,4], and `lights` float32 [T,L,3] (x, y, height).
    No object moves, so `states` and `labels` have no velocity.

    Args:
      objects: minimum and maximum number of objects.
      radius: of discs. Boxes have the same area. All shrink where they would not fit.
      height: of objects.
      lights: minimum and maximum number of lamps.
      turn: angular speed of the lamps, radians / s. The direction is random per lamp. With (0, 0) all frames are equal.
      dt: seconds between frames.
      boxes: share of boxes.
    """

    objects: tuple[int, int] = (3, 6)
    radius: tuple[float, float] = (0.085, 0.15)
    height: tuple[float, float] = (0.05, 0.5)
    lights: tuple[int, int] = (1, 2)
    turn: tuple[float, float] = (0.3, 1.2)
    dt: float = 0.1
    boxes: float = 0.5

    setup_type: ClassVar[type] = Setup
    attributes: ClassVar[tuple[str, ...]] = ("angle", "colour", "height")
    room: ClassVar[tuple[float, float, float, float]] = (0.0, 0.0, 1.0, 1.0)
    ground_changes: ClassVar[bool] = True
    question: ClassVar[str] = "Does object j get more light at the end than the objects that are there on average?"
    label_names: ClassVar[tuple[str, ...]] = ("count", "position/x", "position/y", "size/area")
    state_names: ClassVar[tuple[str, ...]] = (
        "present",  # 1, or 0 if removed (then the whole row is 0)
        "position/x", "position/y",  # centre, view widths
        "angle",  # radians, clockwise as seen
        "size/width", "size/length",  # at angle 0, view widths
        "size/area",  # share of the view
        "height",  # above the floor, view widths
        "box",  # 1 box, 0 disc
        "colour/r", "colour/g", "colour/b",  # 0 .. 1, before lighting
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        for name, least, most, kind in (
            ("objects", 1, 16, int),
            ("radius", 0.01, 0.3, float),
            ("height", 0.01, 2.0, float),
            ("lights", 1, 4, int),
            ("turn", 0.0, 10.0, float),
        ):
            value = check_range(f"data.options.{name}", getattr(self, name), least, most, kind)
            object.__setattr__(self, name, value)
        check_step("data.options.dt", self.dt)
        check_share("data.options.boxes", self.boxes)
        if self.attribute == "height" and self.do == "set" and self.value[0] > self.height[1]:
            text = f"its height must be at most that of data.options.height, {self.height[1]:g}, so lamps are above it"
            raise ConfigError(f"data.options.value is {self.value!r}; {text}")

    def setup(self, i: int) -> Setup:
        """Initial state of scene i, independent of size and frames."""
        rng = self.rng(i)
        count = self.object_count(rng, self.objects)
        lamps = int(rng.integers(self.lights[0], self.lights[1] + 1))
        u = rng.random((5, count))
        kind = np.where(u[0] < self.boxes, layout.BOX, layout.DISC)
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * u[1]
        half = layout.half_sizes(kind, radius, 1.6 ** (2 * u[2] - 1))
        reach, held = layout.reach(kind, half), self.held("layout")
        position, shrink = layout.place_held(rng, reach, np.zeros(count), 0.0, gap=0.85, held=held)
        height = self.height[0] + (self.height[1] - self.height[0]) * u[3]
        v = rng.random((3, lamps))
        distance, around = 0.35 + 0.35 * v[0], 2 * np.pi * v[1]
        above = self.height[1] + 0.25 + 0.35 * v[2]  # so every lamp is above every object
        lights = np.stack([0.5 + distance * np.cos(around), 0.5 + distance * np.sin(around), above], -1)
        floor = np.clip(rng.uniform(190, 245) + rng.uniform(-14, 14, 3), 0, 255)
        colours = layout.colours(rng, count, kind, self.held("colour"))
        w = rng.random((2, lamps))
        turn = (self.turn[0] + (self.turn[1] - self.turn[0]) * w[0]) * np.where(w[1] < 0.5, -1, 1)
        return Setup(
            kind=kind,
            half=half * shrink,
            position=position,
            angle=2 * np.pi * u[4],
            height=height,
            colour=colours,
            lights=lights,
            floor=floor,
            turn=turn,
        )

    def drawn(self, setup: Setup, removed: np.ndarray) -> dict[str, np.ndarray]:
        """The scene without the objects `removed`, bool [K]."""
        video, visible, amodal = self.draw(setup, removed)
        states = np.repeat(self.states(setup, removed)[None], self.frames, 0)
        return {
            "video": video,
            "masks": np.repeat(visible, self.frames, 1),
            "amodal": np.repeat(amodal, self.frames, 1),
            "states": states,
            "contacts": np.zeros((0, 4), np.float32),
            "graph": np.zeros((len(removed), len(removed)), bool),
            "lights": self.lamps(setup).astype(np.float32),
            "labels": self.labels(states),
        }

    def filmed(self, setup: Setup, removed: np.ndarray) -> np.ndarray:
        """Its video alone, uint8 [T,H,W,3]."""
        return self.draw(setup, removed)[0]

    def outcome(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each object's top gets more light than the average at the end, bool [K], and positions [K,2]."""
        count, (setup, removed, _) = len(removed), self.done(setup, removed)
        outlines = [shape[0] for shape in layout.outlines(setup.kind, setup.half, setup.position, setup.angle)]
        light = np.zeros(len(removed))
        for lamp in self.lamps(setup)[-1]:
            for k in np.nonzero(~removed)[0]:
                taller = (j for j in np.nonzero(~removed & (setup.height > setup.height[k]))[0])
                polygons = (shadow(lamp, outlines[j], setup.height[j], setup.height[k]) for j in taller)
                at = tuple(setup.position[k].tolist())
                hulls = (cv2.convexHull(points.astype(np.float32)) for points in polygons)
                if not any(cv2.pointPolygonTest(hull, at, False) >= 0 for hull in hulls):
                    light[k] += 1 / (1 + ((setup.position[k] - lamp[:2]) ** 2).sum() / REACH**2)
        happens = ~removed & (light > light[~removed].mean() if (~removed).any() else False)
        return happens[:count], np.where(removed[:, None], 0, setup.position).astype(np.float32)[:count]

    def asked(self, setup: Setup) -> np.ndarray:
        """Every object."""
        return np.ones(len(setup.kind), bool)

    def start(self, setup: Setup) -> np.ndarray:
        """Positions of the objects [K,2]."""
        return setup.position

    def looks(self, setup: Setup) -> np.ndarray:
        """Classes by shape and size. The height is not visible from above."""
        return layout.looks(setup.kind, setup.half)

    def lamps(self, setup: Setup) -> np.ndarray:
        """Positions of the lamps in every frame [T,L,3]. They circle the middle of the view."""
        angle = setup.turn * self.dt * np.arange(self.frames)[:, None]
        x, y = (setup.lights[:, :2] - 0.5).T
        circle = [0.5 + np.cos(angle) * x - np.sin(angle) * y, 0.5 + np.sin(angle) * x + np.cos(angle) * y]
        return np.stack([*circle, np.broadcast_to(setup.lights[:, 2], angle.shape)], -1)

    def draw(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames uint8 [T,H,W,3] (colour times light), visible and amodal masks [K,1,H,W]."""
        outlines = [shape[0] for shape in layout.outlines(setup.kind, setup.half, setup.position, setup.angle)]
        order = [k for k in np.argsort(setup.height, kind="stable").tolist() if not removed[k]]
        polygons = [[draw.pixels(points, self.size)[None]] for points in outlines]
        visible, amodal = draw.masks(polygons, order, 1, self.size)
        colour = np.empty((self.size, self.size, 3), np.uint8)
        colour[:] = np.rint(setup.floor)
        for k in order:
            draw.fill(colour, polygons[k][0][0], setup.colour[k].tolist())
        still = not setup.turn.any()
        lamps = self.lamps(setup)[: 1 if still else None]
        centre = ((np.arange(self.size) + 0.5) / self.size).astype(np.float32)
        x, y = (((centre - lamps[..., axis, None].astype(np.float32)) / REACH) ** 2 for axis in (0, 1))
        video = np.empty((self.frames, self.size, self.size, 3), np.uint8)
        dark = self.dark(setup, lamps, outlines, order, amodal[:, 0])
        for t in range(len(lamps)):
            light = np.full((self.size, self.size), 255 * AMBIENT, np.float32)
            for lamp in range(lamps.shape[1]):  # full brightness below the lamp, half of it at REACH
                bright = (255 * (1 - AMBIENT) / lamps.shape[1]) / (1 + x[t, lamp] + y[t, lamp][:, None])
                bright[dark[t, lamp]] = 0
                light += bright
            cv2.multiply(colour, cv2.merge([np.rint(light).astype(np.uint8)] * 3), video[t], 1 / 255)
        if still:
            video[1:] = video[0]
        return video, visible, amodal

    def dark(self, setup: Setup, lamps: np.ndarray, outlines: list, order: list[int], amodal: np.ndarray) -> np.ndarray:
        """Visible pixels in the shadow of each lamp [T,L,3], bool [T,L,H,W]. `order` is from low to tall objects."""
        dark = np.zeros((*lamps.shape[:2], self.size, self.size), np.uint8)
        each = list(np.ndindex(lamps.shape[:2]))
        for j in order:
            floor = draw.pixels(shadow(lamps, outlines[j], setup.height[j], 0.0), self.size)
            for at in each:
                draw.fill(dark[at], cv2.convexHull(floor[at]), 1)
        top = np.empty((self.size, self.size), np.uint8)
        for rank, k in enumerate(order):
            low, high = outlines[k].min(0), outlines[k].max(0)
            near: dict[tuple, list] = {at: [] for at in each}
            for j in order[rank + 1 :]:
                cast = shadow(lamps, outlines[j], setup.height[j], setup.height[k])
                meets = ((cast.max(-2) >= low) & (cast.min(-2) <= high)).all(-1)
                if meets.any():
                    points = draw.pixels(cast, self.size)
                    for at in map(tuple, np.argwhere(meets)):
                        near[at].append(points[at])
            for at in each:
                top[:] = 0
                for points in near[at]:
                    draw.fill(top, cv2.convexHull(points), 1)
                np.copyto(dark[at], top, where=amodal[k])
        return dark.view(bool)

    def states(self, setup: Setup, removed: np.ndarray) -> np.ndarray:
        """States float32 [K,S], columns as state_names. Rows of removed objects are 0."""
        columns = [np.ones(len(setup.kind)), *setup.position.T, setup.angle, *(2 * setup.half.T)]
        columns += [layout.areas(setup.kind, setup.half), setup.height, setup.kind, *(setup.colour / 255).T]
        states = np.stack(columns, -1).astype(np.float32)
        states[removed] = 0
        return states


def shadow(lamps: np.ndarray, outline: np.ndarray, height: float, level: float) -> np.ndarray:
    """Points [...,2V,2] whose convex hulls are the shadows of a prism on the plane at height `level`.

    The prism has outline [V,2] and `height`, above `level`. The lamps are at [...,3].
    """
    stretch = (lamps[..., 2] - level) / (lamps[..., 2] - height)
    under = lamps[..., None, :2]
    top = under + (outline - under) * stretch[..., None, None]
    return np.concatenate([np.broadcast_to(outline, top.shape), top], -2)
