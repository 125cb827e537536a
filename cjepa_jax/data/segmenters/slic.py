"""SLIC superpixels, for the ablation of object-level masks.

Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", 2012, as scikit-image has it:
k-means on colour and place from a regular grid, then every segment is made connected. All segments are kept. Together
they cover the whole image, so no rule of ours decides what counts as an object.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cjepa_jax.data.segmenters import needs

SETTINGS = {
    "segments": 16,  # seeds. Pieces below half the mean size are merged, so 6 to 13 remain of a photograph
    "compactness": 10.0,  # weight of place against colour
}


def make(settings: Mapping[str, Any], device: str, batch: int) -> tuple[Callable, dict[str, str]]:
    """See `cjepa_jax.data.segmenters`. It runs on the CPU and is deterministic."""
    slic = needs("skimage.segmentation", "slic").slic

    def segment(image: np.ndarray) -> list[tuple[np.ndarray, dict[str, float]]]:
        ids = slic(image, settings["segments"], settings["compactness"], start_label=1, channel_axis=-1)
        return [(ids == value, {}) for value in np.unique(ids)]

    return segment, {}
