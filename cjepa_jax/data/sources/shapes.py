"""Eight kinds of surfaces as point clouds, made on the fly."""

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds.base import check_integer, check_share
from cjepa_jax.errors import ConfigError

SPLITS = ("train", "eval", "test")
KINDS = ("sphere", "cube", "cylinder", "cone", "torus", "pyramid", "capsule", "helix")


@dataclass(frozen=True)
class Shapes:
    """Points on surfaces of eight kinds, stretched, turned, cut and noisy: a source of kind "points".

    A scene has `points` float32 [P, 3], `class`, int64 [], its number in KINDS, and labels: 1 for its kind, 0 for the
    others. Each is stretched along its axes by 0.7 to 1.4 and turned by any rotation. Then the points on one side of a
    random plane are taken away, and Gaussian noise is added.

    Args:
      split, path, count, seed, frames, size: as for every source. Clouds have one frame, and no size in pixels.
      points: P, after the cut.
      cut: share of the surface's points that is taken away.
      noise: standard deviation of the noise, in units of the shape's radius (about 1).
    Raises: ConfigError for values out of their limits.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 1
    count: int = 10_000
    seed: int = 0
    points: int = 512
    cut: float = 0.33
    noise: float = 0.03

    kind: ClassVar[str] = "points"
    label_names: ClassVar[tuple[str, ...]] = tuple(f"class/{name}" for name in KINDS)
    classes: ClassVar[tuple[str, ...]] = KINDS
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        check_integer("data.count", self.count, 1)
        check_integer("data.options.points", self.points, 2)
        check_share("data.options.cut", self.cut)
        if self.cut > 0.9:
            raise ConfigError(f"data.options.cut is {self.cut}: must be at most 0.9")
        if isinstance(self.noise, bool) or not isinstance(self.noise, int | float) or not 0 <= self.noise <= 1:
            raise ConfigError(f"data.options.noise is {self.noise!r}: must be a number from 0 to 1")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Scene i. Raises IndexError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        rng = seeds.generator(self.seed, "points on shapes", SPLITS.index(self.split), i)
        number = int(rng.integers(len(KINDS)))
        whole = int(np.ceil(self.points / (1 - self.cut)))
        points = surface(rng, KINDS[number], whole) * rng.uniform(0.7, 1.4, 3) @ rotation(rng)
        side = points @ unit(rng.normal(size=3))
        points = points[np.argsort(side, kind="stable")[: self.points]]
        points = points[rng.permutation(len(points))] + self.noise * rng.normal(size=(self.points, 3))
        labels = np.eye(len(KINDS), dtype=np.float32)[number]
        return {"points": points.astype(np.float32), "labels": labels, "class": np.array(number, np.int64)}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1 along the last axis."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation [3, 3], uniform."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    return matrix * np.linalg.det(matrix)


def surface(rng: np.random.Generator, name: str, count: int) -> np.ndarray:
    """`count` points on a surface of this kind, about the origin, with a radius of about 1: [count, 3].

    Uniform on the sphere and the faces of the cube and the pyramid. On the others by a formula that is nearly so.
    """
    u, v = rng.random((2, count))
    angle = 2 * np.pi * u
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    if name == "sphere":
        return unit(rng.normal(size=(count, 3)))
    if name == "cube":
        points = rng.uniform(-0.8, 0.8, (count, 3))
        points[np.arange(count), rng.integers(3, size=count)] = np.where(v < 0.5, -0.8, 0.8)
        return points
    if name in ("cylinder", "cone"):
        cap = rng.random(count) < (0.4 if name == "cylinder" else 0.35)
        share = np.sqrt(v)
        height = np.where(cap, -0.8, 1.6 * (v if name == "cylinder" else 1 - share) - 0.8)
        if name == "cylinder":
            height = np.where(cap & (rng.random(count) < 0.5), 0.8, height)
            radius = np.where(cap, share, 1.0)
        else:
            radius = share
        return np.concatenate([0.8 * radius[:, None] * circle, height[:, None]], axis=-1)
    if name == "torus":
        tube = 2 * np.pi * v
        radius = 0.75 + 0.3 * np.cos(tube)
        return np.concatenate([radius[:, None] * circle, 0.3 * np.sin(tube)[:, None]], axis=-1)
    if name == "pyramid":
        corner = np.array([[0.0, 0.0, 1.0], [0.9, 0.0, -0.5], [-0.45, 0.8, -0.5], [-0.45, -0.8, -0.5]])
        face = np.delete(np.arange(4)[None].repeat(4, 0), np.arange(0, 16, 5)).reshape(4, 3)[
            rng.integers(4, size=count)
        ]
        share = np.sort(rng.random((count, 2)), axis=1)
        weight = np.diff(np.pad(share, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))), axis=1)
        return (weight[..., None] * corner[face]).sum(1)
    if name == "capsule":
        middle = rng.random(count) < 0.6
        ball = 0.45 * unit(rng.normal(size=(count, 3)))
        ball[:, 2] += 0.6 * np.sign(ball[:, 2])
        tube = np.concatenate([0.45 * circle, (1.2 * v - 0.6)[:, None]], axis=-1)
        return np.where(middle[:, None], tube, ball)
    turns = 4 * np.pi * v  # helix: a tube round a spiral
    spiral = np.stack([0.6 * np.cos(turns), 0.6 * np.sin(turns), 1.6 * v - 0.8], axis=-1)
    return spiral + 0.12 * unit(rng.normal(size=(count, 3)))
