"""PNGs that libpng warns of: the same pixels or an error by name, and not a line without one."""

import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest

from cjepa_jax.data.formats import image_bytes, png
from cjepa_jax.errors import DataError

H, W = 6, 8


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header(colour: int, depth: int = 8, interlaced: int = 0, size=(H, W), methods: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBHB", size[1], size[0], depth, colour, methods, interlaced))


def rows(colour: int, depth: int = 8, interlaced: int = 0, size=(H, W), filters: int = 5, most: int = 256) -> bytes:
    """Random rows of every filter, decompressed."""
    rng, out = np.random.default_rng(0), []
    for x, y, dx, dy in png.PASSES if interlaced else ((0, 0, 1, 1),):
        columns = len(range(x, size[1], dx))
        for _ in range(y, size[0] if columns else 0, dy):
            length = (columns * depth * png.CHANNELS[colour] + 7) // 8
            out.append(bytes([rng.integers(filters)]) + rng.integers(0, most, length, np.uint8).tobytes())
    return b"".join(out)


def write(
    colour: int = 2, before: bytes = b"", body: bytes | None = None, after: bytes = b"", end: bytes = b""
) -> bytes:
    body = zlib.compress(rows(colour, most=2 if colour == 3 else 256)) if body is None else body
    return png.SIGNATURE + header(colour) + before + chunk(b"IDAT", body) + after + chunk(b"IEND", end)


COLOURS, CLEAR = chunk(b"PLTE", bytes(range(9))), chunk(b"tRNS", b"\0\1" * 3)
PIXELS = zlib.compress(rows(2))
IGNORED = {  # what libpng prints a line about, and reads
    "a palette in grey": write(0, COLOURS),
    "two palettes in RGB": write(2, COLOURS + COLOURS),
    "a palette too long": write(2, chunk(b"PLTE", bytes(3 * 257))),
    "a palette after the pixels": write(2, after=COLOURS),
    "transparency twice": write(2, CLEAR + CLEAR),
    "transparency with alpha": write(6, CLEAR),
    "transparency of another length": write(0, chunk(b"tRNS", b"\0\1\2")),
    "transparency of more bits": write(2, chunk(b"tRNS", b"\7\1" * 3)),
    "transparency of more colours": write(3, COLOURS + chunk(b"tRNS", bytes(4))),
    "transparency before the palette": write(3, chunk(b"tRNS", bytes(3)) + COLOURS),
    "transparency after the pixels": write(2, after=CLEAR),
    "too many pixels": write(2, body=zlib.compress(rows(2) + b"more")),
    "more compressed data": write(2, body=PIXELS + b"more"),
    "an end with content": write(2, end=b"xy"),
}
DAMAGED = {
    "no palette": (write(3), "has no palette"),
    "two palettes": (write(3, COLOURS + COLOURS), "in its palette"),
    "a palette of 10 bytes": (write(3, chunk(b"PLTE", bytes(10))), "in its palette"),
    "two headers": (write(2, header(2)), "header"),
    "another compression": (png.SIGNATURE + header(2, methods=256) + write(2)[33:], "methods [1, 0]"),
    "3 bits": (png.SIGNATURE + header(2, 3) + write(2)[33:], "3 bits"),
    "few pixels": (write(2, body=zlib.compress(rows(2)[:-30])), "cut short in its pixels"),
    "no pixels": (write(2, body=b""), "cut short in its pixels"),
    "no checksum": (write(2, body=PIXELS[:-4]), "cut short in its pixels"),
    "another checksum": (write(2, body=PIXELS[:-4] + b"\0\0\0\0"), "incorrect data check"),
    "no compressed pixels": (write(2, body=b"pixels"), "in its pixels"),
    "an unknown filter": (write(2, body=zlib.compress(b"\5" + rows(2)[1:])), "an unknown filter"),
}


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("case", IGNORED)
def test_what_libpng_ignores_changes_nothing_and_prints_nothing(case, capfd):
    expected = decode(IGNORED[case])
    assert "libpng warning" in capfd.readouterr().err  # the case is one
    assert (image_bytes.picture(IGNORED[case], "a.png") == expected).all()
    frame = image_bytes.frame(IGNORED[case], H, W, "a.png")
    assert frame.shape == (H, W, 3) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named_and_libpng_says_nothing(case, capfd):
    data, message = DAMAGED[case]
    with pytest.raises(DataError) as caught:
        image_bytes.frame(data, H, W, "a.png")
    assert str(caught.value).startswith("a.png is ") and message in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("colour", png.CHANNELS)
@pytest.mark.parametrize("interlaced", [0, 1])
def test_every_kind_of_png_keeps_its_pixels(colour, interlaced, capfd):
    depths, sizes = png.DEPTHS.get(colour, (8, 16)), ((1, 1), (1, 5), (3, 2), (150, 133))
    for depth, size, notes in itertools.product(depths, sizes, (b"", chunk(b"tEXt", b"a\0b"))):
        kind = (colour, depth, interlaced, size)
        pixels = zlib.compress(rows(*kind))
        palette = chunk(b"PLTE", bytes(k % 251 for k in range(3 << depth))) if colour == png.PALETTE else b""
        clear = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0\x80"}.get(colour)
        before = palette + (chunk(b"tRNS", clear) if clear and notes else b"")
        parts = b"".join(chunk(b"IDAT", pixels[k : k + 999]) for k in range(0, len(pixels), 999))
        data = png.SIGNATURE + header(*kind) + notes + before + parts + chunk(b"IEND", b"")
        assert (image_bytes.picture(data, "a.png") == decode(data)).all()
        assert decode(data).shape[:2] == size
    assert capfd.readouterr() == ("", "")


def test_a_small_file_does_not_decide_how_much_is_decompressed():
    bomb = write(2, body=zlib.compress(bytes(1 << 24)))
    assert len(png.plain(bomb, "a.png")) < 1 << 10
