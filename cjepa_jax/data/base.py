"""What a source of scenes is."""

from typing import Protocol

import numpy as np


class Source(Protocol):
    """A frozen, picklable dataclass, built with the keywords split ("train" or "eval"), path, size, frames, count and
    seed, and with its own options. Scene i is always the same bits.
    """

    label_names: tuple[str, ...]  # "group/name" of each probe target; a group is scored as one
    can_rerender: bool  # whether `intervene` exists

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: `video` uint8 [T, H, W, 3] (an image has T = 1), visible `masks` bool [K, T, H, W] for any K >= 0,
        `labels` float32 [P], and whatever else the source knows.

        Raises: errors.DataError for an unreadable scene, which its successor then stands in for.
        """

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove), `removed` bool [K]: uint8 [T, H, W, 3]."""
