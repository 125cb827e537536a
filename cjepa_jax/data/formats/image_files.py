"""Images and instance maps from files, by one rule for orientation, range and lossless values in all formats."""

import logging
from pathlib import Path

import numpy as np

from cjepa_jax.data.formats import image_bytes
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door

MOST_BYTES = 1 << 30  # of a picture's file
EXIF = ("", "apply", "ignore")
FEW_BITS = 1 << 14  # a 16-bit image whose values are all below was probably stored from 14, 12 or 10 bits
BLENDS = 3  # values of a map that may all be blends of their neighbours
THIN = 16  # values of a map that may all have no inside
_warned: set[str] = set()  # warnings that this process has given


def check_options(exif: str, white: int) -> None:
    """Raises ConfigError for options that `read` and `read_map` do not take."""
    if exif not in EXIF:
        raise ConfigError(f"data.options.exif is {exif!r}: must be one of {', '.join(map(repr, EXIF))}")
    if type(white) is not int or not 0 <= white < 1 << 16:
        raise ConfigError(f"data.options.white is {white!r}: must be a whole number from 0 to {(1 << 16) - 1}")


def read(file: Path, exif: str = "apply", white: int = 0) -> tuple[np.ndarray, int]:
    """An image, uint8 RGB [H,W,3], and the orientation that its EXIF gives (1: as stored).

    Args:
      exif: "apply" turns the image as its EXIF says, "ignore" leaves it. "" refuses an image with an orientation. Use
        it for images whose masks are separate files.
      white: the 16-bit value that becomes 255 (0: 65535).
    Raises DataError, naming the file, if it is not readable, damaged or too large, or refused by `exif`.
    """
    data, head, turn = opened(file, "the image", exif)
    pixels = _integers(file, image_bytes.picture(data, f"{file}: the image", turn > 1, head))
    if pixels.dtype == np.uint16 and not white:
        brightest = (pixels if pixels.ndim == 2 else pixels[..., :3]).max()
        if 0 < brightest < FEW_BITS:
            warn_once(
                "white",
                f"{file}: the brightest of its 16-bit values is {brightest}: it will be nearly black. If white is less "
                "than 65535, set data.options.white (of data.segment: --white). Further files are not named",
            )
    return to_rgb(pixels, white), head.orientation


def read_map(file: Path, exif: str = "apply") -> np.ndarray:
    """An instance map, int64 [H,W]: 0 for background, else one id for each object (see `to_ids`).

    The indices of a palette are the ids, for any colours. `exif` is as in `read`. Raises DataError as `read`, and for a
    lossy file.
    """
    return to_ids(read_values(file, exif))


def read_values(file: Path, exif: str = "apply") -> np.ndarray:
    """The stored values of an instance map, [H,W] or [H,W,C] in OpenCV's order of channels. Raises as `read_map`."""
    data, head, turn = opened(file, "the mask", exif)
    if head.lossy:
        raise DataError(f"{file}: the mask is a lossy {head.format}, which changes its values. Save it as PNG")
    if head.palette:
        return image_bytes.turned(image_bytes.indices(data, f"{file}: the mask"), turn)
    return _integers(file, image_bytes.picture(data, f"{file}: the mask", turn > 1, head))


def to_rgb(pixels: np.ndarray, white: int = 0) -> np.ndarray:
    """Any decoded image -> uint8 RGB [H,W,3]: grey is repeated, 16 bits are scaled, alpha is composed on black."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    top = np.iinfo(pixels.dtype).max
    colour = pixels[..., 2::-1].astype(np.float32) * (255 / (white if white and top > 255 else top))
    if pixels.shape[2] == 4:
        colour *= pixels[..., 3:] / np.float32(top)
    return np.ascontiguousarray(np.rint(np.minimum(colour, 255)).astype(np.uint8))


def to_ids(pixels: np.ndarray) -> np.ndarray:
    """Any decoded instance map -> int64 [H,W]: 0 for background (black, or wholly transparent), else one id each."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return pixels.reshape(pixels.shape[:2]).astype(np.int64)
    blue, green, red = (pixels[..., channel].astype(np.int64) for channel in range(3))
    # A grey map saved as colour keeps its grey values, so its objects keep their order.
    grey = (blue == green).all() and (green == red).all()
    ids = blue if grey else (red << 32) | (green << 16) | blue
    return np.where(pixels[..., 3] == 0, 0, ids) if pixels.shape[2] == 4 else ids


def check_sharp(ids: np.ndarray, values: np.ndarray, where: str) -> None:
    """Refuses a map [H,W] that was smoothed or compressed: most of its values occur only at the edges of others.

    A value has an inside if one of its pixels has four neighbours of this value. In a map with objects of one or two
    pixels, no value has an inside. So values without an inside count only if they lie between those of their
    neighbours, as blends do, or if there are many. Raises DataError, beginning with `where`.
    """
    if len(values) < BLENDS:
        return
    padded = np.pad(ids, 1, mode="edge")
    beside = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    inside = np.logical_and.reduce([ids == other for other in beside])
    thin = np.setdiff1d(values, ids[inside])
    if 2 * len(thin) <= len(values):
        return
    between = (np.minimum.reduce(beside) < ids) & (ids < np.maximum.reduce(beside))
    place = np.searchsorted(values, ids).clip(0, len(values) - 1)
    counts = [np.bincount(place[chosen & (ids > 0)], minlength=len(values)) for chosen in (between, ids > 0)]
    blends = np.intersect1d(thin, values[2 * counts[0] >= counts[1]])
    if (len(blends) >= BLENDS and 2 * len(blends) > len(values)) or len(thin) >= THIN:
        raise DataError(
            f"{where}: {len(thin)} of {len(values)} values are found only at the rims of others: the map was smoothed, "
            "resized with blending, or compressed with loss. Save it as PNG, resized by the nearest pixel"
        )


def opened(file: Path, what: str, exif: str) -> tuple[bytes, image_bytes.Head, int]:
    """(bytes, head, orientation to be applied) of a file. Raises DataError before anything is decoded."""
    try:
        data = door.read(file, MOST_BYTES, links=True)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    if not data:
        raise DataError(f"{file}: the file is empty")
    head = image_bytes.head(data, f"{file}: {what}")
    return data, head, orientation(file, head.orientation, exif)


def _integers(file: Path, pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{file}: pixels are {pixels.dtype}, must be 8 or 16 bit integers")
    return pixels


def orientation(file: Path, stored: int, exif: str) -> int:
    """The orientation to apply. Raises DataError if no option decides."""
    if stored > 1 and not exif:
        raise DataError(
            f"{file}: its EXIF says to turn it (orientation {stored}), and its mask is a separate file: set "
            "data.options.exif to 'apply' if the masks are made for the turned image, else to 'ignore'"
        )
    return stored if exif == "apply" else 1


def warn_once(kind: str, text: str) -> None:
    """Logs a warning, once per kind and process."""
    if kind not in _warned:
        _warned.add(kind)
        logging.getLogger(__name__).warning(text)
