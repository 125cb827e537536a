"""Scaled dot-product attention among tokens of equal segment id."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from cjepa_jax.models.product import product
from cjepa_jax.types import Array


def attention(
    q: Float[Array, "B H T d"],
    k: Float[Array, "B H U d"],
    v: Float[Array, "B H U d"],
    q_segment: Int[Array, "B T"] | None = None,
    k_segment: Int[Array, "B U"] | None = None,
) -> Float[Array, "B H T d"]:
    """softmax(q k^T / sqrt(d)) v, softmax in float32.

    Args:
      q, k, v: [B, H, T, d], [B, H, U, d], [B, H, U, d]. Heads come first: on XLA:CPU that is twice as fast as last.
      q_segment, k_segment: int32 [B, T], [B, U]; a query sees the keys of its own id, and id 0 sees nothing and is
        seen by nothing. None: everything sees everything.
    Returns: [B, H, T, d]; a query that sees no key gets zeros (a plain softmax would give it the mean of all values).
    """
    logits = product("bhtd,bhud->bhtu", q, k, q.dtype) * q.shape[-1] ** -0.5
    if q_segment is None:
        weights = jax.nn.softmax(logits)
    else:
        visible = (q_segment[:, :, None] == k_segment[:, None, :]) & (q_segment != 0)[:, :, None]  # [B, T, U]
        visible = visible[:, None]
        weights = jax.nn.softmax(jnp.where(visible, logits, jnp.finfo(jnp.float32).min))
        weights = jnp.where(visible.any(-1, keepdims=True), weights, 0.0)
    return product("bhtu,bhud->bhtd", weights, v, v.dtype).astype(v.dtype)
