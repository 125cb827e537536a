"""PyTorch's checkpoints, which are pickles in a zip archive. The only place that unpickles one.

This is only done by torch.load(weights_only=True), after the archive and every instruction of the pickle have been
checked. Records must be stored, not compressed, and together not larger than the file. Only functions that build plain
dense tensors may be called. TorchScript and the format before PyTorch 1.6 are refused. The file is memory-mapped, so
unused contents (the optimiser's state, the other encoder) take no memory.
"""

import io
import os
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.host import optional
from cjepa_jax.weights.safety import regular, require_small, short

MOST_AT_ONCE = 4 << 20  # bytes of the pickle, and of the archive's list of records (ViT-g with its optimiser: 0.7 MB)
MOST_RECORDS = 50_000
MOST_ENTRIES = 100_000  # of all dicts together
MOST_DEPTH = 12  # dicts in dicts
MOST_TOGETHER = 4  # claimed by all tensors together, in sizes of the file (names may share a tensor)
MOST_AXES = 8
CALLED = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(
        f"torch {kind}Storage"
        for kind in "Double Float Half BFloat16 Long Int Short Char Byte Bool".split()  # not quantised or complex ones
    ),
}
ALONE = ": where you trust the file, load it with PyTorch and save the state dicts alone, torch.save({'encoder': ...})"
INSTRUCTIONS = set(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING"
    " EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS"
    " BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL BINPERSID REDUCE BUILD".split()
)

Reader = tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]


