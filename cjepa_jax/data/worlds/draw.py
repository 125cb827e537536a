"""Drawing with OpenCV, without anti-aliasing, so that masks and pixels agree exactly."""

import cv2
import numpy as np

SHIFT = 8  # fractional bits of OpenCV's fixed-point coordinates
FAR = 8.0  # outlines are clipped this many views outside the picture, far below the fixed-point limit


def pixels(points: np.ndarray, size: int) -> np.ndarray:
    """World points [..., 2] to OpenCV's fixed-point coordinates int32; pixel (0, 0) has its centre at 0.5 / size."""
    return np.rint((np.clip(points, -FAR, 1 + FAR) * size - 0.5) * (1 << SHIFT)).astype(np.int32)


def fill(image: np.ndarray, polygon: np.ndarray, value) -> None:
    """Fill one convex polygon, int32 [V,2] from `pixels`, in place. Equal polygons touch equal pixels in any image."""
    cv2.fillConvexPoly(image, polygon, value, cv2.LINE_8, SHIFT)


def gradient(size: int, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Background uint8 [size,size,3] that goes from colour `top` [3] to `bottom` [3] (0 .. 255)."""
    share = ((np.arange(size) + 0.5) / size)[:, None]
    rows = np.rint((1 - share) * top + share * bottom).astype(np.uint8)
    return np.repeat(rows[:, None], size, 1)


def outlines(world: list[list[np.ndarray]], size: int) -> list[list[np.ndarray]]:
    """Each object's convex parts in world units [T,V,2] to fixed-point pixels."""
    return [[pixels(part, size) for part in parts] for parts in world]


def masks(polygons: list[list[np.ndarray]], order: list[int], frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Visible and amodal masks, bool [K,T,H,W], of objects made of parts [T,V,2] and drawn in `order`; those not in it
    stay empty."""
    label = np.zeros((frames, size, size), np.uint8)
    amodal = np.zeros((len(polygons), frames, size, size), np.uint8)
    for k in order:
        for part in polygons[k]:
            for t in range(frames):
                fill(amodal[k, t], part[t], 1)
                fill(label[t], part[t], k + 1)
    visible = label == np.arange(1, len(polygons) + 1, dtype=np.uint8)[:, None, None, None]
    return visible, amodal.view(bool)


def frame(image: np.ndarray, thickness: float, shade: float) -> None:
    """Darken a frame of `thickness` (view widths, at least one pixel) along the border in place by factor `shade`."""
    width = max(1, round(thickness * len(image)))
    inner = image[width:-width, width:-width].copy()
    np.multiply(image, shade, out=image, casting="unsafe")
    image[width:-width, width:-width] = inner


def band(image: np.ndarray, top: float, shade: float) -> None:
    """Darken the band below `top` (view widths) in place by factor `shade`."""
    low = image[round(top * len(image)) :]
    np.multiply(low, shade, out=low, casting="unsafe")
