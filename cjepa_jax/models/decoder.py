"""The narrow Transformer that paints hidden pixels (arXiv 2111.06377, section 3)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from cjepa_jax.models.layers import Dense
from cjepa_jax.models.transformer import Stack
from cjepa_jax.positions import sincos
from cjepa_jax.types import Array


class Decoder(nn.Module):
    """Decodes on the whole grid: context tokens at their places, one learned mask token at the others.

    Attributes: depth, width, heads (the paper's by default). out: values per token. gelu, remat, dtype as the
    encoder's.
    """

    depth: int = 8
    width: int = 512
    heads: int = 16
    out: int = 768
    gelu: str = "exact"
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N D"], context: Bool[Array, "B N"], grid: tuple[int, int, int]
    ) -> Float[Array, "B N {self.out}"]:
        """Encoded context tokens [B, N, D] (other positions are not read), context bool [B, N] -> [B, N, out],
        float32."""
        mask_token = self.param("mask_token", nn.initializers.truncated_normal(0.02), (self.width,))
        x = Dense(self.width, self.dtype, name="embed")(tokens)
        x = jnp.where(context[..., None], x.astype(jnp.float32), mask_token) + sincos(grid, self.width)
        x = Stack(self.depth, self.heads, self.gelu, self.remat, dtype=self.dtype, name="stack")(x)
        return Dense(self.out, self.dtype, result=jnp.float32, name="pixels")(x)
