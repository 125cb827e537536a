"""What attention kernels share: which token sees which, and the block of the TPU kernel."""

import jax.numpy as jnp
from jaxtyping import Bool, Int

from cjepa_jax.types import Array

BLOCK = 128  # tokens that the TPU kernel works on at a time


def ids(segment: Int[Array, "B T"] | Int[Array, " B"] | None, tokens: int) -> Int[Array, "B T"] | None:
    """Each token's segment id, of ids or of lengths: 1 for the first ones, then 0."""
    if segment is None or segment.ndim == 2:
        return segment
    return (jnp.arange(tokens) < segment[:, None]).astype(jnp.int32)


def visibility(
    q_segment: Int[Array, "B T"] | None,
    k_segment: Int[Array, "B U"] | None,
    time: Int[Array, " T"] | None = None,
    k_time: Int[Array, " U"] | None = None,
) -> Bool[Array, "X T U"]:
    """Which query sees which key: those of its segment, and with `time` those of its time or earlier.

    Segments or `time` may be None, but not both. `k_time`: the keys' times, where they are not `time`.
    """
    earlier = None if time is None else ((time if k_time is None else k_time)[None, :] <= time[:, None])[None]
    if q_segment is None or k_segment is None:
        return earlier
    same = (q_segment[:, :, None] == k_segment[:, None, :]) & (q_segment != 0)[:, :, None]
    return same if earlier is None else same & earlier
