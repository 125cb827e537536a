"""Pickles of dictionaries of NumPy arrays, {split: {name: array}}, read without running anything of them.

A pickle is a program that may call any function. Here its instructions are read one after the other. Those that build
dictionaries, tuples and arrays are followed, by a machine that knows nothing else. No name of the file is imported, and
each array is handed on as soon as its bytes are there, so that the memory is that of one array.
"""

import math
import os
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cjepa_jax.errors import DataError
from cjepa_jax.host import door

MOST_ARRAY = 4 << 30  # bytes of one array
MOST_STACK = 10_000
MOST_TEXT = 1000  # characters of a name
MOST_STEPS = 10_000_000  # an array takes about 26
MOST_MEMO = 1_000_000  # an array takes about 7
MOST_UNCLAIMED = 1 << 20  # bytes that no array has taken, when more bytes come
FLOATS = {"f2": np.float16, "f4": np.float32, "f8": np.float64}
RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
FROM_BUFFER = {f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core")}
KNOWN = RECONSTRUCT | FROM_BUFFER | {"numpy ndarray", "numpy dtype"}
Take = Callable[[np.ndarray], int]  # an array -> its number
MARK = object()


class Name(NamedTuple):
    """A name that the pickle refers to. It is compared, never imported."""

    text: str


class Bytes:
    """Bytes of the pickle, until an array has taken them."""

    def __init__(self, data: bytes | bytearray):
        self.data: bytes | bytearray | None = data


class Kind:
    """A dtype under construction."""

    def __init__(self, code: str):
        self.code, self.order = code, ""


class Array:
    """An array under construction, then the number that `take` gave it."""

    def __init__(self) -> None:
        self.number = -1


class _Bounded:
    """A file for pickletools, never asked for more than one array, or for more than it has left."""

    def __init__(self, file: BinaryIO):
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        """`size` bytes."""
        if size > self.size - self.file.tell():
            raise ValueError("it ends too early")
        if size > MOST_ARRAY:
            raise ValueError(f"an array has more than {MOST_ARRAY >> 30} GiB")
        return self._taken(self.file.read, size)

    def readline(self) -> bytes:
        """A line of bounded length."""
        return self._taken(self.file.readline, MOST_TEXT + 2)

    def _taken(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except OSError as error:
            raise ValueError(error.strerror) from error


def read(path: Path, take: Take) -> dict[str, dict[str, int]]:
    """{split: {name: number}}, where `take` has given each array its number, in the order of the file.

    Arrays are float16, float32 or float64, little-endian, in C order, of pickle protocols 3 to 5.
    Raises: DataError, in one line, for everything else. An OSError of `take` passes.
    """
    try:
        opened = door.regular(path, links=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    try:
        with opened as file:
            return _splits(_Machine(take).run(_Bounded(file)))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: is not a pickle of {{split: {{name: array}}}}: {text}") from error


class _Machine:
    def __init__(self, take: Take):
        self.take, self.stack, self.memo = take, [], {}  # type: ignore[var-annotated]
        self.unclaimed = 0  # bytes

    def run(self, file: Any) -> Any:
        """The object that the pickle holds. Raises ValueError and others for what is not allowed."""
        for step, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            value: Any = argument
            if step > MOST_STEPS or len(self.stack) > MOST_STACK or len(self.memo) > MOST_MEMO:
                raise ValueError("it is too large")
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            own = getattr(self, f"_{name.lower()}", None)
            if own is not None:
                own(value)
            elif name in ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"):
                self.stack.append(_text(value))
            elif name in ("BININT", "BININT1", "BININT2", "LONG1"):
                self.stack.append(int(value))
            elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"the instruction {name} builds something else")
        raise ValueError("it ends too early")

    def _binbytes(self, value: bytes | bytearray) -> None:
        if self.unclaimed > MOST_UNCLAIMED:
            raise ValueError("it holds bytes of no array")
        self.unclaimed += len(value)
        self.stack.append(Bytes(value))

    _short_binbytes = _binbytes8 = _bytearray8 = _binbytes

    def _mark(self, _: Any) -> None:
        self.stack.append(MARK)

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    _long_binput = _binput

    def _binget(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _long_binget = _binget

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _tuple1(self, _: Any) -> None:
        self._make_tuple(1)

    def _tuple2(self, _: Any) -> None:
        self._make_tuple(2)

    def _tuple3(self, _: Any) -> None:
        self._make_tuple(3)

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _make_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("it takes more than there is")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _setitems(self, _: Any) -> None:
        items = self._since_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(self.stack[-1], dict) or not isinstance(key, str):
            raise ValueError("a dictionary's key is not a text")
        self.stack[-1][key] = value

    def _global(self, value: str) -> None:
        self.stack.append(_known(value))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_known(f"{module} {name}"))

    def _reduce(self, _: Any) -> None:
        given, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or not isinstance(given, tuple):
            raise ValueError("it calls what is not a function")
        if name.text == "numpy dtype":
            self.stack.append(_kind(given))
        elif name.text in RECONSTRUCT:
            self.stack.append(Array())
        elif name.text in FROM_BUFFER:
            data, kind, shape, order = given
            if order != "C":
                raise ValueError("an array is not in C order")
            self.stack.append(self._array(Array(), data, kind, shape))
        else:
            raise ValueError(f"it calls {name.text}")

    def _build(self, _: Any) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, Kind):
            built.order = state[1]
        elif isinstance(built, Array):
            version, shape, kind, fortran, data = state
            if version != 1 or fortran is not False:
                raise ValueError("an array is not in C order")
            self._array(built, data, kind, shape)
        else:
            raise ValueError("it sets the state of something else")

    def _array(self, array: Array, data: Any, kind: Any, shape: Any) -> Array:
        if not isinstance(data, Bytes) or data.data is None or not isinstance(kind, Kind) or array.number >= 0:
            raise ValueError("an array is made twice, or of something else")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape):
            raise ValueError("an array has no shape")
        if kind.order not in ("<", "|"):
            raise ValueError("an array is not little-endian")
        dtype = np.dtype(FLOATS[kind.code])
        if len(data.data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {shape} has {len(data.data)} bytes")
        self.unclaimed -= len(data.data)
        array.number = self.take(np.frombuffer(data.data, dtype).reshape(shape))
        data.data = None  # the memory of one array is enough
        return array

    def _since_mark(self) -> list:
        place = len(self.stack) - 1
        while self.stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise ValueError("it takes more than there is")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items


def _known(name: str) -> Name:
    if name not in KNOWN:
        raise ValueError(f"it names {name[:80]!r}")
    return Name(name)


def _kind(given: tuple) -> Kind:
    if not given or given[0] not in FLOATS:
        raise ValueError(f"an array's type is {str(given[:1])[:40]}: must be a float")
    return Kind(given[0])


def _text(value: str) -> str:
    if len(value) > MOST_TEXT:
        raise ValueError(f"a name has {len(value)} characters")
    return value


def _splits(content: Any) -> dict[str, dict[str, int]]:
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no dictionary of splits")
    found: dict[str, dict[str, int]] = {}
    for split, arrays in content.items():
        if not isinstance(arrays, dict) or not all(isinstance(a, Array) and a.number >= 0 for a in arrays.values()):
            raise ValueError(f"{split[:40]!r} is not a dictionary of arrays")
        found[split] = {name: array.number for name, array in arrays.items()}
    return found
