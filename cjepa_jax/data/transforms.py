"""Joint geometry of a scene: one crop for its frames, its masks and its intervened frames. NumPy and OpenCV.

A crop is drawn once as numbers (`Crop`) and then applied, so that the same geometry can be applied to another video of
the scene. Objects outside the crop stay as all-false masks, so K and the indices in `removed` never change.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cjepa_jax.data.formats.resize import resize
from cjepa_jax.errors import ConfigError


@dataclass(frozen=True)
class Crop:
    """A rectangle in source pixels, and whether it is mirrored left to right after the cut."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False

    def frames(self, video: np.ndarray, size: int) -> np.ndarray:
        """Cuts, resizes and mirrors frames: [T,H,W,C] -> [T,size,size,C] (area when shrinking, else linear)."""
        cut = video[:, self.top : self.top + self.height, self.left : self.left + self.width]
        how = cv2.INTER_AREA if self.height * self.width >= size * size else cv2.INTER_LINEAR
        if cut.shape[1:3] != (size, size):
            cut = np.stack([resize(frame, (size, size), how) for frame in cut])
        return np.ascontiguousarray(cut[:, :, ::-1] if self.flip else cut)

    def masks(self, masks: np.ndarray, size: int) -> np.ndarray:
        """Cuts, resizes and mirrors masks: bool [K,T,H,W] -> [K,T,size,size], by the nearest pixel centre."""
        if (self.height, self.width) == (size, size) and not self.flip:
            return masks[:, :, self.top : self.top + size, self.left : self.left + size]
        centres = (np.arange(size) + 0.5) / size
        rows = self.top + (centres * self.height).astype(int)
        columns = self.left + (centres * self.width).astype(int)
        return masks[:, :, rows[:, None], columns[::-1] if self.flip else columns]


def centre_square(height: int, width: int) -> Crop:
    """The largest centred square. With a resize it equals "short side to size, then centre crop"."""
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, side)


def draw_crop(
    rng: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.3, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Crop:
    """Draws a random crop: uniform share of the area, log-uniform width/height, flipped with probability 1/2.

    If ten draws do not fit inside the image, the centred square is used. Raises ConfigError for bad bounds.
    """
    for name, (low, high), limit in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        if not 0 < low <= high <= limit:
            raise ConfigError(f"crop {name} is ({low}, {high}): must hold 0 < low <= high <= {limit}")
    flip = bool(rng.random() < 0.5)
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return Crop(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w, flip)
    square = centre_square(height, width)
    return Crop(square.top, square.left, square.height, square.width, flip)
