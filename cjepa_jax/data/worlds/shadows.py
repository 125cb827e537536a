"""Shadows: upright discs and boxes on a floor, seen from above, that cast shadows on the floor and on each other."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import cv2
import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import World, check_range, check_removed, check_share

AMBIENT = 0.35  # share of the light that shadows keep
REACH = 1.2  # view widths from under a lamp to where its light has halved


class Setup(NamedTuple):
    """Everything that scene i is. Lengths in view widths."""

    kind: np.ndarray  # [K] DISC or BOX
    half: np.ndarray  # [K,2]
    position: np.ndarray  # [K,2]
    angle: np.ndarray  # [K]
    height: np.ndarray  # [K] above the floor
    colour: np.ndarray  # uint8 [K,3]
    lights: np.ndarray  # [L,3] x, y, height above the floor
    floor: np.ndarray  # [3] colour, 0 .. 255


@dataclass(frozen=True)
class Shadows(World):
    """Static scenes (all T frames are equal): lamps above a floor, and objects that stand in their light.

    World units: the view is 1 x 1, x right, y down, seen from above. A lamp is a point, an object a prism. Its
    shadow on the floor or on the top of a lower object is the hull of its outline and of its top as projected from the
    lamp: exact for point lights. So do(remove) takes the shadow away too and lights up what stood in it. Shadow pixels
    are not part of an object's mask. Where two objects overlap the taller one is seen.

    objects: least and most objects. radius: of discs; boxes have the same area; all shrink where they would not fit.
    height: of objects. lights: least and most lamps. boxes: share of boxes.

    A scene holds what a Balls scene holds, with contacts empty [0,4], and `lights` float32 [L,3] (x, y, height).
    There is no motion, hence no velocity in `states` and in `labels`.
    """

    objects: tuple[int, int] = (3, 6)
    radius: tuple[float, float] = (0.085, 0.15)
    height: tuple[float, float] = (0.05, 0.5)
    lights: tuple[int, int] = (1, 2)
    boxes: float = 0.5

    setup_type: ClassVar[type] = Setup
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
        ):
            value = check_range(f"data.options.{name}", getattr(self, name), least, most, kind)
            object.__setattr__(self, name, value)
        check_share("data.options.boxes", self.boxes)

    def setup(self, i: int) -> Setup:
        """Scene i before it is drawn: independent of size and frames."""
        rng = self.rng(i)
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        lamps = int(rng.integers(self.lights[0], self.lights[1] + 1))
        u = rng.random((5, count))
        kind = np.where(u[0] < self.boxes, layout.BOX, layout.DISC)
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * u[1]
        half = layout.half_sizes(kind, radius, 1.6 ** (2 * u[2] - 1))
        position, shrink = layout.place(rng, layout.reach(kind, half), np.zeros(count), 0.0, gap=0.85)
        height = self.height[0] + (self.height[1] - self.height[0]) * u[3]
        v = rng.random((3, lamps))
        distance, around = 0.35 + 0.35 * v[0], 2 * np.pi * v[1]
        above = self.height[1] + 0.25 + 0.35 * v[2]  # so every lamp hangs over every object
        lights = np.stack([0.5 + distance * np.cos(around), 0.5 + distance * np.sin(around), above], -1)
        floor = np.clip(rng.uniform(190, 245) + rng.uniform(-14, 14, 3), 0, 255)
        return Setup(kind, half * shrink, position, 2 * np.pi * u[4], height, layout.colours(rng, count), lights, floor)

    def play(self, setup: Setup, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene under do(remove). Raises DataError."""
        removed = check_removed(removed, len(setup.kind))
        picture, visible, amodal = self.picture(setup, removed)
        states = np.repeat(self.states(setup, removed)[None], self.frames, 0)
        return {
            "video": np.repeat(picture[None], self.frames, 0),
            "masks": np.repeat(visible, self.frames, 1),
            "amodal": np.repeat(amodal, self.frames, 1),
            "states": states,
            "contacts": np.zeros((0, 4), np.float32),
            "graph": np.zeros((len(removed), len(removed)), bool),
            "lights": setup.lights.astype(np.float32),
            "labels": self.labels(states),
        }

    def film(self, setup: Setup, removed: np.ndarray | None = None) -> np.ndarray:
        """The video alone of the scene under do(remove), uint8 [T,H,W,3]. Raises DataError."""
        picture, _, _ = self.picture(setup, check_removed(removed, len(setup.kind)))
        return np.repeat(picture[None], self.frames, 0)

    def picture(self, setup: Setup, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One frame uint8 [H,W,3], visible and amodal masks [K,1,H,W]: colours times the light that arrives."""
        outlines = [shape[0] for shape in layout.outlines(setup.kind, setup.half, setup.position, setup.angle)]
        order = [k for k in np.argsort(setup.height, kind="stable").tolist() if not removed[k]]
        polygons = [[draw.pixels(points, self.size)[None]] for points in outlines]
        visible, amodal = draw.masks(polygons, order, 1, self.size)
        colour = np.empty((self.size, self.size, 3), np.float32)
        colour[:] = setup.floor
        for k in order:
            draw.fill(colour, polygons[k][0][0], setup.colour[k].tolist())
        light = np.full((self.size, self.size), AMBIENT, np.float32)
        for lamp in setup.lights:
            dark = self.shadow(setup, lamp, outlines, order, amodal[:, 0])
            light += (1 - AMBIENT) / len(setup.lights) * np.where(dark, 0, self.falloff(lamp))
        return np.rint(colour * light[..., None]).astype(np.uint8), visible, amodal

    def falloff(self, lamp: np.ndarray) -> np.ndarray:
        """Brightness of a lamp's light, float32 [H,W], 1 under the lamp and 1/2 at REACH."""
        centre = ((np.arange(self.size) + 0.5) / self.size).astype(np.float32)
        x, y = (((centre - c) / REACH) ** 2 for c in lamp[:2].astype(np.float32))
        return 1 / (1 + x[None, :] + y[:, None])

    def shadow(
        self, setup: Setup, lamp: np.ndarray, outlines: list, order: list[int], amodal: np.ndarray
    ) -> np.ndarray:
        """Where one lamp does not reach what is seen, bool [H,W]; `order` goes from low to tall."""
        dark = np.zeros((self.size, self.size), np.uint8)
        for j in order:
            self.cast(dark, lamp, outlines[j], setup.height[j], 0.0)
        for rank, k in enumerate(order):
            top = np.zeros_like(dark)
            for j in order[rank + 1 :]:
                self.cast(top, lamp, outlines[j], setup.height[j], setup.height[k])
            np.copyto(dark, top, where=amodal[k])
        return dark.view(bool)

    def cast(self, image: np.ndarray, lamp: np.ndarray, outline: np.ndarray, height: float, level: float) -> None:
        """Fill, with 1, the shadow that a prism of `height` casts on the plane `level` below its top."""
        stretch = (lamp[2] - level) / (lamp[2] - height)
        points = np.concatenate([outline, lamp[:2] + (outline - lamp[:2]) * stretch])
        draw.fill(image, cv2.convexHull(draw.pixels(points, self.size)), 1)

    def states(self, setup: Setup, removed: np.ndarray) -> np.ndarray:
        """States float32 [K,S], columns as state_names; rows of removed objects are 0."""
        columns = [np.ones(len(setup.kind)), *setup.position.T, setup.angle, *(2 * setup.half.T)]
        columns += [layout.areas(setup.kind, setup.half), setup.height, setup.kind, *(setup.colour / 255).T]
        states = np.stack(columns, -1).astype(np.float32)
        states[removed] = 0
        return states
