"""Turns scenes into arrays of one shape. Padding of objects and layout of rows happen only here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cjepa_jax.errors import DataError

LAID_OUT = {"context": "rows", "second_context": "second_rows"}  # fields of types.Batch
MULTIPLE = 8  # row lengths are rounded up to a multiple of it, which suits vector units

Shape = tuple[int, int]  # (R, L): rows of a shard, and tokens of a row


def row_lengths(shares: Sequence[float], tokens: int) -> tuple[int, ...]:
    """Row lengths in tokens from shares of the grid, each rounded up to a multiple of 8. The last length is N."""
    lengths = {min(tokens, -(-int(np.ceil(share * tokens)) // MULTIPLE) * MULTIPLE) for share in shares}
    return tuple(sorted(lengths | {tokens}))


def shapes(data: Any, tokens: int, scenes: int) -> tuple[Shape, ...]:
    """The shapes (R, L) that a shard's rows may have, ascending. The last one holds every possible draw.

    Args:
      data: has `row_lengths`, shares of the grid, of which the last is 1.0, and `pack`. With pack = 0 each scene has
        one row, of these lengths. With pack = k rows have the length of k grids, and the shares are those of b / k
        rows.
      tokens: N.
      scenes: b, the scenes of a shard.
    """
    if not data.pack:
        return tuple((scenes, length) for length in row_lengths(data.row_lengths, tokens))
    grids = min(data.pack, scenes)
    # The tolerance makes 0.07 x 100 give 7 rows despite rounding.
    rows = {max(1, int(np.ceil(share * scenes / grids - 1e-9))) for share in (*data.row_lengths, 1.0)}
    return tuple((count, grids * tokens) for count in sorted(rows))


def choose(context: np.ndarray, shards: int, shapes: Sequence[Shape]) -> int:
    """The index of the first of `shapes` (ascending) that holds the context of every shard.

    context: bool [B, N]. B is a multiple of `shards`. Raises ValueError if no shape is large enough.
    """
    counts = context.sum(1).reshape(shards, -1)
    for place, shape in enumerate(shapes):
        if all(assign(shard, shape) is not None for shard in counts):
            return place
    raise ValueError(f"rows of shapes {list(shapes)} do not hold {counts.sum(1).max()} tokens of a shard")


def lay_out(context: np.ndarray, shards: int, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Lays out context tokens in rows: one scene per row if R is the number of scenes, else several scenes per row.

    A scene's tokens are in grid order and never span two rows. The scenes of a row are in order, with ids 1, 2, 3, ...

    Args:
      context: bool [B, N]. B is a multiple of `shards`.
      shape: (R, L), the same for every shard.
    Returns: index, segment, int32 [S, R, L] as in types.Rows.
    Raises: ValueError if a shard does not fit.
    """
    (scenes, tokens), (rows, length) = context.shape, shape
    per_shard, counts = scenes // shards, context.sum(1)
    index = np.full(shards * rows * length, per_shard * tokens, np.int32)
    segment = np.zeros(shards * rows * length, np.int32)
    start, number = np.zeros((2, scenes), int)  # each scene's first slot, and its id within its row
    for shard in range(shards):
        own = slice(shard * per_shard, (shard + 1) * per_shard)
        row = assign(counts[own], shape)
        if row is None:
            raise ValueError(f"{rows} rows of {length} do not hold the {counts[own].sum()} tokens of shard {shard}")
        order = np.argsort(row, kind="stable")  # by row, and in a row by scene
        before = np.cumsum(counts[own][order]) - counts[own][order]
        first = np.searchsorted(row[order], row[order])  # position in `order` of the row's first scene
        start[own][order] = (shard * rows + row[order]) * length + before - before[first]
        number[own][order] = 1 + np.arange(per_shard) - first
    scene, token = np.nonzero(context)
    slot = np.repeat(start - (np.cumsum(counts) - counts), counts) + np.arange(len(scene))
    index[slot] = scene % per_shard * tokens + token
    segment[slot] = number[scene]
    return index.reshape(shards, rows, length), segment.reshape(shards, rows, length)


