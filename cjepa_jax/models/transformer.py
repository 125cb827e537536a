"""Pre-norm blocks and the scanned stack of them."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from cjepa_jax import sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.layers import CrossAttention, LayerNorm, Mlp, SelfAttention
from cjepa_jax.models.matmul import product
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

    With `cross`, also x + cross-attention(norm(x)) between them. With `condition`, both norms are scaled and shifted by
    an affine map of silu(condition), norm(x) (1 + scale) + shift. "adaln" also scales both updates, by 1 + gate. The
    map starts at 0, so a fresh block is the block without condition. With `layer_scale` above 0 each component of both
    updates is multiplied by a learned number that starts there. The arguments of the call are those of `Stack`.
    """

    heads: int
    gelu: str = "exact"
    cross: bool = False
    dtype: DTypeLike = jnp.float32
    units: int = 0
    epsilon: float = 1e-6
    condition: str = "none"
    emits: bool = False
    layer_scale: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | Int[Array, " B"] | None,
        other: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None,
        rotation: Float[Array, "X T 2 M"] | None,
        condition: Float[Array, "B Y C"] | None = None,
        time: Int[Array, " T"] | None = None,
    ):
        x = sharding.pin(x, sharding.SCENES, None, None)
        first, second = self._modulations(condition, x.shape[-1])
        y = first(self._norm("norm1", x))
        y = SelfAttention(self.heads, self.dtype, name="attention")(y, segment, rotation, time)
        x = x + first.gated(self._scaled("scale1", y))
        if self.cross:
            y = self._norm("norm_cross", x)
            x = x + CrossAttention(self.heads, self.dtype, name="cross")(y, y, *other, rotation)
        y = Mlp(self.units, self.gelu, self.dtype, name="mlp")(second(self._norm("norm2", x)))
        x = x + second.gated(self._scaled("scale2", y))
        return x, x if self.emits else None

    def _scaled(self, name, update):
        """LayerScale (arXiv 2103.17239)."""
        if not self.layer_scale:
            return update
        return update * self.param(name, nn.initializers.constant(self.layer_scale), update.shape[-1:])

    def _norm(self, name, x):
        return LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)(x)

    def _modulations(self, condition, width):
        """Of the attention and of the MLP."""
        if self.condition == "none":
            return Modulation(), Modulation()
        each = 3 if self.condition == "adaln" else 2
        kernel = self.param("modulation_kernel", nn.initializers.zeros, (condition.shape[-1], 2 * each * width))
        bias = self.param("modulation_bias", nn.initializers.zeros, (2 * each * width,))
        parts = product("btc,cd->btd", nn.silu(condition), kernel, self.dtype) + bias
        parts = jnp.split(parts.astype(self.dtype), 2 * each, axis=-1)
        return Modulation(*parts[:each]), Modulation(*parts[each:])


class Modulation(NamedTuple):
    """What a condition does to a norm and to an update, [B, T or 1, D] each. None: nothing."""

    shift: Array | None = None
    scale: Array | None = None
    gate: Array | None = None

    def __call__(self, x: Array) -> Array:
        return x if self.scale is None else x * (1 + self.scale) + self.shift

    def gated(self, update: Array) -> Array:
        return update if self.gate is None else update * (1 + self.gate)


class Stack(nn.Module):
    """`depth` blocks under one scan (one compiled body, parameters with a leading layer axis), then a norm.

    `units` of each MLP (0: 4 D). `epsilon` of every norm. `condition`: "none", "adaln" or "film" (see Block). `causal`:
    "none", "token" (a token sees none after it) or "frame" (none of a later time). `levels`: numbers of blocks from 0,
    whose outputs are returned side by side, each after a separate norm. (): the last block's. `layer_scale`: see Block.

    Args of the call:
      x: [B, T, D].
      segment: int32 [B, T] or lengths [B] or None, who attends to whom within the self-attention: see attention.
      other: with `cross`, (query ids, key ids), each int32 [B, T], of the cross-attention. Otherwise None.
      rotation: [B or 1, T, 2, M] float32 or None, of queries and keys (see position_encoding).
      condition: [B, T, C], or [B, 1, C] for all tokens alike, with `condition`.
      time: int32 [T], each token's frame, with causal = "frame".
    Returns: [B, T, D], or [B, T, len(levels) D].
    Raises: ConfigError for an unknown option, or a level that does not exist.
    """

    depth: int
    heads: int
    gelu: str = "exact"
    remat: str = "none"
    cross: bool = False
    dtype: DTypeLike = jnp.float32
    units: int = 0
    epsilon: float = 1e-6
    condition: str = "none"
    causal: str = "none"
    levels: tuple[int, ...] = ()
    layer_scale: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        segment: Int[Array, "B T"] | Int[Array, " B"] | None = None,
        other: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None = None,
        rotation: Float[Array, "X T 2 M"] | None = None,
        condition: Float[Array, "B Y C"] | None = None,
        time: Int[Array, " T"] | None = None,
    ) -> Float[Array, "B T E"]:
        self._check(condition, time)
        block = Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=False)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast,) * 5,
            length=self.depth,
            unroll=self.depth if self._unrolled() else 1,
            # Nothing is broadcast out of a block, so one trace is enough. Fresh parameters are drawn as they ever were.
            check_constancy_invariants=self.is_initializing(),
        )(
            self.heads,
            self.gelu,
            self.cross,
            dtype=self.dtype,
            units=self.units,
            epsilon=self.epsilon,
            condition=self.condition,
            emits=bool(self.levels),
            layer_scale=self.layer_scale,
            name="blocks",
        )
        limits = condition, jnp.arange(x.shape[1]) if self.causal == "token" else time
        x, outputs = blocks(x, segment, other, rotation, *limits)
        if not self.levels:
            return LayerNorm(epsilon=self.epsilon, dtype=jnp.float32, name="norm")(x)
        norms = [LayerNorm(epsilon=self.epsilon, dtype=jnp.float32, name=f"norm{i}") for i in range(len(self.levels))]
        return jnp.concatenate([norm(outputs[i]) for norm, i in zip(norms, self.levels, strict=True)], axis=-1)

    def _check(self, condition, time):
        for name, value, choices in (
            ("condition", self.condition, ("none", "adaln", "film")),
            ("causal", self.causal, ("none", "frame", "token")),
        ):
            if value not in choices:
                raise ConfigError(f"{name} = {value!r}: must be one of {', '.join(choices)}")
        if any(not 0 <= level < self.depth for level in self.levels):
            raise ConfigError(f"levels = {self.levels}: must be numbers of blocks, 0 to {self.depth - 1}")
        if (self.condition == "none") != (condition is None):
            raise ConfigError(f"condition = {self.condition!r}: a condition must be given with adaln and film only")
        if (self.causal == "frame") != (time is not None):
            raise ConfigError(f"causal = {self.causal!r}: the tokens' times must be given with causal = 'frame' only")

    def _unrolled(self) -> bool:
        """Whether each block is compiled separately. A CPU then does not copy what a scan saves, layer by layer, for
        the backward pass, which takes a tenth of a step. Deeper stacks would compile for too long. With `remat`, XLA
        may merge the recomputation of unrolled blocks with the first computation. Several devices keep one body to
        divide.
        """
        one = jax.default_backend() == "cpu" and jax.device_count() == 1
        return one and self.remat == "none" and self.depth <= UNROLLED
