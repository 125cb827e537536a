"""Resizing of pictures with any number of channels."""

import cv2
import numpy as np

TOGETHER = 4  # channels that OpenCV resizes at once in every mode


def resize(picture: np.ndarray, size: tuple[int, int], how: int = cv2.INTER_AREA) -> np.ndarray:
    """[H,W,C] -> [height,width,C] of the same type. size: (width, height). how: OpenCV's interpolation."""
    channels = picture.shape[2]
    parts = [picture] if channels <= TOGETHER else np.split(picture, range(TOGETHER, channels, TOGETHER), axis=2)
    # OpenCV leaves out an axis of one channel, and needs parts that lie together.
    small = [cv2.resize(np.ascontiguousarray(part), size, interpolation=how) for part in parts]
    small = [part.reshape(size[1], size[0], -1) for part in small]
    return small[0] if len(small) == 1 else np.concatenate(small, axis=2)
