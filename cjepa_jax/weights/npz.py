"""Untrusted .npz archives of NumPy: arrays of numbers and text of bounded size, never pickles."""

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cjepa_jax.errors import DataError
from cjepa_jax.host import door

MOST_BYTES = 1 << 30  # of all arrays together, in memory
MOST_RECORDS = 10_000
MOST_AXES = 16
PIECE = 1 << 20  # bytes that are unpacked at a time
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# Errors of a broken archive, or of a broken header, which is Python source.
UNREADABLE: tuple[type[Exception], ...] = (
    ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError,
    RuntimeError, SyntaxError, OverflowError, TypeError, KeyError, MemoryError, RecursionError, tokenize.TokenError,
)  # fmt: skip


def read(path: str | os.PathLike, most: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """All arrays by name. Their sizes are checked against `most` bytes and against the stored bytes, before memory is
    allocated. Raises: DataError, one line, naming the file."""
    path = Path(path)
    try:
        with door.regular(path, links=True) as stream, zipfile.ZipFile(stream) as archive:
            records = archive.infolist()
            total = sum(record.file_size for record in records)
            if total > most or len(records) > MOST_RECORDS:
                raise DataError(
                    f"{path}: {len(records)} arrays of {total} bytes, at most {MOST_RECORDS} of {most} are read"
                )
            found = {}
            for record in records:
                with archive.open(record) as file:
                    found[record.filename.removesuffix(".npy")] = array(file, record.file_size)
            return found
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UNREADABLE as error:
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path}: not readable as NumPy's arrays: {text}") from error


def array(file: BinaryIO, size: int) -> np.ndarray:
    """The array of a NumPy file of `size` bytes. Raises ValueError, and the rest of UNREADABLE for a broken header."""
    read_header = HEADERS.get(np.lib.format.read_magic(file))
    if read_header is None:
        raise ValueError("an array of an unknown version")
    shape, columns_first, kind = read_header(file)
    if kind.hasobject or kind.shape or not kind.itemsize or len(shape) > MOST_AXES or min(shape, default=0) < 0:
        raise ValueError("an array that is not a plain one of numbers or text")
    if 0 in shape and math.prod(max(1, axis) for axis in shape) * kind.itemsize > MOST_BYTES:  # NumPy refuses it
        raise ValueError(f"an array of the shape {shape} and the type {kind}"[:200])
    taken = math.prod(shape) * kind.itemsize
    if taken != size - file.tell():
        raise ValueError(f"an array of {taken} bytes in {size - file.tell()}")
    data = np.empty(taken, np.uint8)
    for start in range(0, taken, PIECE):
        data[start : start + PIECE] = np.frombuffer(file.read(min(PIECE, taken - start)), np.uint8)
    flat = data.view(kind) if taken else np.zeros(math.prod(shape), kind)
    return flat.reshape(shape, order="F" if columns_first else "C")
