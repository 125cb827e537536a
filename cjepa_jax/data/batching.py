"""From scenes to arrays of one shape: the only place that pads objects and lays out rows."""

from collections.abc import Sequence

import numpy as np

from cjepa_jax.errors import DataError

MULTIPLE = 8  # row lengths are rounded up to it: vector units like even lengths


def row_lengths(shares: Sequence[float], tokens: int) -> tuple[int, ...]:
    """Row lengths in tokens from shares of the grid, each rounded up to a multiple of 8, the last one N itself."""
    lengths = {min(tokens, -(-int(np.ceil(share * tokens)) // MULTIPLE) * MULTIPLE) for share in shares}
    return tuple(sorted(lengths | {tokens}))


def lay_out(context: np.ndarray, shards: int, lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows with one scene each, of the shortest length that holds every scene's context.

    Args:
      context: bool [B, N]; B a multiple of `shards`.
      lengths: ascending, the last one N.
    Returns: index, segment, int32 [S, B/S, L] as in types.Rows.
    """
    scenes, tokens = context.shape
    counts = context.sum(1)
    length = next(length for length in lengths if length >= counts.max())
    order = np.argsort(~context, axis=1, kind="stable")[:, :length]  # context tokens first, in grid order
    real = np.arange(length) < counts[:, None]
    per_shard = scenes // shards
    first = np.arange(scenes)[:, None] % per_shard * tokens
    index = np.where(real, first + order, per_shard * tokens).astype(np.int32)
    return index.reshape(shards, per_shard, length), real.astype(np.int32).reshape(shards, per_shard, length)


def keep_largest(object_patches: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the `limit` objects that touch the most tokens, in their own order: [K, N] -> [<= limit]."""
    area = object_patches.sum(1)
    return np.sort(np.argsort(-area, kind="stable")[:limit])


def pad_objects(array: np.ndarray, limit: int) -> np.ndarray:
    """[K, ...] -> [limit, ...], filled with zeros."""
    return np.pad(array, [(0, limit - len(array))] + [(0, 0)] * (array.ndim - 1))


def collate(scenes: Sequence[dict], shards: int, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Stacks scenes' arrays along a new first axis and lays out their context: the fields of types.Batch, by name.

    Raises: DataError if scenes differ in a shape.
    """
    batch = {}
    for name in scenes[0]:
        shapes = {np.shape(scene[name]) for scene in scenes}
        if len(shapes) > 1:
            raise DataError(f"{name}: scenes of one batch have different shapes {sorted(shapes)}")
        batch[name] = np.stack([scene[name] for scene in scenes])
    index, segment = lay_out(batch["context"], shards, lengths)
    return batch | {"rows": {"index": index, "segment": segment}}
