"""Features that a frozen image encoder has extracted from videos: folders of sources/slot_files.py."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError


@dataclass(frozen=True)
class FeatureFiles(SlotFiles):
    """Windows of features (data/kinds/features.py). `slots.npy` holds [F, P, D], P places in the order of rows.

    `python -m cjepa_jax.extract --checkpoint=DINOV2 ...` makes such a folder.

    Args:
      rows: of the places. 0: as many as columns. The others are as in SlotFiles.
    Raises: as SlotFiles, and ConfigError for rows that do not divide the places.
    """

    rows: int = 0

    kind: ClassVar[str] = "features"

    def __post_init__(self):
        super().__post_init__()
        check_integer("data.options.rows", self.rows, 0)
        places = self.slots
        rows = self.rows or math.isqrt(places)
        if places % rows or (not self.rows and rows**2 != places):
            text = f"data.options.rows = {self.rows}: must divide the {places} places of {self.path}"
            raise ConfigError(f"{text}, and be given where these are not square" if not self.rows else text)
        object.__setattr__(self, "rows", rows)

    @property
    def columns(self) -> int:
        """Of the places."""
        return self.slots // self.rows

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Window i: video float32 [T, rows, columns, F], and what SlotFiles give. Raises as SlotFiles."""
        scene = super().__getitem__(i)
        video: np.ndarray = scene["video"]
        return scene | {"video": video.reshape(self.frames, self.rows, self.columns, -1)}
