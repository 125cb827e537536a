"""safetensors: eight bytes of header length, a JSON header, and then the numbers."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.safety import contents, parse, regular, require_small, short

MOST_HEADER = 10 << 20  # bytes (the largest published models have some 100 KB)
MOST_ENTRIES = 100_000  # arrays, and as many texts
MOST_AXES = 8
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # bfloat16: the upper half of a float32
SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
SIZES |= {"I8": 1, "U8": 1, "BOOL": 1}

Reader = tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]


def read(path: Path) -> Reader:
    """Shapes by name, and a function that reads one array as float32.

    The arrays must fill the file without gaps or overlaps, so they are not larger than the file.

    Raises: CheckpointError, one line, for any other file.
    """
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(contents(file, 8, path), "little")
        if size < 8 or length > min(size - 8, MOST_HEADER):
            raise CheckpointError(f"{path}: is not a safetensors file: a header of {length} bytes in {size}")
        header = parse(contents(file, length, path), f"{path}: the header")
    notes = header.pop("__metadata__", {})
    if len(header) > MOST_ENTRIES or (isinstance(notes, dict) and len(notes) > MOST_ENTRIES):
        raise CheckpointError(f"{path}: its header has more than {MOST_ENTRIES} names")
    entries = {name: _entry(f"{path}: {short(name)}", entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise CheckpointError(f"{path}: {short(name)}: begins at byte {first}, not {end}: a gap or an overlap")
        end = last
    if 8 + length + end != size:
        raise CheckpointError(f"{path}: has {size} bytes, its header tells of {8 + length + end}: cut short or damaged")

    def array(name: str) -> np.ndarray:
        kind, shape, first, _ = entries[name]
        if kind not in FLOATS:
            raise CheckpointError(f"{path}: {short(name)}: is {kind}, weights are one of {', '.join(FLOATS)}")
        count = math.prod(shape)
        with regular(path) as file:  # again, because what is at the path may have been replaced
            try:
                found = np.fromfile(file, FLOATS[kind], count, offset=8 + length + first)
            except OSError as error:
                raise CheckpointError(f"{path}: {error.strerror}") from error
        if found.size != count:
            raise CheckpointError(f"{path}: {short(name)}: the file has become shorter")
        if kind == "BF16":
            found = (found.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore"):  # overflow gives infinity, which is refused
            return found.astype(np.float32, copy=False).reshape(shape)

    return {name: entry[1] for name, entry in entries.items()}, array


def _entry(where: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(type, shape, first byte, byte after the last) of a header's entry."""
    kind, shape, place = (
        entry.get(key) if isinstance(entry, dict) else None for key in ("dtype", "shape", "data_offsets")
    )
    if not isinstance(kind, str) or kind not in SIZES:
        raise CheckpointError(f"{where}: dtype = {str(kind)[:20]!r}: must be one of {', '.join(SIZES)}")
    if not _whole(shape) or len(shape) > MOST_AXES:
        raise CheckpointError(f"{where}: shape: must be at most {MOST_AXES} whole numbers")
    require_small(where, shape)
    if not _whole(place) or len(place) != 2 or place[1] - place[0] != math.prod(shape) * SIZES[kind]:
        raise CheckpointError(f"{where}: data_offsets: must span what {kind} {list(shape)} takes"[:300])
    return kind, tuple(shape), *place


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
