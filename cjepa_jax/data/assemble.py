"""Builds a config's source of scenes and the map that prepares them. No JAX."""

from typing import Any

from cjepa_jax.configuration import build, sizes
from cjepa_jax.configuration.check import CHANNELS
from cjepa_jax.data import checks, kinds
from cjepa_jax.data.base import Source
from cjepa_jax.errors import ConfigError


def make_source(config: Any, split: str) -> Source:
    """Builds the source of config.data for a split. Raises ConfigError or DataError, one line each."""
    data = config.data
    count = data.count if split == "train" else data.eval_count
    fields = dict(path=data.path, size=data.size, frames=data.frames, count=count, seed=config.seed)
    return build.build({"type": data.source, **data.options}, "data.options", "data.source", split=split, **fields)


def make_scenes(config: Any, source: Source, patch: int, tubelet: int, max_removed: int = 0, hides: bool = True) -> Any:
    """Builds the map from scenes to arrays that config describes, by the source's kind (data/kinds).

    Args: patch: pixels. tubelet: frames per token. max_removed: objects that the model can tell apart. hides: whether
      every mask must hide something (False for an objective that ignores masks).
    """
    _check_channels(config, source)
    return kinds.make(config, source, patch, tubelet, max_removed=max_removed, hides=hides)


def _check_channels(config: Any, source: Source) -> None:
    """Raises ConfigError for scenes with another number of channels than the model's."""
    have = checks.channels_of(source)[0]
    model = next((config.objective[name] for name in ("encoder", "backbone") if name in config.objective), None)
    takes = have if model is None else model.get("channels", CHANNELS)
    if takes != have:
        where = "data.options.channels" if "channels" in config.data.options else type(source).__name__
        raise ConfigError(f"objective.encoder.channels = {takes}: must be that of the scenes, {have} ({where})")


def patch_and_tubelet(config: Any) -> tuple[int, int]:
    """Pixels and frames of a token, read from the encoder's section. Raises ConfigError if that section is missing.

    An objective without encoder, whose tokens are slots, names `history` instead: one slot of one frame.
    """
    if "encoder" not in config.objective and "history" in config.objective:
        return 1, 1
    encoder = config.objective.get("encoder")
    if encoder is not None and "type" in encoder:  # an encoder of another class says it itself
        made = build.build(build.plain(encoder), "objective.encoder")
        return made.patch, made.tubelet
    if encoder is None or "variant" not in encoder:
        raise ConfigError("objective.encoder.variant is missing: it says how large the patches are")
    return sizes.parse(encoder.variant).patch, encoder.get("tubelet", 1)
