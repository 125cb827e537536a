"""Dense layers, norm, MLP and multi-head attention."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from cjepa_jax.models.attention import attention
from cjepa_jax.models.product import product
from cjepa_jax.types import Array

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6)  # statistics in float32 whatever the compute type
GELU = {"exact": functools.partial(jax.nn.gelu, approximate=False), "tanh": jax.nn.gelu}


class Dense(nn.Module):
    """x [..., in] -> [..., features], truncated normal 0.02, zero bias.

    The input is flattened to two axes first: XLA:CPU computes the weight gradient of a 3-D input several times slower.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch {self.features}"]:
        kernel = self.param("kernel", nn.initializers.truncated_normal(0.02), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        out = product("mk,kn->mn", x.reshape(-1, x.shape[-1]), kernel, self.dtype)
        return (out + bias).astype(self.dtype).reshape(*x.shape[:-1], self.features)


class Mlp(nn.Module):
    """Dense to `ratio` times the width, GELU, Dense back: [..., D] -> [..., D]."""

    ratio: int = 4
    gelu: str = "exact"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        hidden = GELU[self.gelu](Dense(self.ratio * x.shape[-1], self.dtype, name="up")(x))
        return Dense(x.shape[-1], self.dtype, name="down")(hidden)


class SelfAttention(nn.Module):
    """Multi-head attention within segments: x [B, T, D], segment [B, T] or None -> [B, T, D]."""

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], segment: Int[Array, "B T"] | None) -> Float[Array, "B T D"]:
        batch, tokens, width = x.shape
        qkv = Dense(3 * width, self.dtype, name="qkv")(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [B, H, T, d]
        out = attention(q, k, v, segment, segment)
        return Dense(width, self.dtype, name="out")(out.transpose(0, 2, 1, 3).reshape(x.shape))


class CrossAttention(nn.Module):
    """Multi-head attention of x [B, T, D] to the tokens of y [B, U, D] whose segment id equals its own."""

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        y: Float[Array, "B U D"],
        x_segment: Int[Array, "B T"],
        y_segment: Int[Array, "B U"],
    ) -> Float[Array, "B T D"]:
        (batch, tokens, width), others = x.shape, y.shape[1]
        q = Dense(width, self.dtype, name="q")(x).reshape(batch, tokens, self.heads, -1).transpose(0, 2, 1, 3)
        kv = Dense(2 * width, self.dtype, name="kv")(y).reshape(batch, others, 2, self.heads, width // self.heads)
        k, v = kv.transpose(2, 0, 3, 1, 4)
        out = attention(q, k, v, x_segment, y_segment)
        return Dense(width, self.dtype, name="out")(out.transpose(0, 2, 1, 3).reshape(x.shape))
