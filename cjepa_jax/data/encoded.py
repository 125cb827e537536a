"""Pictures that are stored as bytes inside a record: PNG and JPEG, decoded by OpenCV."""

import struct

import cv2
import numpy as np

from cjepa_jax.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


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
    # OpenCV fills the missing part of a JPEG with grey: after the last scan must come the end marker.
    if data.rfind(JPEG_END) < data.rfind(JPEG_SCAN):
        raise DataError(f"{where} is cut short")
    return _decode(data, cv2.IMREAD_COLOR, where)[..., ::-1]


def _decode(data: bytes, how: int, where: str) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise DataError(f"{where} is not readable ({error.err})") from error
    if pixels is None or not pixels.size:
        raise DataError(f"{where} is not readable, or cut short")
    return pixels
