"""Drawing with OpenCV, without anti-aliasing, so that masks and pixels agree exactly."""

import cv2
import numpy as np

SHIFT = 8  # fractional bits of OpenCV's fixed-point coordinates
FAR = 8.0  # outlines are clipped this number of views outside the picture, far below the fixed-point limit


def pixels(points: np.ndarray, size: int) -> np.ndarray:
    """World points [..., 2] to OpenCV's fixed-point coordinates int32. Pixel (0, 0) has its centre at 0.5 / size."""
    return np.rint((np.clip(points, -FAR, 1 + FAR) * size - 0.5) * (1 << SHIFT)).astype(np.int32)


def fill(image: np.ndarray, polygon: np.ndarray, value) -> None:
    """Fill a convex polygon, int32 [V,2] from `pixels`, in place. Equal polygons fill the same pixels in any image."""
    cv2.fillConvexPoly(image, polygon, value, cv2.LINE_8, SHIFT)


def gradient(size: int, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Vertical gradient uint8 [size,size,3] from colour `top` [3] to `bottom` [3], 0 .. 255."""
    share = ((np.arange(size) + 0.5) / size)[:, None]
    rows = np.rint((1 - share) * top + share * bottom).astype(np.uint8)
    return np.repeat(rows[:, None], size, 1)


def outlines(world: list[list[np.ndarray]], size: int) -> list[list[np.ndarray]]:
    """Each object's convex parts in world units [T,V,2] to fixed-point pixels."""
    parts = [part for shape in world for part in shape]
    ends = np.cumsum([0] + [part.size for part in parts])
    flat = pixels(np.concatenate([part.ravel() for part in parts]), size)
    result = iter([flat[a:b].reshape(p.shape) for a, b, p in zip(ends, ends[1:], parts, strict=False)])
    return [[next(result) for _ in shape] for shape in world]


def paint(images: np.ndarray, strokes: list[tuple[np.ndarray, object]]) -> None:
    """Fill convex parts [T,V,2], each with its value, in order, in place in images [T,H,W,...].

    The first parts may be [1,V,2]: parts that never move are drawn once. The images must then be equal.
    """
    still = next((n for n, (part, _) in enumerate(strokes) if len(part) > 1), len(strokes))
    for part, value in strokes[:still]:
        fill(images[0], part[0], value)
    if still:
        images[1:] = images[0]
    for part, value in strokes[still:]:
        for image, polygon in zip(images, part, strict=True):
            fill(image, polygon, value)


def masks(polygons: list[list[np.ndarray]], order: list[int], frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Visible and amodal masks, bool [K,T,H,W], of objects made of parts [T,V,2].

    Objects are drawn in `order`, as by `paint`. Parts [1,V,2] never move. Masks of objects that are not in `order` are
    empty.
    """
    label = np.zeros((frames, size, size), np.uint8)
    amodal = np.empty((len(polygons), frames, size, size), bool)
    amodal[~np.isin(np.arange(len(polygons)), order)] = False
    moving = False
    for k in order:
        parts = [np.broadcast_to(part, (frames, *part.shape[1:])) if moving else part for part in polygons[k]]
        paint(label, [(part, k + 1) for part in parts])
        moving |= any(len(part) > 1 for part in parts)
        np.equal(label, np.uint8(k + 1), out=amodal[k])  # the objects in front of it are not drawn yet
    visible = label == np.arange(1, len(polygons) + 1, dtype=np.uint8)[:, None, None, None]
    return visible, amodal


def frame(image: np.ndarray, thickness: float, shade: float) -> None:
    """Multiply a frame along the border by `shade`, in place. `thickness`: view widths, at least one pixel."""
    width = max(1, round(thickness * len(image)))
    inner = image[width:-width, width:-width].copy()
    np.multiply(image, shade, out=image, casting="unsafe")
    image[width:-width, width:-width] = inner


def band(image: np.ndarray, top: float, shade: float) -> None:
    """Multiply the band below `top` (view widths) by `shade`, in place."""
    low = image[round(top * len(image)) :]
    np.multiply(low, shade, out=low, casting="unsafe")
