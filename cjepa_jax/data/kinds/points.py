"""Point clouds: groups of neighbouring points instead of pixels.

A source of points (`kind = "points"`, and the attribute `points`, P) gives for each scene `points` float32 [P, 3], and
perhaps `class`. `labels` may be left out if `label_names` is empty. A scene becomes `video` float32 [1, G, 1 + k, 3]:
G groups in a row, in which neighbours are close (data/clouds.py), each its centre and the k nearest points relative to
it. A group is a token. G and k are `groups` and `neighbours` of objective.encoder. Points are centred and scaled to the
unit sphere.

With `data.crop` a cloud is scaled by 0.8 to 1.2 along each axis and turned about the y axis, and the first centre is
drawn. Held-out scenes are not changed, and their first centre is the first point.
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import checks, clouds, kinds, pipeline
from cjepa_jax.errors import ConfigError

SCALES = (0.8, 1.2)  # of Point-JEPA's training. One factor for all axes would be undone by clouds.unit


@dataclasses.dataclass(frozen=True)
class Grouping:
    """The window of pipeline.SceneMap that makes groups of points.

    turn: radians. scale: of each axis. start: the first centre.
    """

    groups: int
    neighbours: int
    turn: float = 0.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    start: int = 0

    def frames(self, video: np.ndarray, size: int) -> np.ndarray:
        """[1, 1, P, 3] -> [1, G, 1 + k, 3]."""
        points = clouds.unit(np.array(self.scale) * video[0, 0].astype(np.float64))
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        points = points @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        return clouds.grouped(points, self.groups, self.neighbours, self.start)[None]

    def masks(self, masks: np.ndarray, size: int) -> np.ndarray:
        """Clouds have no objects: bool [0, 1, G, 1]."""
        return np.zeros((0, 1, self.groups, 1), bool)


@dataclasses.dataclass(frozen=True)
class PointMap(pipeline.SceneMap):
    """A SceneMap whose `video` is float32 [1, G, 1 + k, 3], with one token for each of the G groups."""

    groups: int = 64
    neighbours: int = 32

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, G, 1)."""
        return 1, self.groups, 1

    @property
    def cost(self) -> tuple[int, dict[str, int]]:
        """Bytes of one prepared scene, and the settings that decide it."""
        keys = {"objective.encoder.groups": self.groups, "objective.encoder.neighbours": self.neighbours}
        return 12 * self.groups * (1 + self.neighbours) + self.tokens * self.max_objects, keys

    def complete(self, raw: dict, name: str) -> dict:
        """The scene with its points as a video. Raises DataError for wrong points."""
        checks.points(raw, self.source.points, name)
        video = raw["points"][None, None]
        return (
            {"labels": np.zeros(0, np.float32)} | raw | {"video": video, "masks": np.zeros((0, *video.shape[:3]), bool)}
        )

    @property
    def values(self) -> tuple[int, str]:
        """Components and type of a point."""
        return 3, "float32"

    def window(self, rng: np.random.Generator, video: np.ndarray) -> Grouping:
        """How the points are turned and grouped."""
        if not self.crop:
            return Grouping(self.groups, self.neighbours)
        turn, scale, start = rng.uniform(0, 2 * np.pi), rng.uniform(*SCALES, 3), int(rng.integers(video.shape[2]))
        return Grouping(self.groups, self.neighbours, turn, tuple(scale), start)


def make(
    config: Any, source: Any, patch: int = 1, tubelet: int = 1, max_removed: int = 0, hides: bool = True
) -> PointMap:
    """The map of point clouds. Raises ConfigError for a source without points, and for groups that it cannot fill."""
    data, name, encoder = config.data, type(source).__name__, config.objective.encoder
    count = getattr(source, "points", None)
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ConfigError(f"data.source: {name}.points = {count!r}: must be a whole number, at least 2")
    if (patch, tubelet) != (1, 1):
        raise ConfigError(f"data.source: {name} gives points: objective.encoder.variant must end in /1")
    if data.frames != 1:
        raise ConfigError(f"data.frames = {data.frames}: must be 1 for points")
    if data.intervened != "none":
        raise ConfigError(f"data.intervened = {data.intervened!r}: must be none for points, which have no objects")
    for key, least in (("groups", 2), ("neighbours", 1)):
        value = encoder.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= count:
            raise ConfigError(
                f"objective.encoder.{key} = {value!r}: must be from {least} to the {count} points of {name}"
            )
    return PointMap(
        patch=1,
        tubelet=1,
        **kinds.settings(config, source, max_removed, hides),
        groups=encoder.groups,
        neighbours=encoder.neighbours,
    )
