"""Features of a frozen image encoder instead of pixels.

A source of features (`kind = "features"`, and attributes `rows`, `columns` and `width`, F) gives for each scene `video`
float32 [T, rows, columns, F]. Nothing says where objects are. `labels` may be left out if `label_names` is empty.
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import kinds, pipeline
from cjepa_jax.data.kinds.slots import Whole
from cjepa_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class FeatureMap(pipeline.SceneMap):
    """A SceneMap whose `video` is float32 [T, rows, columns, F], with one token for each place and frame."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(frames, rows, columns)."""
        return self.frames, self.source.rows, self.source.columns

    @property
    def cost(self) -> tuple[int, dict[str, int]]:
        """Bytes of one prepared scene, and the settings that decide it."""
        return self.tokens * (4 * self.source.width + self.max_objects), {"data.frames": self.frames}

    def complete(self, raw: dict, name: str) -> dict:
        """The scene with no objects."""
        return {"labels": np.zeros(0, np.float32)} | raw | {"masks": np.zeros((0, *self.grid), bool)}

    @property
    def values(self) -> tuple[int, str]:
        """Components and type of a feature."""
        return self.source.width, "float32"

    def window(self, rng: np.random.Generator, video: np.ndarray) -> Any:
        """The whole scene."""
        return Whole()


def make(
    config: Any, source: Any, patch: int = 1, tubelet: int = 1, max_removed: int = 0, hides: bool = True
) -> FeatureMap:
    """The map of features. Raises ConfigError for a model of pixels, crops, and scenes that are simulated again."""
    data, name = config.data, type(source).__name__
    if (patch, tubelet) != (1, 1):
        raise ConfigError(f"data.source: {name} gives features: the model must take tokens of one place and one frame")
    for key, value, right in (("crop", data.crop, False), ("intervened", data.intervened, "none")):
        if value != right:
            raise ConfigError(f"data.{key} = {value!r}: must be {right} for features")
    return FeatureMap(patch=1, tubelet=1, **kinds.settings(config, source, max_removed, hides))
