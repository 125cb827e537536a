"""Moves tokens between the grid and packed rows, without communication between data shards."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from cjepa_jax.types import Array, Rows


@jax.custom_vjp
def _move(x: Array, source: Array, back: Array) -> Array:
    """out[s, i] = x[s, source[s, i]], or 0 where source points past the end: [S, M, D], [S, I], [S, M] -> [S, I, D].

    `back` is the inverse map, so the gradient is the same gather in the other direction, without a scatter of wide
    vectors.
    """
    return jax.vmap(functools.partial(jnp.take, axis=0, mode="fill", fill_value=0))(x, source)


def _move_forward(x, source, back):
    return _move(x, source, back), (source, back)


def _move_backward(maps, gradient):
    source, back = maps
    return _move(gradient, back, source), None, None


_move.defvjp(_move_forward, _move_backward)


def _maps(rows: Rows, tokens: int) -> tuple[Array, Array]:
    """Row slot -> token [S, R*L] and token -> row slot [S, M] for M = `tokens` of a shard. An index past the end means
    none."""
    index = rows.index.reshape(rows.index.shape[0], -1)
    slots = index.shape[1]

    def inverse(index):
        return jnp.full(tokens, slots, index.dtype).at[index].set(jnp.arange(slots, dtype=index.dtype), mode="drop")

    return index, jax.vmap(inverse)(index)


def gather(
    tokens: Float[Array, "B N D"], rows: Rows
) -> tuple[Float[Array, "SR L D"], Int[Array, "SR L"] | Int[Array, " SR"]]:
    """Context tokens as rows: [B, N, D] -> ([S*R, L, D], segment [S*R, L]). Padding is zeros with segment 0.

    On a GPU the segments of rows with one scene each are their lengths [S*R], which cuDNN takes for a mask.
    """
    shards, _, length = rows.index.shape
    x = tokens.reshape(shards, -1, tokens.shape[-1])
    packed = _move(x, *_maps(rows, x.shape[1])).reshape(-1, length, x.shape[-1])
    segment = rows.segment.reshape(-1, length)
    if rows.alone and jax.default_backend() == "gpu":
        return packed, (segment > 0).sum(-1, dtype=jnp.int32)
    return packed, segment


def unpacked(context: Bool[Array, "B N"], rows: Rows | None = None) -> Rows:
    """One row per scene, covering the whole grid. Only context tokens are valid. For a context that is made within a
    step, when shapes are fixed already. rows: a layout with the same number of shards (None: one shard)."""
    shards = 1 if rows is None else rows.index.shape[0]
    scenes, tokens = context.shape
    end = scenes // shards * tokens
    place = jnp.arange(scenes * tokens, dtype=jnp.int32).reshape(scenes, tokens) % end
    place = jnp.where(context, place, end)
    index, segment = (x.reshape(shards, -1, tokens) for x in (place, context.astype(jnp.int32)))
    return Rows(index, segment)


def of_slots(table: Float[Array, "N 2 M"], rows: Rows) -> Float[Array, "SR L 2 M"]:
    """The rotation of each token of a grid, [N, 2, M], for the token in each row slot: [S*R, L, 2, M].

    Padding gets the first token's.
    """
    return jnp.take(table, rows.index.reshape(-1, rows.index.shape[-1]) % table.shape[0], axis=0)


def scatter(packed: Float[Array, "SR L D"], rows: Rows, grid: tuple[int, int]) -> Float[Array, "B N D"]:
    """Rows back on the grid: [S*R, L, D] -> [B, N, D] for `grid` = (B, N). Zeros where no row has the token."""
    shards = rows.index.shape[0]
    index, place = _maps(rows, grid[0] * grid[1] // shards)
    return _move(packed.reshape(shards, -1, packed.shape[-1]), place, index).reshape(*grid, -1)
