"""Object slots: vectors instead of pixels.

A source of slots (`kind = "slots"`, and attributes `slots`, K, and `width`, D) gives for each scene `video` float32
[T, 1, K, D]. Slot k is column k, and object k is slot k at all frames, so that masks, the context and rows are those of
videos with patches of one pixel. Optional are `present` bool [K] (False: the slot holds nothing, and no token of it is
seen or predicted), `actions`, `proprio`, `states` and `graph` as in episodes. `labels` may be left out if `label_names`
is empty.
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import checks, pipeline
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import check


class Whole:
    """The window of pipeline.SceneMap that changes nothing: slots have no place."""

    def frames(self, video: np.ndarray, size: int) -> np.ndarray:
        """The same array."""
        return video

    masks = frames


@dataclasses.dataclass(frozen=True)
class SlotMap(pipeline.SceneMap):
    """A SceneMap whose `video` is float32 [T, 1, K, D], with one token for each slot and frame."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(frames, 1, K)."""
        return self.frames, 1, self.source.slots

    @property
    def cost(self) -> tuple[int, dict[str, int]]:
        """Bytes of one prepared scene, and the settings that decide it."""
        arrays = 2 if self.intervened in pipeline.PICTURED else 1
        keys = {"data.frames": self.frames, "data.max_objects": self.max_objects}
        return self.tokens * (4 * arrays * self.source.width + self.max_objects), keys

    def complete(self, raw: dict, name: str) -> dict:
        """The scene with a mask for each slot, its column at all frames. Raises DataError for wrong slots."""
        checks.slots(raw, self._shape, name)
        slots = self.source.slots
        present = raw.get("present", np.ones(slots, bool))
        masks = np.eye(slots, dtype=bool)[:, None, None] & present[:, None, None, None]
        masks = np.broadcast_to(masks, (slots, self.frames, 1, slots))
        return {"labels": np.zeros(0, np.float32)} | raw | {"masks": masks}

    @property
    def values(self) -> tuple[int, str]:
        """Components and type of a slot."""
        return self.source.width, "float32"

    def window(self, rng: np.random.Generator, video: np.ndarray) -> Any:
        """The whole scene."""
        return Whole()

    def more(self, raw: dict, kept: np.ndarray) -> dict[str, np.ndarray]:
        """The agent's arrays, and what videos have."""
        agent = {name: np.asarray(raw[name], np.float32) for name in ("actions", "proprio") if name in raw}
        return super().more(raw, kept) | agent

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.frames, 1, self.source.slots, self.source.width


def make(
    config: Any, source: Any, patch: int = 1, tubelet: int = 1, max_removed: int = 0, hides: bool = True
) -> SlotMap:
    """The map of slots. Raises ConfigError for a source without sizes, crops, and room for fewer objects than slots."""
    data, name = config.data, type(source).__name__
    for size in ("slots", "width"):
        value = getattr(source, size, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"data.source: {name}.{size} = {value!r}: must be a whole number, at least 1")
    if data.crop:
        raise ConfigError("data.crop = True: must be False for slots, which have no place")
    if (patch, tubelet) != (1, 1):
        raise ConfigError(f"data.source: {name} gives slots: the model must take tokens of one slot and one frame")
    if data.max_objects < source.slots:
        raise ConfigError(f"data.max_objects = {data.max_objects}: must be at least the {source.slots} slots of {name}")
    _check_lengths(config)
    if data.intervened in pipeline.SIMULATED and not source.can_rerender:
        raise ConfigError(f"data.intervened = {data.intervened!r}: {name} cannot. zero_pixels always works")
    return SlotMap(
        source=source,
        mask=check.bind(config.mask, hides),
        patch=1,
        tubelet=1,
        size=data.size,
        max_objects=data.max_objects,
        intervened=data.intervened,
        seed=config.seed,
        frames=data.frames,
        max_removed=max_removed,
    )


def _check_lengths(config: Any) -> None:
    """Raises ConfigError where the mask, the objective and the data disagree on the number of frames."""
    objective, mask = config.objective, config.mask
    if "history" in mask and objective.get("history", mask.history) != mask.history:
        raise ConfigError(f"objective.history = {objective.history}: must be mask.history = {mask.history}")
    frames = [objective.get(name) for name in ("history", "future")]
    if None not in frames and sum(frames) != config.data.frames:
        text = f"objective.history + objective.future = {sum(frames)}"
        raise ConfigError(f"{text}: must be data.frames = {config.data.frames}")
