"""The interface of a source of scenes."""

from typing import Protocol

import numpy as np


class Source(Protocol):
    """A frozen, picklable dataclass that gives the same bits for scene i every time.

    It is built with the keywords split ("train" or "eval"), path, size, frames, count and seed, and with the source's
    custom options.
    """

    label_names: tuple[str, ...]  # "group/name" of each probe target. A group is scored as one
    can_rerender: bool  # whether `intervene` exists
    # kind: str = "video"    an optional class attribute: what scenes are (data/kinds), such as "episodes" or "slots"
    # embedding_shape: tuple[int, int]    of sources that give `embedding`, (S, E)
    # A source of other scenes than RGB also has `channels`, C below, and `pixels`, "uint8" or "float32".

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: `video` uint8 [T, H, W, C], C = 3 (an image has T = 1), visible `masks` bool [K, T, H, W] for any
        K >= 0, `labels` float32 [P], and everything else that the source knows, such as `states` float32 [T, K, S],
        `graph` bool [K, K], which objects touch each other, and `embedding` float32 [S, E], features of another model.
        Other kinds of scenes: data/kinds.

        Raises: errors.DataError for an unreadable scene. The next readable scene then replaces it.
        """

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove), `removed` bool [K]: as `video`."""
