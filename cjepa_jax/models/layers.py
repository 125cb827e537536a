"""Dense layers, norm, MLP and multi-head attention."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from cjepa_jax import sharding
from cjepa_jax.models.attention import attention, einsum
from cjepa_jax.models.matmul import biased, of_layer
from cjepa_jax.models.position_encoding import rotate
from cjepa_jax.models.visibility import ids
from cjepa_jax.types import Array

Initializer = jax.nn.initializers.Initializer
WEIGHTS = "attention_weights"  # a collection of variables
DEVIATION = 0.02
NORMAL = nn.initializers.truncated_normal(DEVIATION)
LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6)  # statistics in float32 for every compute type


def _gelu(x: Array, approximate: bool) -> Array:
    """In float32 for every compute type, because a CPU would round every term to bfloat16, which takes longer."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=approximate).astype(x.dtype)


GELU = {"exact": functools.partial(_gelu, approximate=False), "tanh": functools.partial(_gelu, approximate=True)}


class Dense(nn.Module):
    """x [..., in] -> [..., features], truncated normal 0.02, zero bias.

    Attributes: features. dtype of the product. axis: the mesh axis that divides the features (see sharding). result:
    the type of the output, None for `dtype`. Inputs of a loss keep the float32 in which the product is accumulated.
    Others leave it in `dtype` on an accelerator (see matmul.of_layer).
    kernel_init: another initialiser of the kernel.

    The input is flattened to two axes first: XLA:CPU computes the weight gradient of a 3-D input several times slower.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    axis: str | None = None
    result: DTypeLike | None = None
    kernel_init: Initializer = NORMAL

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch {self.features}"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        dtype = self.dtype if self.result is None else self.result
        out = of_layer("mk,kn->mn", x.reshape(-1, x.shape[-1]), kernel, self.dtype, dtype)
        out = sharding.pin(out, sharding.SCENES, self.axis)
        return biased(out, bias, dtype).reshape(*x.shape[:-1], self.features)


class Heads(nn.Module):
    """A Dense layer to `parts` (query, key, value) of every head: x [B, T, D] -> [parts, B, H, T, D/H]."""

    parts: int
    heads: int
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = NORMAL

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "{self.parts} B {self.heads} T d"]:
        width, split = x.shape[-1], (self.parts, self.heads, x.shape[-1] // self.heads)
        kernel = self.param("kernel", self.kernel_init, (width, self.parts * width))
        bias = self.param("bias", nn.initializers.zeros, (self.parts * width,))
        x2 = x.reshape(-1, width)
        if sharding.divided("tensor"):  # by heads: the flat kernel's columns have another order
            kernel, bias = sharding.pin(kernel, "tensor", None).reshape(width, *split), bias.reshape(split)
            kernel, spec = sharding.pin(kernel, None, None, "tensor", None), "mk,kphd->mphd"
            out = of_layer(spec, x2, kernel, self.dtype, self.dtype)
        else:
            out = sharding.pin(of_layer("mk,kn->mn", x2, kernel, self.dtype, self.dtype), sharding.SCENES, None)
        out = biased(out, bias, self.dtype).reshape(*x.shape[:2], *split).transpose(2, 0, 3, 1, 4)
        return sharding.pin(out, None, sharding.SCENES, "tensor")


def _parts(x):
    """x[0], x[1], ..., with one concatenation as their gradient instead of a sum of zero-padded arrays."""
    return [part[0] for part in jnp.split(x, len(x))]


class Mlp(nn.Module):
    """Dense to `units` (0: 4 times the width), GELU, Dense back: [..., D] -> [..., D]."""

    units: int = 0
    gelu: str = "exact"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        hidden = GELU[self.gelu](Dense(self.units or 4 * x.shape[-1], self.dtype, "tensor", name="up")(x))
        return Dense(x.shape[-1], self.dtype, name="down")(hidden)


class SelfAttention(nn.Module):
    """Multi-head attention within segments: x [B, T, D], segment [B, T] or lengths [B] or None -> [B, T, D].

    `rotation` [B or 1, T, 2, M] turns queries and keys (see position_encoding). `time` int32 [T]: a token sees none of
    a later time. Where the collection WEIGHTS is mutable, the weights [B, H, T, T] are put into it."""

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | Int[Array, " B"] | None,
        rotation: Float[Array, "X T 2 M"] | None = None,
        time: Int[Array, " T"] | None = None,
    ) -> Float[Array, "B T D"]:
        q, k, v = _parts(Heads(3, self.heads, self.dtype, name="qkv")(x))  # each [B, H, T, d]
        q, k = rotate(q, rotation), rotate(k, rotation)
        if self.is_mutable_collection(WEIGHTS) and not self.is_initializing():  # asked for by models.inside alone
            one = jnp.broadcast_to(jnp.eye(x.shape[1], dtype=q.dtype), (*q.shape[:2], x.shape[1], x.shape[1]))
            own = ids(segment, x.shape[1])
            self.sow(WEIGHTS, "weights", einsum(q, k, one, own, own, time=time))
        out = attention(q, k, v, segment, segment, time=time)
        return Dense(x.shape[-1], self.dtype, name="out")(out.transpose(0, 2, 1, 3).reshape(x.shape))


class CrossAttention(nn.Module):
    """Multi-head attention of x [B, T, D] to the tokens of y [B, U, D] whose segment id equals its own.

    `rotation` [B or 1, T, 2, M] turns queries and keys (see position_encoding). Then U = T.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        y: Float[Array, "B U D"],
        x_segment: Int[Array, "B T"],
        y_segment: Int[Array, "B U"],
        rotation: Float[Array, "X T 2 M"] | None = None,
    ) -> Float[Array, "B T D"]:
        (q,) = Heads(1, self.heads, self.dtype, name="q")(x)
        k, v = _parts(Heads(2, self.heads, self.dtype, name="kv")(y))
        out = attention(rotate(q, rotation), rotate(k, rotation), v, x_segment, y_segment)
        return Dense(x.shape[-1], self.dtype, name="out")(out.transpose(0, 2, 1, 3).reshape(x.shape))
