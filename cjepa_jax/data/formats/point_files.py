"""Reads point clouds: .npy arrays, .ply clouds and .off meshes, whose surface is sampled."""

import io
import os
import tokenize
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError

SUFFIXES = (".npy", ".off", ".ply")
MOST = 2**28  # bytes of a file
MOST_TEXT = 2**26  # of one whose numbers are text, which take twenty times as much in memory
TYPES = {  # of a PLY file -> NumPy's
    **{name: "i1" for name in ("char", "int8")},
    **{name: "u1" for name in ("uchar", "uint8")},
    **{name: "i2" for name in ("short", "int16")},
    **{name: "u2" for name in ("ushort", "uint16")},
    **{name: "i4" for name in ("int", "int32")},
    **{name: "u4" for name in ("uint", "uint32")},
    **{name: "f4" for name in ("float", "float32")},
    **{name: "f8" for name in ("double", "float64")},
}
FAULTS = (  # with which NumPy and the readers here meet damage
    ValueError, IndexError, KeyError, TypeError, SyntaxError, EOFError, OverflowError, MemoryError, tokenize.TokenError,
)  # fmt: skip
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def read(path: str | os.PathLike, count: int, rng: np.random.Generator) -> Float[np.ndarray, "{count} 3"]:
    """`count` points of a file, float32. Of more points some are drawn, fewer are repeated.

    .npy: [P, 3 or more], of which the first three are x, y, z. .ply: the vertices' x, y, z. .off: points drawn
    uniformly on the triangles (polygons are cut into triangles).
    Raises: DataError, one line with the file, for one that cannot be read or that holds something else.
    """
    path = Path(path)
    readers = {".npy": _npy, ".ply": _ply, ".off": _off}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: must be one of {', '.join(SUFFIXES)}")
    data = files.contents(path, MOST)
    try:
        points = readers[path.suffix.lower()](data, count, rng)
    except FAULTS as error:
        raise DataError(
            f"{path}: not a readable {path.suffix} file: {(str(error).splitlines() or ['damaged'])[0][:100]}"
        ) from error
    if not len(points) or not np.isfinite(points).all():
        raise DataError(f"{path}: has {'no points' if not len(points) else 'points that are not finite'}")
    if len(points) > count:
        points = points[np.sort(rng.choice(len(points), count, replace=False))]
    return np.resize(points, (count, 3)).astype(np.float32)


def _npy(data: bytes, count: int, rng: np.random.Generator) -> np.ndarray:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise ValueError("must be an array [P, 3 or more] of numbers")
    return array[:, :3].astype(np.float64)


def _ply(data: bytes, count: int, rng: np.random.Generator) -> np.ndarray:
    head, marker, body = data.partition(b"end_header\n")
    if not marker:
        head, marker, body = data.partition(b"end_header\r\n")
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    if not marker or not lines or lines[0] != ["ply"]:
        raise ValueError("has no header")
    order = next((ORDERS[line[1]] for line in lines if line[:1] == ["format"]), None)
    elements = [line for line in lines if line[:1] == ["element"]]
    if order is None or not elements or elements[0][1] != "vertex":
        raise ValueError("the first element must be vertex")
    vertices = int(elements[0][2])
    after = lines[lines.index(elements[0]) + 1 :]
    properties: list[tuple[str, str]] = []
    for line in after:
        if line[:1] == ["element"]:
            break
        if line[:1] == ["property"]:
            properties.append((line[2], TYPES[line[1]]))
    names = [name for name, _ in properties]
    places = [names.index(axis) for axis in "xyz"]
    if not order:
        rows = _text(body).splitlines()[:vertices]
        values = np.array([row.split()[: len(names)] for row in rows], np.float64)
        if values.shape != (vertices, len(names)):
            raise ValueError(f"has {len(rows)} of {vertices} vertices")
        return values[:, places]
    record = np.dtype([(name, order + kind) for name, kind in properties])
    if vertices < 0 or len(body) < vertices * record.itemsize:
        raise ValueError(f"is cut off: {vertices} vertices are {vertices * record.itemsize} bytes")
    table = np.frombuffer(body, record, vertices)
    return np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _off(data: bytes, count: int, rng: np.random.Generator) -> np.ndarray:
    text = _without_comments(data)
    if not text.startswith("OFF"):
        raise ValueError("must begin with OFF")
    words = text[3:].split()  # some of ModelNet's files have the counts right after OFF
    vertices, faces = int(words[0]), int(words[1])
    if vertices < 1 or faces < 1 or 3 + 3 * vertices > len(words):
        raise ValueError(f"has not its {vertices} vertices and {faces} faces")
    points = np.array(words[3 : 3 + 3 * vertices], np.float64).reshape(-1, 3)
    triangles, place = [], 3 + 3 * vertices
    for _ in range(faces):
        sides = int(words[place])
        corners = [int(word) for word in words[place + 1 : place + 1 + sides]]
        if sides < 3 or len(corners) < sides:
            raise ValueError(f"a face of {sides} corners")
        triangles += [(corners[0], *corners[i : i + 2]) for i in range(1, sides - 1)]
        place += 1 + sides
    index = np.array(triangles)
    if index.min() < 0 or index.max() >= vertices:
        raise ValueError(f"a face names vertex {int(index.max())} of {vertices}")
    return surface(points, index, count, rng)


def _text(data: bytes) -> str:
    if len(data) > MOST_TEXT:
        raise ValueError(f"more than {MOST_TEXT} bytes of text")
    return data.decode("ascii")


def _without_comments(data: bytes) -> str:
    return "\n".join(line.partition("#")[0] for line in _text(data).splitlines()).lstrip()


def surface(points: np.ndarray, triangles: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` points drawn uniformly on triangles: [P, 3], int [F, 3] -> [count, 3]. Raises ValueError without area."""
    corner = points[triangles]
    sides = corner[:, 1:] - corner[:, :1]
    area = np.sqrt(np.square(np.cross(sides[:, 0], sides[:, 1])).sum(-1))
    if not area.sum() > 0:
        raise ValueError("its faces have no area")
    chosen = rng.choice(len(area), count, p=area / area.sum())
    share = rng.random((count, 2, 1))
    share = np.where(share.sum(1, keepdims=True) > 1, 1 - share, share)
    return corner[chosen, 0] + (share * sides[chosen]).sum(1)
