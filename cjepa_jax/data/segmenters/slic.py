"""SLIC superpixels: objects that know nothing of objects, for the ablation of object-level masks.

Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", 2012, as scikit-image has it:
k-means on colour and place from a regular grid, then every segment made connected. All segments are kept: together
they are the whole image, so that no rule of ours decides what counts as an object.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cjepa_jax.data.segmenters import needs

SETTINGS = {
    "segments": 16,  # seeds: pieces below half the mean size are merged, so 6 to 13 are left of a photograph
    "compactness": 10.0,  # weight of place against colour
}


def make(settings: Mapping[str, Any], device: str, batch: int) -> tuple[Callable, dict[str, str]]:
    """See `cjepa_jax.data.segmenters`. It runs on the CPU and is deterministic."""
    slic = needs("skimage.segmentation", "slic").slic

    def segment(image: np.ndarray) -> list[tuple[np.ndarray, dict[str, float]]]:
        ids = slic(image, settings["segments"], settings["compactness"], start_label=1, channel_axis=-1)
        return [(ids == value, {}) for value in np.unique(ids)]

    return segment, {}