def read(path: Path) -> Reader:
    """Shapes by name, nested dicts flattened with ".", and a function that reads one tensor as float32.

    Other values than tensors are left out.

    Raises: CheckpointError, one line, for an archive, a pickle or a tensor outside the rules above.
    """
    _examine(path)
    tensors, total, size = {}, 0, os.path.getsize(path)
    for name, tensor in _flatten(path, _load(path)):
        if name in tensors:
            raise CheckpointError(f"{path}: {short(name)}: two arrays have this name")
        taken = _size(f"{path}: {short(name)}", tensor)
        total += taken
        if max(taken, total // MOST_TOGETHER) > size:
            text = f"claims {taken} bytes ({total} with those before), the file has {size}"
            raise CheckpointError(f"{path}: {short(name)}: {text}")
        tensors[name] = tensor

    def array(name: str) -> np.ndarray:
        tensor = tensors[name].detach()
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {short(name)}: is {tensor.dtype}, weights are floating-point numbers")
        return np.array(tensor.float().numpy(), order="C")

    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, array


class _Bounded(io.FileIO):
    """A file that returns at most a few megabytes at once, independent of the claimed size of the archive's list."""

    def read(self, size: int = -1) -> bytes:
        data = super().read(min(size, MOST_AT_ONCE + 1) if size >= 0 else MOST_AT_ONCE + 1)
        if len(data) > MOST_AT_ONCE:
            raise zipfile.BadZipFile(f"it has a piece of more than {MOST_AT_ONCE} bytes where few are expected")
        return data


def _examine(path: Path) -> None:
    """Raises CheckpointError unless the archive is plain and its pickle only makes tensors."""
    regular(path).close()
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            _check_records(path, records)
            if _directory(file) != archive.start_dir:  # PyTorch might use another list than is checked
                raise zipfile.BadZipFile("its list of records is not where it should be")
            (root,) = {record.filename.partition("/")[0] for record in records}
            names = {record.filename.partition("/")[2]: record for record in records}
            if "constants.pkl" in names or "data.pkl" not in names:
                raise CheckpointError(f"{path}: is not a checkpoint of torch.save (TorchScript is not read)")
            if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
                raise CheckpointError(f"{path}: byteorder: must be little")
            _check_pickle(path, archive.read(names["data.pkl"]))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise CheckpointError(
            f"{path}: is not readable as an archive: {_first_line(error)}. Copy it again if it was cut short"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def _check_records(path: Path, records: list[zipfile.ZipInfo]) -> None:
    if len(records) > MOST_RECORDS:
        raise CheckpointError(f"{path}: has {len(records)} records, at most {MOST_RECORDS} are read")
    for record in records:
        root, *parts = record.orig_filename.split("/")  # before zipfile shortens it
        wrong = not (root and parts and all(parts)) or {".", ".."} & {root, *parts}
        if wrong or set("\\\0") & set(record.orig_filename) or not "".join(parts).isascii():
            raise CheckpointError(f"{path}: {short(record.filename)} is not a record's name")
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise CheckpointError(f"{path}: {short(record.filename)} is compressed, which torch.save never does")
        if record.flag_bits & 1:
            raise CheckpointError(f"{path}: {short(record.filename)} is encrypted")
    if len({record.filename.lower() for record in records}) < len(records):
        raise CheckpointError(f"{path}: two records have one name")
    if len({record.filename.partition("/")[0] for record in records}) != 1:
        raise CheckpointError(f"{path}: its records must be in one folder")
    size = os.path.getsize(path)
    if (total := sum(record.file_size for record in records)) > size:
        raise CheckpointError(f"{path}: its records claim {total} bytes, the file has {size}")


def _directory(file: io.FileIO) -> int:
    """Offset of the list of records, according to the archive's last bytes, without any comment."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read(98)
    if tail[-22:-18] != b"PK\5\6":
        raise zipfile.BadZipFile("it does not end as torch.save ends it")
    if tail[-42:-38] != b"PK\6\7":
        return int.from_bytes(tail[-6:-2], "little")
    if len(tail) < 98 or tail[:4] != b"PK\6\6" or int.from_bytes(tail[-34:-26], "little") != size - 98:
        raise zipfile.BadZipFile("it does not end as torch.save ends it")
    return int.from_bytes(tail[48:56], "little")


def _check_pickle(path: Path, data: bytes) -> None:
    for instruction, value, place in pickletools.genops(data):
        if instruction.name not in INSTRUCTIONS:
            raise CheckpointError(
                f"{path}: its pickle has {instruction.name} at byte {place}, no part of saved weights{ALONE}"
            )
        if instruction.name == "GLOBAL" and value not in CALLED:
            raise CheckpointError(f"{path}: its pickle asks for {short(value)}, no part of saved weights{ALONE}")


def _load(path: Path) -> Any:
    torch = optional.need("torch", "torch", str(path), CheckpointError)
    try:
        return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a pickle can make the reader raise anything
        raise CheckpointError(f"{path}: is not readable by torch.load: {_first_line(error)}") from error


def _flatten(path: Path, content: Any) -> Iterator[tuple[str, Any]]:
    """Pairs (name, tensor) of nested dicts, in order. A dict may hold itself, so depth and number are limited."""
    import torch

    left = MOST_ENTRIES

    def walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal left
        if depth > MOST_DEPTH:
            raise CheckpointError(f"{path}: {short(prefix)}: nested deeper than {MOST_DEPTH}")
        for key, value in node.items():
            left -= 1
            if left < 0:
                raise CheckpointError(f"{path}: has more than {MOST_ENTRIES} entries")
            if not isinstance(key, str | int):
                continue
            if isinstance(value, torch.Tensor):
                yield f"{prefix}{key}", value
            elif isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.", depth + 1)

    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: must hold a dict of tensors, not {type(content).__name__}")
    return walk(content, "", 1)


def _size(where: str, tensor: Any) -> int:
    """Bytes that a copy of the tensor takes. Raises CheckpointError for one that is not plain and dense."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        raise CheckpointError(f"{where}: must be a plain dense array of real numbers")
    if tensor.ndim > MOST_AXES:
        raise CheckpointError(f"{where}: has {tensor.ndim} axes, at most {MOST_AXES} are read")
    require_small(where, tensor.shape)
    return tensor.numel() * tensor.element_size()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
