"""Videos and images: pixels with object masks."""

from typing import Any

from cjepa_jax.data import kinds, pipeline
from cjepa_jax.data.base import Source
from cjepa_jax.errors import ConfigError


def make(
    config: Any,
    source: Source,
    patch: int,
    tubelet: int,
    max_removed: int = 0,
    hides: bool = True,
    map: type[pipeline.SceneMap] = pipeline.SceneMap,
) -> pipeline.SceneMap:
    """The map from videos to arrays that config describes. See assemble.make_scenes. map: the class."""
    data = config.data
    if data.intervened in pipeline.SIMULATED and not source.can_rerender:
        raise ConfigError(
            f"data.intervened = {data.intervened!r}: {type(source).__name__} cannot. zero_pixels always works"
        )
    if data.crop and getattr(source, "fixed_view", False):
        raise ConfigError("data.crop = True: must be False for an outcome, whose places are in the frame's coordinates")
    if data.size % patch:
        raise ConfigError(f"data.size = {data.size}: must be a multiple of the model's patches, {patch} pixels")
    return map(patch=patch, tubelet=tubelet, **kinds.settings(config, source, max_removed, hides))
