"""TFRecord files, and the tf.train.Example messages that their records hold, without tensorflow.

A record is its length (uint64), the masked CRC32C of these eight bytes, the data, and the data's masked CRC32C, all
little-endian (tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details").

An Example maps names to lists of bytes, floats or integers (tensorflow/core/example/{example,feature}.proto). Only the
requested features are decoded, and the others are skipped. A record of MOVi holds six million integers of optical flow,
which a general parser would unpack each time.
"""

import math
import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from cjepa_jax.errors import DataError
from cjepa_jax.host import door

Values = list[bytes] | np.ndarray  # of one feature: bytes, float32 or int64
LONGEST = 10  # bytes of a varint of 64 bits


def masked_crc(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated and shifted, so that it may itself be part of checked data."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read(path: Path, number: int, total: int) -> bytes:
    """Record `number` of a file that should hold `total`. The records before it are skipped by their lengths.

    Raises DataError, naming file and record, for a file that is missing, cut short or damaged up to this record, and
    for one that ends too early. When the last record is read, also for a file that ends too late.
    """
    try:
        with door.regular(path, links=True) as file:
            size = os.fstat(file.fileno()).st_size
            for k in range(number + 1):
                where = f"{path}: record {k}"
                if file.tell() == size:
                    raise DataError(f"{path}: holds {k} records, it should hold {total}")
                length = _length(file.read(12), size - file.tell(), where)
                if k < number:
                    file.seek(length + 4, os.SEEK_CUR)
            data, crc = file.read(length), file.read(4)
            rest = size - file.tell()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if struct.pack("<I", masked_crc(data)) != crc:
        raise DataError(f"{where} is damaged: its checksum is not that of its {length} bytes")
    if number == total - 1 and rest:
        raise DataError(f"{path}: holds more than the {total} records that it should hold")
    return data


def _length(header: bytes, rest: int, where: str) -> int:
    """The length in a record's header, with `rest` bytes of the file after it."""
    if len(header) == 12:
        length, crc = struct.unpack("<QI", header)
        if masked_crc(header[:8]) != crc:
            raise DataError(f"{where} is damaged: the checksum of its length is wrong")
        if length + 4 <= rest:
            return length
    raise DataError(f"{where} is cut short: the file ends {max(rest, 0)} bytes after its length")


def example(data: bytes, names: Collection[str], where: str) -> dict[str, Values]:
    """These features of a serialised tf.train.Example. Raises DataError, beginning with `where`, if one is missing."""
    found, keys = {}, {name.encode(): name for name in names}
    try:
        for features in _inner(memoryview(data), 1):
            for entry in _inner(features, 1):
                parts = dict(_fields(entry))
                name = keys.get(bytes(parts.get(1, b"")))
                if name is not None:
                    found[name] = _values(parts.get(2, memoryview(b"")))
    except ValueError as error:
        raise DataError(f"{where}: not a tf.train.Example: {error}") from error
    missing = sorted(set(names) - found.keys())
    if missing:
        raise DataError(f"{where}: no feature {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}")
    return found


def array(features: dict[str, Values], name: str, shape: tuple[int, ...], kind: type, where: str) -> np.ndarray:
    """A feature of numbers, float32 or int64 (`kind`), in this shape, whose first length may be -1.

    Raises DataError, beginning with `where`, if it is of another kind or does not fit.
    """
    values = np.asarray(features[name] if len(features[name]) else np.zeros(0, kind))
    if values.dtype != kind:
        raise DataError(f"{where}: {name} does not hold {np.dtype(kind).name} numbers")
    inner = math.prod(shape[1:] if -1 in shape else shape)
    if values.size % max(inner, 1) or (-1 not in shape and values.size != inner):
        raise DataError(f"{where}: {name} holds {values.size} numbers, which do not make {list(shape)}")
    return values.reshape(values.size // max(inner, 1), *shape[1:]) if -1 in shape else values.reshape(shape)


def _values(feature: memoryview) -> Values:
    for kind, content in _fields(feature):
        values = list(_inner(content, 1))
        if kind == 1:
            return [bytes(value) for value in values]
        if kind == 2:
            return np.frombuffer(b"".join(values), "<f4")  # ValueError for a broken number
        if kind == 3:
            return _integers(b"".join(values))
    return []


def _integers(data: bytes) -> np.ndarray:
    """Consecutive varints -> int64 [n]: seven bits a byte, lowest first, bit 7 for "more to come"."""
    digits = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(digits < 128)
    if not digits.size:
        return np.zeros(0, np.int64)
    lengths = np.diff(last, prepend=-1)
    if not last.size or last[-1] != digits.size - 1 or lengths.max() > LONGEST:
        raise ValueError("an integer has no end")
    place = np.arange(digits.size) - np.repeat(last - lengths + 1, lengths)
    parts = (digits & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, last - lengths + 1).view(np.int64)


def _inner(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(message) if number == wanted)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of each field of a protobuf message. Raises ValueError if it is not one."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, end = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            end = at + length
        elif kind in (1, 5):
            end = at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"a field of kind {kind}")
        if end > len(message):
            raise ValueError("a field is cut short")
        yield key >> 3, message[at:end]
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """(number, place after it)."""
    value = 0
    for shift in range(LONGEST):
        if at == len(message):
            break
        value |= (message[at] & 127) << (7 * shift)
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise ValueError("an integer has no end")
