"""Pre-norm blocks and the scanned stack of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from cjepa_jax import sharding
from cjepa_jax.models.layers import CrossAttention, LayerNorm, Mlp, SelfAttention
from cjepa_jax.types import Array

# Recomputed in the backward pass: nothing, everything except the matrix products, or everything.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": jax.checkpoint_policies.nothing_saveable,
}
UNROLLED = 12  # blocks


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with sums in float32 for every compute type.

    With `cross`, also x + cross-attention(norm(x)) between them. The arguments of the call are those of `Stack`.
    """

    heads: int
    gelu: str = "exact"
    cross: bool = False
    dtype: DTypeLike = jnp.float32
    units: int = 0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | None,
        other: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None,
        rotation: Float[Array, "X T 2 M"] | None,
    ):
        x = sharding.pin(x, sharding.SCENES, None, None)
        x = x + SelfAttention(self.heads, self.dtype, name="attention")(self._norm("norm1", x), segment, rotation)
        if self.cross:
            y = self._norm("norm_cross", x)
            x = x + CrossAttention(self.heads, self.dtype, name="cross")(y, y, *other, rotation)
        x = x + Mlp(self.units, self.gelu, self.dtype, name="mlp")(self._norm("norm2", x))
        return x, None

    def _norm(self, name, x):
        return LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)(x)


class Stack(nn.Module):
    """`depth` blocks under one scan (one compiled body, parameters with a leading layer axis), then a norm.

    `units` of each MLP (0: 4 D). `epsilon` of every norm.

    Args of the call:
      x: [B, T, D].
      segment: int32 [B, T] or None, who attends to whom within the self-attention.
      other: with `cross`, (query ids, key ids), each int32 [B, T], of the cross-attention. Otherwise None.
      rotation: [B or 1, T, 2, M] float32 or None, of queries and keys (see position_encoding).
    Returns: [B, T, D].
    """

    depth: int
    heads: int
    gelu: str = "exact"
    remat: str = "none"
    cross: bool = False
    dtype: DTypeLike = jnp.float32
    units: int = 0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | None = None,
        other: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None = None,
        rotation: Float[Array, "X T 2 M"] | None = None,
    ) -> Float[Array, "B T D"]:
        block = Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=False)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.depth if self._unrolled() else 1,
            # Nothing is broadcast out of a block, so one trace is enough. Fresh parameters are drawn as they ever were.
            check_constancy_invariants=self.is_initializing(),
        )(self.heads, self.gelu, self.cross, dtype=self.dtype, units=self.units, epsilon=self.epsilon, name="blocks")
        x, _ = blocks(x, segment, other, rotation)
        return LayerNorm(epsilon=self.epsilon, dtype=jnp.float32, name="norm")(x)

    def _unrolled(self) -> bool:
        """Whether each block is compiled separately. A CPU then does not copy what a scan saves, layer by layer, for
        the backward pass, which takes a tenth of a step. Deeper stacks would compile for too long. With `remat`, XLA
        may merge the recomputation of unrolled blocks with the first computation. Several devices keep one body to
        divide.
        """
        one = jax.default_backend() == "cpu" and jax.device_count() == 1
        return one and self.remat == "none" and self.depth <= UNROLLED
