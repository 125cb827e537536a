"""The masked slot predictor of Causal-JEPA on object slots (arXiv 2602.11389, section 4, and its published code)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from cjepa_jax import sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.layers import GELU, Dense, Heads, LayerNorm
from cjepa_jax.models.matmul import product
from cjepa_jax.types import Array

EPSILON = 1e-5  # of every norm, as in the published code
FAN_IN = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's of a linear layer
CLOSED = 1e-9  # the factor of an edge that is closed: its logarithm is finite
XAVIER = nn.initializers.xavier_uniform()  # PyTorch's of the joint query, key and value


class SlotBlock(nn.Module):
    """x + attention(x), then x + mlp(norm(x)): the published block, without a norm before the attention.

    norm_attention: True for a pre-norm block, x + attention(norm(x)). units: of the MLP. dropout: of the attention
    weights, and of the MLP's two layers.
    """

    heads: int
    units: int
    norm_attention: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        present: Bool[Array, "B N"] | None,
        train: bool = False,
        bias: Float[Array, "B N N"] | None = None,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N N"]]:
        """The tokens after the block, and the attention weights of each query (axis 1), averaged over heads.

        bias: is added to the logits of all heads.
        """
        x = sharding.pin(x, sharding.SCENES, None, None)
        y = LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm1")(x) if self.norm_attention else x
        y, weights = self._attention(y, present, train, bias)
        x = x + y
        y = LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm2")(x)
        y = GELU["exact"](Dense(self.units, self.dtype, "tensor", kernel_init=FAN_IN, name="up")(y))
        y = Dense(x.shape[-1], self.dtype, kernel_init=FAN_IN, name="down")(self._drop(y, train))
        return x + self._drop(y, train), weights

    def _attention(self, x, present, train, bias):
        """Not models.attention: slots are few, and the weights are a result."""
        q, k, v = Heads(3, self.heads, self.dtype, kernel_init=XAVIER, name="qkv")(x)  # each [B, H, N, d]
        logits = product("bhtd,bhud->bhtu", q, k, q.dtype) * q.shape[-1] ** -0.5
        if bias is not None:
            logits = logits + bias[:, None]
        if present is not None:
            logits = jnp.where(present[:, None, None], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits.astype(jnp.float32))
        y = product("bhtu,bhud->bhtd", self._drop(weights, train), v, v.dtype).astype(v.dtype)
        y = y.transpose(0, 2, 1, 3).reshape(x.shape)
        return Dense(x.shape[-1], self.dtype, kernel_init=FAN_IN, name="out")(y), weights.mean(1)

    def _drop(self, x, train):
        return nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x


class SlotPredictor(nn.Module):
    """Predicts hidden slots from visible ones in one pass: T frames of S tokens of width D.

    A visible token is its slot plus the code of its time. A hidden one is a learned vector plus the code of its time
    plus a linear map of the slot's first frame, the identity anchor. There is no code of the slot's index, so the
    predictor is equivariant to a permutation of slots. Proprioception and action are further tokens of a frame.

    Attributes:
      frames: history + future, the number of time codes. Fewer frames take the last ones, as the published inference.
      depth, heads, units: of the blocks. The width is the slots'.
      norm_attention: False for the published block, True for a pre-norm block.
      dropout: of training. 0 by default, 0.1 in the published code.
    Raises: ConfigError for more frames than time codes, and for heads that do not divide the width.
    """

    frames: int
    depth: int = 6
    heads: int = 16
    units: int = 2048
    norm_attention: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        slots: Float[Array, "B T S D"],
        visible: Bool[Array, "B T S"],
        present: Bool[Array, "B T S"] | None = None,
        train: bool = False,
        edges: Float[Array, "B S S"] | None = None,
    ) -> tuple[Float[Array, "B T S D"], dict[str, Array]]:
        """The prediction at every token, float32, trained at hidden ones.

        Args:
          slots: values at hidden tokens have no influence. Those of the first frame are always seen.
          visible: which tokens are seen.
          present: tokens that exist. No token attends to the others. None: all exist.
          train: with dropout, which needs the random key "dropout".
          edges: factors in [0, 1] of the attention of slot i (axis 1) to slot j, in every block before the softmax.
            With 0 it does not attend to it. None: all are 1.
        Returns: the prediction, and intermediate values: "tokens" [B, T, S, D] as they enter the blocks, "attention"
          [depth, B, T S, T S], a query's weights along the last axis, averaged over heads. Tokens are time-major.
        """
        batch, frames, count, width = slots.shape
        self._check(frames, width)
        tokens = self.tokens(slots.astype(jnp.float32), visible)
        x = tokens.reshape(batch, frames * count, width)
        keys = None if present is None else present.reshape(batch, frames * count)
        bias = None if edges is None else jnp.tile(jnp.log(jnp.maximum(edges, CLOSED)), (1, frames, frames))
        attention = []
        for i in range(self.depth):
            block = SlotBlock(
                self.heads, self.units, self.norm_attention, dropout=self.dropout, dtype=self.dtype, name=f"block{i}"
            )
            x, weights = block(x, keys, train, bias)
            attention.append(weights)
        x = LayerNorm(epsilon=EPSILON, dtype=jnp.float32, name="norm")(x)
        x = Dense(width, self.dtype, kernel_init=FAN_IN, result=jnp.float32, name="prediction")(x)
        return x.reshape(slots.shape), {"tokens": tokens, "attention": jnp.stack(attention)}

    def tokens(self, slots: Float[Array, "B T S D"], visible: Bool[Array, "B T S"]) -> Float[Array, "B T S D"]:
        """The input of the first block."""
        width, frames = slots.shape[-1], slots.shape[1]
        mask_token = self.param("mask_token", nn.initializers.truncated_normal(0.02), (width,))
        positions = self.param("positions", nn.initializers.normal(1.0), (self.frames, width))
        anchor = Dense(width, self.dtype, kernel_init=FAN_IN, result=jnp.float32, name="anchor")(slots[:, :1])
        x = jnp.where(visible[..., None], slots, mask_token + anchor)
        return x + positions[-frames:, None]

    def _check(self, frames, width):
        if frames > self.frames:
            raise ConfigError(f"objective.history + objective.future = {self.frames}: must be at least {frames} frames")
        if width % self.heads:
            raise ConfigError(
                f"objective.slot_predictor.heads = {self.heads}: must divide the width of the slots, {width}"
            )


class Auxiliary(nn.Module):
    """A linear map of an agent's array to the width of the slots, [..., A] -> [..., width], float32."""

    width: int

    @nn.compact
    def __call__(self, values: Float[Array, "*batch A"]) -> Float[Array, "*batch {self.width}"]:
        kernel = self.param("kernel", FAN_IN, (values.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return values.astype(jnp.float32) @ kernel + bias
