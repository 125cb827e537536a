"""Sounds: log-mel spectrograms instead of pixels.

A source of sounds (`kind = "spectrogram"`, and the attributes `samples`, S, `rate` in Hz, `times`, T, and `bands`, M)
gives for each scene `waveform` float32 [S], and perhaps `class`. `labels` may be left out if `label_names` is empty. A
scene becomes `video` float32 [1, T, M, 1], an image of one channel (data/mel.py).
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import checks, kinds, mel, pipeline
from cjepa_jax.data.kinds.slots import Whole
from cjepa_jax.errors import ConfigError

SIZES = {"samples": 2, "rate": 1, "times": 1, "bands": 1}  # attributes of a source and their least values


@dataclasses.dataclass(frozen=True)
class SoundMap(pipeline.SceneMap):
    """A SceneMap whose `video` is float32 [1, T, M, 1], with tokens of `patch` frames x `patch` bands."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, T / patch, M / patch)."""
        return 1, self.source.times // self.patch, self.source.bands // self.patch

    @property
    def cost(self) -> tuple[int, dict[str, int]]:
        """Bytes of one prepared scene, and the settings that decide it."""
        keys = {"data.options.times": self.source.times, "data.options.bands": self.source.bands}
        return 4 * self.source.times * self.source.bands + self.tokens * self.max_objects, keys

    def complete(self, raw: dict, name: str) -> dict:
        """The scene with its spectrogram as a video. Raises DataError for a wrong waveform."""
        checks.waveform(raw, self.source.samples, name)
        video = mel.log_mel(raw["waveform"], self.source.rate, self.source.times, self.source.bands)[None, ..., None]
        masks = np.zeros((0, *video.shape[:3]), bool)
        return {"labels": np.zeros(0, np.float32)} | raw | {"video": video, "masks": masks}

    @property
    def values(self) -> tuple[int, str]:
        """Channels and type of a spectrogram."""
        return 1, "float32"

    def window(self, rng: np.random.Generator, video: np.ndarray) -> Any:
        """The whole sound."""
        return Whole()


def make(config: Any, source: Any, patch: int, tubelet: int = 1, max_removed: int = 0, hides: bool = True) -> SoundMap:
    """The map of sounds. Raises ConfigError for a source without sizes, and for tokens that do not divide them."""
    data, name = config.data, type(source).__name__
    for size, least in SIZES.items():
        value = getattr(source, size, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            limit = f"must be a whole number, at least {least}, for scenes of kind 'spectrogram'"
            raise ConfigError(f"data.source: {name}.{size} = {value!r}: {limit}")
    for size in ("times", "bands"):
        value = getattr(source, size)
        if value % patch:
            raise ConfigError(f"data.options.{size} = {value}: must be a multiple of the model's patches, {patch}")
    if source.times > source.samples:
        raise ConfigError(f"data.options.times = {source.times}: must be at most the {source.samples} samples")
    for key, value, right in (("frames", data.frames, 1), ("crop", data.crop, False)):
        if value != right:
            raise ConfigError(f"data.{key} = {value}: must be {right} for sounds")
    if data.intervened != "none":
        raise ConfigError(f"data.intervened = {data.intervened!r}: must be none for sounds, which have no objects")
    return SoundMap(patch=patch, tubelet=tubelet, **kinds.settings(config, source, max_removed, hides))
