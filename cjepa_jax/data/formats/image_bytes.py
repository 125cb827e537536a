"""Pictures as bytes, from files and out of records: decoded by OpenCV, once their size is known and can be held."""

import io
import math
import struct

import cv2
import numpy as np
from PIL import Image

from cjepa_jax.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MOST_PIXELS = 1 << 26  # of one picture; a small file can hold many more
MOST_VALUES = 1 << 30  # of one scene's masks or video, a byte each


def frame(data: bytes, height: int, width: int, where: str, colour: bool = True) -> np.ndarray:
    """A PNG of this size and 8 bits: RGB uint8 [H,W,3], or uint8 [H,W] as it stands.

    Raises DataError, beginning with `where`. The size is checked before anything is decoded.
    """
    if not data.startswith(PNG) or len(data) < 25:
        raise DataError(f"{where} is no PNG")
    size = struct.unpack(">II", data[16:24])
    if size != (width, height):
        raise DataError(f"{where} is {size[0]}x{size[1]} pixels, the video {width}x{height}")
    pixels = _decode(data, cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED, where)
    if pixels.dtype != np.uint8 or pixels.ndim != (3 if colour else 2):
        raise DataError(f"{where} has {pixels.dtype} pixels [{pixels.ndim} axes]; they must be 8 bits of one channel")
    return pixels[..., ::-1] if colour else pixels


def jpeg(data: bytes, where: str) -> np.ndarray:
    """A JPEG, turned upright as its EXIF says: RGB uint8 [H,W,3]. Raises DataError, beginning with `where`."""
    if not data.startswith(JPEG_START):
        raise DataError(f"{where} is no JPEG")
    return picture(data, where)[..., ::-1]


def picture(data: bytes, where: str) -> np.ndarray:
    """A picture of any of the FORMATS: [H,W] or [H,W,C] in OpenCV's order of channels, 8 or 16 bits as stored; a JPEG
    always BGR and upright.

    Raises DataError, beginning with `where`, for one that is not readable, cut short or of over MOST_PIXELS pixels,
    which its header says before anything is decoded.
    """
    # OpenCV fills the missing part of a JPEG with grey: after the last scan must come the end marker.
    jpeg = data.startswith(JPEG_START)
    if jpeg and data.rfind(JPEG_END) < data.rfind(JPEG_SCAN):
        raise DataError(f"{where} is cut short")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:  # reads no further than the header
            width, height = opened.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} has over {MOST_PIXELS} pixels, the most that are read") from error
    except Exception as error:  # what Pillow raises for broken headers has no common base
        raise DataError(f"{where} is not a readable image, or cut short ({type(error).__name__})") from error
    if width * height > MOST_PIXELS:
        raise DataError(f"{where} is {width}x{height} pixels, at most {MOST_PIXELS} in all are read")
    # IMREAD_UNCHANGED keeps 16 bits and alpha, but ignores the orientation that cameras write into a JPEG.
    return _decode(data, cv2.IMREAD_COLOR if jpeg else cv2.IMREAD_UNCHANGED, where)


def check_room(where: str, *shape: int) -> None:
    """Raises DataError, beginning with `where`, for masks [K,T,H,W] or a video of more than MOST_VALUES values: the
    sizes of a hostile file must not decide how much memory is taken."""
    if math.prod(shape) > MOST_VALUES:
        raise DataError(f"{where}: {' x '.join(map(str, shape))} values, at most {MOST_VALUES} are held")


def _decode(data: bytes, how: int, where: str) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise DataError(f"{where} is not readable ({error.err})") from error
    if pixels is None or not pixels.size:
        raise DataError(f"{where} is not readable, or cut short")
    return pixels
