"""The kinds of scenes. A kind is one module here with a function `make`, and one line in MAKERS.

`make(config, source, patch, tubelet, max_removed, hides) -> SceneMap` checks what the config and the source must have.
A source without the attribute `kind` gives videos.
"""

import importlib
from typing import Any, Protocol

import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import check

ALL = ("video", "spectrogram", "points", "episodes", "slots", "features")
READ = ("video", "episodes", "slots", "points", "spectrogram", "features")
MAKERS = {name: f"cjepa_jax.data.kinds.{name}" for name in READ}
FILMED = ("video", "episodes")  # kinds whose scenes have a `video` of pixels, which most commands show
CLIPS = (*FILMED, "slots")  # kinds whose scenes are clips: of pixels, or of slots instead of pixels
ENCODED = (*CLIPS, "points", "spectrogram", "features")  # scenes that are one array `video`, which an encoder takes


class SceneMap(Protocol):
    """Turns "scene i, drawn for the e-th time" into the arrays of types.Batch. Picklable and without state.

    Every kind yields scene, epoch, valid, replaced, labels, context, object_patches, object_valid and removed, and
    `video` or `signal`. pipeline.SceneMap is the map of videos, and kinds.episodes derives from it.
    """

    source: Any
    grid: tuple[int, int, int]  # (times, rows, cols) of every scene; points: (1, 1, N)
    tokens: int  # N
    cost: tuple[int, dict[str, int]]  # bytes of one prepared scene, and the settings that decide it, by config key

    def __call__(self, scene: int, epoch: int) -> dict[str, np.ndarray]: ...


def of(source: Any) -> str:
    """The kind of a source's scenes."""
    return getattr(source, "kind", "video")


def make(config: Any, source: Any, *sizes: int, **model: Any) -> Any:
    """The scene map for a source, by its kind. Raises ConfigError for a kind that is not supported."""
    kind = of(source)
    if kind not in MAKERS:
        known = "is not read yet" if kind in ALL else "is unknown"
        raise ConfigError(f"data.source = {config.data.source!r}: kind {kind!r} {known}: must be {_any(MAKERS)}")
    return importlib.import_module(MAKERS[kind]).make(config, source, *sizes, **model)


def settings(config: Any, source: Any, max_removed: int, hides: bool) -> dict[str, Any]:
    """What the maps of all kinds take from a config: arguments of pipeline.SceneMap. hides: see masks.check.bind."""
    data = config.data
    return dict(
        source=source,
        mask=check.bind(config.mask, hides),
        size=data.size,
        max_objects=data.max_objects,
        intervened=data.intervened,
        seed=config.seed,
        frames=data.frames,
        max_removed=max_removed,
        crop=data.crop,
    )


def require(source: Any, kinds: tuple[str, ...], who: str) -> None:
    """Raises ConfigError, one line, unless the source's scenes are of one of these kinds. who: what needs them."""
    if of(source) not in kinds:
        name = type(source).__name__
        raise ConfigError(f"data.source: {name} gives scenes of kind {of(source)!r}: {who} takes {_any(kinds)}")


def _any(kinds: Any) -> str:
    return " or ".join(kinds)
