"""Pictures as bytes, from files and records. They are decoded after their size has been checked.

JPEGs are decoded by simplejpeg (libjpeg-turbo), which refuses damage inside the picture. OpenCV and Pillow fill it with
garbage and say nothing. Palette indices are read by Pillow, everything else by OpenCV. TIFFs are checked first.
"""

import io
import math
import struct
import zlib
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from cjepa_jax.data.formats import png
from cjepa_jax.errors import DataError

JPEG_START, JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
ORIENTATION = 0x0112  # EXIF's tag: 1 to 8
COMPRESSION, STRIPS = 259, ((273, 279), (324, 325))  # TIFF's tags: offsets and lengths of strips, and of tiles
JPEG_TABLES, JPEG_INSIDE = 347, 7  # TIFF's tag of what its JPEGs share, and their compression
DEFLATED, UNCHECKED = (8, 32946), (1, 32773)  # TIFF's compressions: with checksums, and none or PackBits
LZW = 5
MOST_PIXELS = 1 << 26  # of one picture (a small file can claim many more)
MOST_VALUES = 1 << 30  # of one scene's masks or video, a byte each

# OpenCV's own lines name no file. What they say is found here before, or raised when there is no picture.
quiet = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5
quiet(0)


class Head(NamedTuple):
    """Header of a picture, known before anything is decoded."""

    format: str  # of FORMATS
    width: int  # as stored, in pixels
    height: int
    orientation: int  # EXIF's orientation (1: as stored)
    lossy: bool  # its values differ from those that were saved
    palette: bool  # its values are indices of colours


def frame(data: bytes, height: int, width: int, where: str, colour: bool = True) -> np.ndarray:
    """A PNG of this size and 8 bits: RGB uint8 [H,W,3], or uint8 [H,W] of the stored values or palette indices.

    Raises DataError, beginning with `where`. The size is checked before anything is decoded.
    """
    if not data.startswith(png.START) or len(data) < 26:
        raise DataError(f"{where} is not a PNG")
    size = struct.unpack(">II", data[16:24])
    if size != (width, height):
        raise DataError(f"{where} is {size[0]}x{size[1]} pixels, the video {width}x{height}")
    if data[25] == png.PALETTE and not colour:
        return indices(data, where)
    pixels = _decode(data, cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED, where)
    if pixels.dtype != np.uint8 or pixels.ndim != (3 if colour else 2):
        raise DataError(f"{where} has {pixels.dtype} pixels [{pixels.ndim} axes]: must be 8 bits of one channel")
    return pixels[..., ::-1] if colour else pixels


def jpeg(data: bytes, where: str) -> np.ndarray:
    """A JPEG, turned upright as its EXIF says: RGB uint8 [H,W,3]. Raises DataError, beginning with `where`."""
    if not data.startswith(JPEG_START):
        raise DataError(f"{where} is not a JPEG")
    return picture(data, where)[..., ::-1]


