"""Episodes: videos with the actions of an agent.

A source of episodes (`kind = "episodes"`) gives for each scene `video` uint8 [T, H, W, 3] and `actions` float32 [T, A].
actions[t] leads from frame t to frame t + 1, so the last one leads out of the scene. Optional are `proprio` float32
[T, S], `masks` bool [K, T, H, W] and `states` float32 [T, K, S]. `labels` may be left out if `label_names` is empty.
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import checks, pipeline
from cjepa_jax.data.base import Source
from cjepa_jax.data.kinds import video
from cjepa_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class EpisodeMap(pipeline.SceneMap):
    """A SceneMap whose scenes also have `actions` [T, A] and, if the source has them, `proprio` [T, S]."""

    def complete(self, raw: dict, name: str) -> dict:
        """The scene with no objects and no labels where the source has none. Raises DataError for wrong actions."""
        checks.episode(raw, self.frames, name, *checks.channels_of(self.source))
        height, width = raw["video"].shape[1:3]
        empty = {"masks": np.zeros((0, self.frames, height, width), bool), "labels": np.zeros(0, np.float32)}
        return empty | raw

    def more(self, raw: dict, kept: np.ndarray) -> dict[str, np.ndarray]:
        """The agent's arrays, and what videos have."""
        agent = {name: np.asarray(raw[name], np.float32) for name in ("actions", "proprio") if name in raw}
        return super().more(raw, kept) | agent


def make(config: Any, source: Source, patch: int, tubelet: int, **model: Any) -> pipeline.SceneMap:
    """The map of episodes. Raises ConfigError for crops, which would not fit the actions."""
    if config.data.crop:
        raise ConfigError("data.crop = True: must be False for episodes, whose actions are in the frame's coordinates")
    return video.make(config, source, patch, tubelet, **model, map=EpisodeMap)
