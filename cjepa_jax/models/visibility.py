"""What attention kernels share: which token sees which, and the block of the TPU kernel."""

from jaxtyping import Bool, Int

from cjepa_jax.types import Array

BLOCK = 128  # tokens that the TPU kernel works on at a time


def visibility(q_segment: Int[Array, "B T"], k_segment: Int[Array, "B U"]) -> Bool[Array, "B T U"]:
    """Which query sees which key."""
    return (q_segment[:, :, None] == k_segment[:, None, :]) & (q_segment != 0)[:, :, None]