def head(data: bytes, where: str) -> Head:
    """Reads no further than the header.

    Raises DataError, beginning with `where`, for other formats than FORMATS, and for over MOST_PIXELS pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            kind = "JPEG" if opened.format == "MPO" else opened.format  # MPO: a JPEG with more pictures behind it
            palette = opened.mode == "P"
            tags = opened.tag_v2 if kind == "TIFF" else _exif(opened.info.get("exif", b""))
            orientation = tags.get(ORIENTATION, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} has over {MOST_PIXELS} pixels, the most that are read") from error
    except Exception as error:  # Pillow's errors for broken headers have no common base
        raise DataError(f"{where} is not a readable image, or cut short ({type(error).__name__})") from error
    if width * height > MOST_PIXELS:
        raise DataError(f"{where} is {width}x{height} pixels, at most {MOST_PIXELS} in all are read")
    lossy = kind == "JPEG" or (kind == "WEBP" and b"VP8L" not in data[:4096])
    orientation = orientation if orientation in range(1, 9) else 1
    if kind == "TIFF" and orientation >= 5:  # of which Pillow gives the size when turned
        width, height = height, width
    return Head(format=kind, width=width, height=height, orientation=orientation, lossy=lossy, palette=palette)


def _exif(data: bytes) -> Image.Exif:
    tags = Image.Exif()
    try:
        tags.load(data)
        tags.get(ORIENTATION)
    except Exception:  # as in `head`. A broken EXIF is ignored, because the picture is still good
        return Image.Exif()
    return tags


def picture(data: bytes, where: str, upright: bool = True, found: Head | None = None) -> np.ndarray:
    """A picture of any of the FORMATS: [H,W] or [H,W,C] in OpenCV's order of channels, 8 or 16 bits as stored. A JPEG
    is always BGR. The picture is turned as its EXIF says if `upright`. `found` is its head, if it is known.

    Raises DataError, beginning with `where`, for a picture that is not readable, damaged, cut short or of over
    MOST_PIXELS pixels. The header gives the size before anything is decoded.
    """
    found = found or head(data, where)
    if found.format == "JPEG":
        pixels = _jpeg(data, where)
    else:
        hint = _check_tiff(data, where) if found.format == "TIFF" else ""
        pixels = _decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, where, hint)
        if found.format == "TIFF":  # which OpenCV turns in any case
            pixels = turned(pixels, {6: 8, 8: 6}.get(found.orientation, found.orientation))
    return turned(pixels, found.orientation) if upright else pixels


def indices(data: bytes, where: str) -> np.ndarray:
    """The indices uint8 [H,W] of a picture with a palette, for any colours. Raises DataError as `picture`."""
    if head(data, where).format == "TIFF":
        _check_tiff(data, where)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if opened.mode != "P":
                raise DataError(f"{where} has no palette")
            return np.array(opened)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(f"{where} is not readable, or cut short ({type(error).__name__})") from error


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H,W,...] as EXIF's orientation, 1 to 8, says to show them (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def _check_tiff(data: bytes, where: str) -> str:
    """Raises DataError for a TIFF whose compressed parts are damaged. OpenCV prints a line and returns garbage.

    Returns what to add to an error if its pixels are not read, for a compression that may be unknown here.

    Deflate has checksums. In LZW and others most damage breaks the code. Uncompressed and PackBits pixels show none.
    """
    hint = ""
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as opened:
            tags = opened.tag_v2
            kind, most = tags.get(COMPRESSION, 1), 8 * opened.width * opened.height + (1 << 16)
            if kind not in (*DEFLATED, *UNCHECKED, JPEG_INSIDE):
                if kind != LZW:
                    hint = f". Its compression {kind} may not be supported: save it with Deflate or LZW"
                opened.load()
        begins, lengths = next((tags[a], tags[b]) for a, b in STRIPS if a in tags and b in tags)
        for begin, length in zip(begins, lengths, strict=True):
            part = data[begin : begin + length]
            if len(part) < length or not length:
                raise DataError(f"{where} is cut short")
            if kind == JPEG_INSIDE:  # of damage there, libtiff only prints a line without a name
                simplejpeg.decode_jpeg(tags[JPEG_TABLES][:-2] + part[2:] if JPEG_TABLES in tags else part, "GRAY")
            elif kind in DEFLATED:
                decoder = zlib.decompressobj()
                decoder.decompress(part, most)
                if not decoder.eof:
                    raise DataError(f"{where} is cut short")
    except (OSError, SyntaxError, ValueError, TypeError, StopIteration, struct.error, zlib.error) as error:
        raise DataError(f"{where} is damaged or cut short ({type(error).__name__}){hint}") from error
    return hint


def _jpeg(data: bytes, where: str) -> np.ndarray:
    try:
        if simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK"):  # which it does not turn into colours
            simplejpeg.decode_jpeg(data, "CMYK")  # but checks. OpenCV prints a line without a name
            return _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, where)
        return simplejpeg.decode_jpeg(data, "BGR")
    except ValueError as error:
        raise DataError(f"{where} is damaged or cut short ({error})") from error


def check_room(where: str, *shape: int) -> None:
    """Raises DataError, beginning with `where`, for masks [K,T,H,W] or a video of more than MOST_VALUES values, because
    the sizes of a hostile file must not decide how much memory is allocated."""
    if math.prod(shape) > MOST_VALUES:
        raise DataError(f"{where}: {' x '.join(map(str, shape))} values, at most {MOST_VALUES} are held")


def _decode(data: bytes, how: int, where: str, hint: str = "") -> np.ndarray:
    data = png.plain(data, where) if data.startswith(png.SIGNATURE) else data
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise DataError(f"{where} is not readable ({error.err}){hint}") from error
    if pixels is None or not pixels.size:
        raise DataError(f"{where} is not readable, or cut short{hint}")
    return pixels
