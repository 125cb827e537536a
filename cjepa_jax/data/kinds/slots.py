"""Object slots: vectors instead of pixels.

A source of slots (`kind = "slots"`, and attributes `slots`, K, and `width`, D) gives for each scene `video` float32
[T, 1, K, D]. Slot k is column k, and object k is slot k at all frames, so that masks, the context and rows are those of
videos with patches of one pixel. Optional are `present` bool [K] (False: the slot holds nothing, and no token of it is
seen or predicted), `actions`, `proprio`, `states` and `graph` as in episodes. `labels` may be left out if `label_names`
is empty. A source whose slots are all present may read many scenes at once: `windows(numbers)`, int [B], gives what the
scenes hold with B as the first axis (video, actions, proprio, and nothing else).
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import batching, checks, kinds, pipeline
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import check, objects


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
    def reads_batches(self) -> bool:
        """Whether `batch` can read scenes together: the source gives `windows`, and nothing else is asked for."""
        plain = self.intervened == "none" and not (self.with_masks or self.with_objects)
        return plain and hasattr(self.source, "windows")

    def batch(self, scenes: np.ndarray, epochs: np.ndarray) -> dict[str, np.ndarray]:
        """Scenes int [B], each drawn for the epochs-th time, int [B]: what `__call__` gives, with B as the first axis.

        The slots of all are read in one copy. Raises as `__call__`.
        """
        try:
            raw = self.source.windows(scenes)
        except DataError:  # one of them: it is replaced, and the others are read one by one
            return _stacked([self(int(scene), int(epoch)) for scene, epoch in zip(scenes, epochs, strict=True)])
        every = objects.patches(self._identity, 1, 1)
        kept = batching.keep_largest(every, self.max_objects)
        own = batching.pad_objects(every[kept], self.max_objects)
        valid, draws = np.asarray(own.any(1)), []
        for scene, epoch in zip(scenes.tolist(), epochs.tolist(), strict=True):
            draws.append(self.mask(self.generator(scene, epoch), own, valid, grid=self.grid))
            if self.max_removed and draws[-1][1].sum() > self.max_removed:
                self(scene, epoch)  # raises
        drawn = tuple(map(np.stack, zip(*draws, strict=True)))
        masked, removed, *dropped = drawn[:3]
        count = len(scenes)
        out = {
            "scene": scenes.astype(np.int32),
            "epoch": epochs.astype(np.int32),
            "video": raw["video"],
            "object_patches": np.repeat(own[None], count, 0),
            "object_valid": np.repeat(valid[None], count, 0),
            "removed": removed,
            "context": ~np.any([masked, *dropped], axis=0),
            "valid": np.ones(count, bool),
            "replaced": np.zeros(count, bool),
            "labels": np.zeros((count, 0), np.float32),
        }
        out |= ({"hidden": masked} if dropped else {}) | check.second(drawn)
        return out | {name: raw[name] for name in ("actions", "proprio") if name in raw}

    @property
    def _identity(self) -> np.ndarray:
        """The masks of slots that are all there, bool [K, T, 1, K]."""
        slots = self.source.slots
        masks = np.eye(slots, dtype=bool)[:, None, None]
        return np.broadcast_to(masks, (slots, self.frames, 1, slots))

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


def _stacked(scenes: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}


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
    return SlotMap(patch=1, tubelet=1, **kinds.settings(config, source, max_removed, hides))


def _check_lengths(config: Any) -> None:
    """Raises ConfigError where the mask, the objective and the data disagree on the number of frames."""
    objective, mask = config.objective, config.mask
    if "history" in mask and objective.get("history", mask.history) != mask.history:
        raise ConfigError(f"objective.history = {objective.history}: must be mask.history = {mask.history}")
    frames = [objective.get(name) for name in ("history", "future")]
    if None not in frames and sum(frames) != config.data.frames:
        text = f"objective.history + objective.future = {sum(frames)}"
        raise ConfigError(f"{text}: must be data.frames = {config.data.frames}")
