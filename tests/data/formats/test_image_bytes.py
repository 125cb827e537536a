"""Pictures whose header says that they cannot be held, and memory that no file may ask for."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cjepa_jax.data.formats import image_bytes
from cjepa_jax.errors import DataError


def claiming(suffix: str, height: int, width: int) -> bytes:
    """A small picture whose header gives this size."""
    data = bytearray(cv2.imencode(suffix, np.full((16, 16, 3), 90, np.uint8))[1].tobytes())
    if suffix == ".png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif suffix == ".jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    else:
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("size", [(8192, 8193), (9600, 9700), (30_000, 30_000)])
def test_a_bomb_is_not_decoded(suffix, size):
    with pytest.raises(DataError, match=r"^here (is \d+x\d+ pixels, at most|has over) 67108864") as caught:
        image_bytes.picture(claiming(suffix, *size), "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_picture_is_what_opencv_reads(suffix):
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), (40, 30))
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    assert (image_bytes.picture(data, "here") == cv2.imdecode(np.frombuffer(data, np.uint8), -1)).all()
    with pytest.raises(DataError, match="^here is (cut short|not )"):
        image_bytes.picture(data[:20], "here")


def test_room():
    image_bytes.check_room("here", 64, 128, 320, 400)
    with pytest.raises(DataError, match="^here: 255 x 24 x 4096 x 4096 values, at most 1073741824"):
        image_bytes.check_room("here", 255, 24, 4096, 4096)


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_a_tiff_of_a_compression_that_is_not_read_says_how_to_save_it(compression):
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "TIFF", compression=compression)
    with pytest.raises(
        DataError, match="^x is not readable, .* Its compression [0-9]+ .* save it with Deflate or LZW$"
    ):
        image_bytes.picture(file.getvalue(), "x")


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw", "packbits", None])
@pytest.mark.parametrize("kind", ["rgb", "grey", "deep"])
def test_a_tiff_that_is_damaged_inside_is_refused(compression, kind):
    """OpenCV prints a line about each, and returns garbage. Without a code or a checksum damage cannot be seen."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    pixels = {"rgb": pixels, "grey": pixels[..., 0], "deep": pixels[..., 0].astype(np.uint16) * 257}[kind]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", compression=compression)
    data = file.getvalue()
    assert (image_bytes.picture(data, "x") == (pixels[..., ::-1] if kind == "rgb" else pixels)).all()
    refused = 0
    for place in range(len(data) // 4, 3 * len(data) // 4, len(data) // 20):
        try:
            image_bytes.picture(data[:place] + bytes(255 - b for b in data[place : place + 4]) + data[place + 4 :], "x")
        except DataError as error:
            assert str(error).startswith("x is ") and "cut short" in str(error)
            refused += 1
    assert refused >= {"tiff_adobe_deflate": 10, "tiff_lzw": 7}.get(compression, 0), refused
