"""Networks of ACT-JEPA: a context of frames, and learned queries that it answers."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from cjepa_jax import positions
from cjepa_jax.models.layers import NORMAL, Dense
from cjepa_jax.models.transformer import Stack
from cjepa_jax.types import Array


class Context(nn.Module):
    """Blocks over the tokens of some frames and the agent's state: what ACT-JEPA calls s_x.

    Each frame of the k, such as the present one and the goal, has a learned code. The state is one more token.

    Attributes: depth, heads.
    """

    depth: int = 1
    heads: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B k M D"], proprio: Float[Array, "B S"] | None = None
    ) -> Float[Array, "B L D"]:
        scenes, frames, _, width = tokens.shape
        x = tokens + self.param("frames", NORMAL, (frames, 1, width))
        x = x.reshape(scenes, -1, width)
        if proprio is not None:
            x = jnp.concatenate([x, Dense(width, self.dtype, name="state")(proprio)[:, None]], axis=1)
        return Stack(self.depth, self.heads, dtype=self.dtype, name="stack")(x)


class Queries(nn.Module):
    """The answers at each place of a grid, float32 [B, N, out], from a context [B, L, D].

    A query is a learned vector plus the fixed code of its place. Queries and context attend to each other.

    Attributes: out. grid: (times, rows, cols), N places. depth, width, heads of the blocks.
    """

    out: int
    grid: tuple[int, int, int]
    depth: int = 2
    width: int = 48
    heads: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, context: Float[Array, "B L D"]) -> Float[Array, "B N {self.out}"]:
        codes = positions.sincos(self.grid, self.width)
        queries = self.param("query", NORMAL, (self.width,)) + codes
        known = Dense(self.width, self.dtype, name="embed")(context).astype(jnp.float32)
        x = jnp.concatenate([known, jnp.broadcast_to(queries, (len(known), *queries.shape))], axis=1)
        x = Stack(self.depth, self.heads, dtype=self.dtype, name="stack")(x)
        return Dense(self.out, self.dtype, result=jnp.float32, name="out")(x[:, -len(codes) :])
