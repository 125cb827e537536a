"""Pre-norm blocks and the scanned stack of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from cjepa_jax import sharding
from cjepa_jax.models.layers import CrossAttention, LayerNorm, Mlp, SelfAttention
from cjepa_jax.types import Array

# What the backward pass recomputes: nothing, all but the matrix products, everything.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), the sums in float32 whatever the compute type.

    With `cross`, also x + cross-attention(norm(x)) between them. The arguments of the call are those of `Stack`.
    """

    heads: int
    gelu: str = "exact"
    cross: bool = False
    dtype: DTypeLike = jnp.float32
    units: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | None,
        other: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None,
    ):
        x = sharding.pin(x, sharding.SCENES, None, None)
        x = x + SelfAttention(self.heads, self.dtype, name="attention")(self._norm("norm1", x), segment)
        if self.cross:
            y = self._norm("norm_cross", x)
            x = x + CrossAttention(self.heads, self.dtype, name="cross")(y, y, *other)
        x = x + Mlp(self.units, self.gelu, self.dtype, name="mlp")(self._norm("norm2", x))
        return x, None

    def _norm(self, name, x):
        return LayerNorm(dtype=self.dtype, name=name)(x)


class Stack(nn.Module):
    """`depth` blocks under one scan (one compiled body; parameters get a leading layer axis), then a norm.

    `units` of each MLP; 0: 4 D.

    Args of the call:
      x: [B, T, D].
      segment: int32 [B, T] or None, who attends to whom within the self-attention.
      other: with `cross`, (query ids, key ids), each int32 [B, T], of the cross-attention; else None.
    Returns: [B, T, D].
    """

    depth: int
    heads: int
    gelu: str = "exact"
    remat: str = "none"
    cross: bool = False
    dtype: DTypeLike = jnp.float32
    units: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | None = None,
        other: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None = None,
    ) -> Float[Array, "B T D"]:
        block = Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=False)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.depth,
        )
        x, _ = blocks(self.heads, self.gelu, self.cross, self.dtype, self.units, name="blocks")(x, segment, other)
        return LayerNorm(dtype=jnp.float32, name="norm")(x)
