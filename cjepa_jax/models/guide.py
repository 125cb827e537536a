"""From a slow stream of embeddings to the condition of each token of a clip."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from cjepa_jax.models.layers import GELU, NORMAL, Dense, LayerNorm
from cjepa_jax.types import Array


class Guide(nn.Module):
    """Conditions [B, N, width] of a grid's tokens from embeddings [B, S, E], two streams of different rates.

    The S steps, at most as many as the grid's times, divide them evenly, and a token's time has one of them. Each step
    is projected without a bias. A norm and an MLP of `hidden` units join the mean of all steps with the token's own.
    """

    width: int = 96
    hidden: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "B S E"], grid: tuple[int, int, int]
    ) -> Float[Array, "B N {self.width}"]:
        times, rows, cols = grid
        steps = embedding.shape[1]
        kernel = self.param("project", NORMAL, (embedding.shape[-1], self.width))
        known = embedding.astype(jnp.float32) @ kernel
        own = known[:, jnp.arange(times) * steps // times]
        mean = jnp.broadcast_to(known.mean(1, keepdims=True), own.shape)
        x = LayerNorm(dtype=self.dtype, name="norm")(jnp.concatenate([mean, own], axis=-1))
        x = GELU["exact"](Dense(self.hidden, self.dtype, name="up")(x))
        return jnp.repeat(Dense(self.width, self.dtype, name="down")(x), rows * cols, axis=1)
