"""Draws outlines, hidden patches and contacts on frames of a clip. NumPy and OpenCV, RGB, no text.

Pictures are uint8 [H,W,3] and are changed in place. Masks and cells are scaled to them by nearest neighbour, so a scene
is enlarged first and drawn on afterwards.
"""

import cv2
import numpy as np

DARK, LIGHT = (24, 26, 32), (255, 255, 255)
COLOURS = (  # of objects' outlines, by index, repeated after the last
    (255, 77, 77),
    (54, 162, 255),
    (255, 196, 0),
    (46, 204, 113),
    (232, 74, 226),
    (255, 133, 27),
    (26, 214, 214),
    (150, 105, 255),
    (178, 224, 40),
    (255, 143, 190),
    (160, 110, 60),
    (150, 160, 175),
)


def colour(k: int) -> tuple[int, int, int]:
    """The colour of object k."""
    return COLOURS[k % len(COLOURS)]


def rgb(values: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Values [...,H,W,C] as RGB uint8 [...,H,W,3]: the first three channels, or the first of one or two as grey.

    uint8 keeps its values. Floats are stretched to 0..255 between the 1st and 99th percentile of each channel of `like`
    (by default, of the values themselves).
    """
    if values.dtype == np.uint8 and values.shape[-1] == 3:
        return values
    chosen = [0, 1, 2] if values.shape[-1] >= 3 else [0, 0, 0]
    picture = values[..., chosen]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    range_of = picture if like is None else like[..., chosen]
    low, high = np.percentile(range_of, [1, 99], axis=tuple(range(range_of.ndim - 1)))
    spread = np.where(high > low, high - low, 1)
    return (np.clip((picture - low) / spread, 0, 1) * 255).astype(np.uint8)


def enlarge(frame: np.ndarray, width: int) -> np.ndarray:
    """Enlarges a frame by a whole factor to at least `width`, which keeps pixels sharp. Reduces a wider one to it."""
    if frame.shape[1] > width:
        height = width * frame.shape[0] // frame.shape[1]
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    factor = -(-width // frame.shape[1])
    return frame.repeat(factor, 0).repeat(factor, 1)


def stretch(cells: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """A mask or a grid of patches, bool [h,w], as bool [H,W] of the picture."""
    height, width = picture.shape[:2]
    return cv2.resize(cells.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).view(bool)


def outline(picture: np.ndarray, mask: np.ndarray, colour: tuple, width: int) -> None:
    """Draws the contours of a mask, bool [h,w], including those of holes, `width` pixels wide.

    The steps of an enlarged mask are smoothed, unless this would remove a very small mask.
    """
    height, length = picture.shape[:2]
    filled = mask.astype(np.float32)
    soft = cv2.GaussianBlur(filled, (5, 5), 0.8, borderType=cv2.BORDER_REPLICATE) if length > mask.shape[1] else filled
    for values in (soft, filled):
        shape = cv2.resize(values, (length, height), interpolation=cv2.INTER_LINEAR) >= 0.5
        contours, _ = cv2.findContours(shape.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        if contours:
            break
    cv2.drawContours(picture, contours, contourIdx=-1, color=colour, thickness=width, lineType=cv2.LINE_AA)


def hatch(picture: np.ndarray, cells: np.ndarray, period: int) -> None:
    """Draws hidden patches, bool [rows,cols]: paler, with diagonal stripes every `period` pixels."""
    hidden = stretch(cells, picture)
    rows, columns = np.indices(hidden.shape)
    stripe = (rows + columns) % period < max(1, period // 4)
    paled = 0.5 * picture + 0.5 * np.array(LIGHT)
    drawn = np.where(stripe[..., None], 0.45 * paled + 0.55 * np.array(DARK), paled)
    np.copyto(picture, drawn.astype(np.uint8), where=hidden[..., None])


def ring(picture: np.ndarray, centre: tuple[float, float], radius: int, width: int) -> None:
    """Draws a circle around a point (x, y as shares of the picture), light with dark rims."""
    place = tuple(int(share * length) for share, length in zip(centre, picture.shape[1::-1], strict=True))
    cv2.circle(picture, place, radius, color=DARK, thickness=width + 2, lineType=cv2.LINE_AA)
    cv2.circle(picture, place, radius, color=LIGHT, thickness=width, lineType=cv2.LINE_AA)


def touching(one: np.ndarray, other: np.ndarray | None = None) -> tuple[float, float] | None:
    """The centre (x, y as shares of the frame) of the nearest pixels of two masks, bool [h,w].

    For a wall (None), it is on the side of the mask that is nearest to the frame's border. None if a mask is empty.
    """
    if other is None:
        other = np.pad(np.zeros(np.subtract(one.shape, 2), bool), 1, constant_values=True)
    if not (one.any() and other.any()):
        return None
    away = cv2.distanceTransform((~other).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = np.argwhere(one & (away <= away[one].min() + 0.5))
    near = near[np.abs(near - near[0]).max(1) <= len(one) / 8]  # of several places, as in a corner, the first
    there = np.argwhere(other)
    opposite = there[((there - near.mean(0)) ** 2).sum(1).argmin()]
    y, x = ((near.mean(0) + opposite) / 2 + 0.5) / one.shape
    return float(x), float(y)
