"""Superpixels in place of objects: any source's scenes with masks that ignore objects, for an ablation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cjepa_jax.data import checks
from cjepa_jax.data.base import Source
from cjepa_jax.data.segmenters import slic
from cjepa_jax.data.sources import wrapped
from cjepa_jax.errors import ConfigError


@dataclass(frozen=True)
class Superpixels:
    """The videos and labels of another source. Masks are SLIC's segments (Achanta et al., 2012), which fill the frame.

    A clip's segments are supervoxels: k-means on colour, place and time. If the clip is not longer than a segment is
    wide (about (T size^2 / segments)^(1/3) pixels and frames), a segment spans nearly all frames and follows motion.
    Longer clips have segments that begin and end. Everything that belongs to an object (states, contacts, questions) is
    left out, and do(remove) of a segment is not available.

    Options:
      of: the source, "module:Class", which is given split, path, size, frames, count and seed. of_options: its options.
      segments: number of seeds. About as many segments result, because those below half the mean size are merged.
      compactness: weight of place against colour.

    Raises ConfigError for options that cannot work and if scikit-image is missing.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 4
    count: int = 10_000
    seed: int = 0
    of: str = "cjepa_jax.data.worlds:Balls"
    of_options: Mapping[str, Any] = field(default_factory=dict)
    segments: int = slic.SETTINGS["segments"]
    compactness: float = slic.SETTINGS["compactness"]
    source: Source = field(init=False, repr=False, compare=False)

    can_rerender = False

    def __post_init__(self):
        for name, fits, limit in (
            ("segments", isinstance(self.segments, int) and self.segments >= 2, "a whole number, at least 2"),
            ("compactness", isinstance(self.compactness, int | float) and self.compactness > 0, "a number above 0"),
        ):
            if not fits:
                raise ConfigError(f"data.options.{name} = {getattr(self, name)!r}: must be {limit}")
        slic.make(self._settings, "cpu", 1)  # a missing package is reported here
        object.__setattr__(self, "of_options", dict(self.of_options))
        object.__setattr__(self, "source", wrapped.inner(self))
        if checks.channels_of(self.source) != checks.RGB:
            raise ConfigError(
                f"data.options.of = {self.of!r}: SLIC needs RGB of 8 bits, these scenes are of other channels"
            )

    @property
    def _settings(self) -> dict[str, float]:
        return {"segments": self.segments, "compactness": self.compactness}

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.source.label_names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video uint8 [T,H,W,3] and labels float32 [P] of the source, masks bool [K,T,H,W] of its segments."""
        scene = self.source[i]
        video = scene["video"]
        segment, _ = slic.make(self._settings, "cpu", 1)
        # A single frame is passed as an image. Otherwise seeds would be laid out in three dimensions.
        pieces = [mask for mask, _ in segment(video if len(video) > 1 else video[0])]
        masks = np.stack(pieces).reshape(len(pieces), *video.shape[:3])
        return {"video": video, "masks": masks, "labels": scene["labels"]}