def assign(counts: np.ndarray, shape: Shape) -> np.ndarray | None:
    """The row [b] of each scene of a shard, from its number of tokens. None if no fitting assignment is found.

    With as many rows as scenes each scene has one row. Otherwise scenes are first dealt out evenly. This packs scenes
    of similar sizes the tightest, and it always succeeds where rows hold any b / R scenes. If it fails, the fallback is
    first fit with the largest scenes first (Johnson 1973).
    """
    rows, length = shape
    if rows >= len(counts):
        return np.arange(len(counts)) if counts.max() <= length else None
    if counts.sum() > rows * length:
        return None
    row = _deal(counts, shape)
    return _first_fit(counts, shape) if row is None else row


def _deal(counts: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Gives each row b // R scenes or one more. The largest scenes go to the rows that have fewer."""
    rows, length = shape
    each, more = divmod(len(counts), rows)
    order, row = np.argsort(-counts, kind="stable"), np.zeros(len(counts), int)
    fewer = (rows - more) * each
    for first, count, scenes in ((0, rows - more, order[:fewer]), (rows - more, more, order[fewer:])):
        filled = np.zeros(count, int)
        for share in scenes.reshape(-1, count) if count else ():
            fullest = np.argsort(-filled, kind="stable")  # takes the smallest of this round
            row[share[::-1]] = first + fullest
            filled[fullest] += counts[share[::-1]]
        if (filled > length).any():
            return None
    return row


def _first_fit(counts: np.ndarray, shape: Shape) -> np.ndarray | None:
    room, row = np.full(*shape), np.zeros(len(counts), int)
    for scene in np.argsort(-counts, kind="stable"):
        there = room >= counts[scene]
        row[scene] = first = there.argmax()
        if not there[first]:
            return None
        room[first] -= counts[scene]
    return row


def keep_largest(object_patches: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the `limit` objects that touch the most tokens, in ascending order: [K, N] -> [<= limit]."""
    area = object_patches.sum(1)
    return np.sort(np.argsort(-area, kind="stable")[:limit])


def pad_objects(array: np.ndarray, limit: int) -> np.ndarray:
    """[K, ...] -> [limit, ...], filled with zeros."""
    return np.pad(array, [(0, limit - len(array))] + [(0, 0)] * (array.ndim - 1))


def collate(scenes: Sequence[dict], shards: int = 1, shapes: Sequence[Shape] = ()) -> dict[str, np.ndarray]:
    """Stacks scenes' arrays along a new first axis and lays out their context in the first of `shapes` that holds it
    (both contexts, of scenes with two masks).

    Without shapes each scene has a row of N tokens.

    Returns: the fields of types.Batch, by name.
    Raises: DataError if scenes differ in a shape.
    """
    batch = {}
    for name in scenes[0]:
        found = {np.shape(scene[name]) for scene in scenes}
        if len(found) > 1:
            raise DataError(f"{name}: scenes of one batch have different shapes {sorted(found)}")
        batch[name] = np.stack([scene[name] for scene in scenes])
    return laid_out(batch, shards, shapes)


def laid_out(batch: dict[str, Any], shards: int = 1, shapes: Sequence[Shape] = ()) -> dict[str, Any]:
    """The batch with its contexts laid out in the first of `shapes` that holds them. See `collate`."""
    contexts = [batch[name] for name in LAID_OUT if name in batch]
    shapes = shapes or [(len(contexts[0]) // shards, contexts[0].shape[1])]
    return with_rows(batch, shards, shapes[max(choose(context, shards, shapes) for context in contexts)])


def with_rows(batch: dict[str, Any], shards: int, shape: Shape) -> dict[str, Any]:
    """The batch with its context, and that of a second mask, laid out in rows of this shape."""
    found = {name: lay_out(batch[context], shards, shape) for context, name in LAID_OUT.items() if context in batch}
    return batch | {name: {"index": index, "segment": segment} for name, (index, segment) in found.items()}
