"""PNGs in the form of which libpng prints nothing. It prints what it finds wrong, and its lines name no file.

Damage is found here, by name, before libpng sees it. What it would warn of and ignore is left out, so the pixels are
the same. The source of the rules is the PNG specification (third edition), sections 5, 9, 10 and 11.
"""

import struct
import zlib

import numpy as np

from cjepa_jax.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
START = SIGNATURE + b"\0\0\0\rIHDR"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # colour types
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8)}  # bits of a channel; the others have 8 or 16
CRITICAL, TRANSPARENCY = (b"IHDR", b"PLTE", b"IDAT", b"IEND"), b"tRNS"  # chunks that decide the pixels
MOST_COLOURS = 256
FILTERS = 5  # kinds of prediction of a row, its first byte
BLOCK = (1 << 16) - 1  # most bytes of a stored block
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7


def plain(data: bytes, where: str) -> bytes:
    """The PNG with the chunks that decide its pixels alone, its pixels stored uncompressed.

    They are decompressed here, to be checked, so that libpng only has to copy them. Raises DataError, beginning with
    `where`, for a PNG that is damaged or cut short.
    """
    head, palette, transparency, pixels = b"", b"", b"", []
    for name, body in _chunks(data, where):
        if (name == b"IHDR") == bool(head):
            raise DataError(f"{where} is damaged: its header is not once, at the beginning")
        if name == b"IHDR":
            head = body
            _check_head(head, where)
        elif name == b"IDAT":
            pixels.append(body)
        elif name == b"PLTE" and head[9] == PALETTE:  # elsewhere only a suggestion
            if palette or pixels or len(body) % 3 or not 0 < len(body) <= 3 * MOST_COLOURS:
                raise DataError(f"{where} is damaged in its palette")
            palette = body
        elif name == TRANSPARENCY and not transparency and not pixels:
            transparency = _transparency(head, palette, body)
    if head[9:10] == bytes([PALETTE]) and not palette:
        raise DataError(f"{where} is damaged: it has no palette")
    kept = [(b"IHDR", head), (b"PLTE", palette), (TRANSPARENCY, transparency)]
    kept = [(name, body) for name, body in kept if body]
    kept.append((b"IDAT", _stored(*_rows(b"".join(pixels), head, where))))
    parts = [SIGNATURE]
    for name, body in (*kept, (b"IEND", b"")):
        check = zlib.crc32(body, zlib.crc32(name))
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", check)]
    return b"".join(parts)


def _chunks(data: bytes, where: str):
    """Yields (name, content) of the critical chunks and of transparency, whose checksums are right."""
    place, name = len(SIGNATURE), b""
    while name != b"IEND":
        if len(data) < place + 12:
            raise DataError(f"{where} is cut short")
        length, name = struct.unpack(">I4s", data[place : place + 8])
        end = place + 8 + length
        if len(data) < end + 4:
            raise DataError(f"{where} is damaged or cut short")
        if name in (*CRITICAL, TRANSPARENCY):
            if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise DataError(f"{where} is damaged in the chunk {name!r}")
            yield name, data[place + 8 : end]
        elif not name[0] & 0x20:  # a capital letter: critical
            raise DataError(f"{where} is damaged, or has an unknown chunk {name!r}")
        place = end + 4


def _check_head(head: bytes, where: str) -> None:
    if len(head) != 13:
        raise DataError(f"{where} is damaged: its header has {len(head)} bytes, not 13")
    width, height, depth, colour, *methods, interlaced = struct.unpack(">IIBBBBB", head)
    if not width or not height or colour not in CHANNELS or depth not in DEPTHS.get(colour, (8, 16)):
        raise DataError(f"{where} is damaged: {width}x{height} pixels of colour type {colour} and {depth} bits")
    if methods != [0, 0] or interlaced > 1:
        raise DataError(f"{where} is damaged, or of another kind of PNG: methods {methods} and {interlaced}")


def _transparency(head: bytes, palette: bytes, body: bytes) -> bytes:
    """The transparency if it is one that this kind of picture has, else nothing, as libpng ignores it."""
    depth, colour = head[8], head[9]
    if colour == PALETTE:
        return body if len(body) <= len(palette) // 3 else b""
    count = {GREY: 1, RGB: 3}.get(colour)
    if count is None or len(body) != 2 * count:
        return b""
    return struct.pack(f">{count}H", *(n & (1 << depth) - 1 for n in struct.unpack(f">{count}H", body)))


def _rows(data: bytes, head: bytes, where: str) -> tuple[bytes, bytes]:
    """The decompressed rows, each after the byte of its filter, and their Adler-32. What follows them is left out."""
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", head)
    steps = PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in steps]
    shapes = [(h, 1 + (w * depth * CHANNELS[colour] + 7) // 8) for w, h in sizes if w > 0 and h > 0]
    size, decoder, more = sum(h * stride for h, stride in shapes), zlib.decompressobj(), b""
    try:
        rows = decoder.decompress(data, size)
        if not decoder.eof:
            more = decoder.decompress(decoder.unconsumed_tail, 1)  # nothing, and the checksum is compared
    except zlib.error as error:
        raise DataError(f"{where} is damaged in its pixels ({error})") from error
    if len(rows) < size or not (decoder.eof or more):
        raise DataError(f"{where} is cut short in its pixels")
    begin = 0
    for h, stride in shapes:
        if np.frombuffer(rows, np.uint8, h * stride, begin)[::stride].max() >= FILTERS:
            raise DataError(f"{where} is damaged in its pixels (an unknown filter)")
        begin += h * stride
    check = struct.pack(">I", zlib.adler32(rows)) if more else data[: len(data) - len(decoder.unused_data)][-4:]
    return rows, check


def _stored(rows: bytes, check: bytes) -> bytes:
    """A zlib stream (RFC 1950, 1951) of stored blocks: as zlib.compress(rows, 0), in a tenth of the time."""
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for begin in range(0, len(rows), BLOCK):
        block = memoryview(rows)[begin : begin + BLOCK]
        last = begin + BLOCK >= len(rows)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ BLOCK), block]
    return b"".join((*parts, check))
