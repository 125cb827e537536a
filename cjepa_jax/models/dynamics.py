"""Predictors of world models: from latents and actions to the next latents.

Each is a flax module called with latents [B, t, D] (or [B, t, M, D] of M tokens per frame), actions [B, t, A] and the
agent's state [B, t, S] or None. Its output has the latents' shape: at i, the prediction of what follows latent i after
action i. It depends on nothing later than i.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from cjepa_jax import positions
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.attention import attention
from cjepa_jax.models.layers import GELU, Dense
from cjepa_jax.models.matmul import product
from cjepa_jax.models.transformer import Stack
from cjepa_jax.types import Array


class ActionEncoder(nn.Module):
    """Dense to `mixed` numbers (0: A), Dense to 4 D, SiLU, Dense to D, as in LeWorldModel: [B, t, A] -> [B, t, D]."""

    width: int
    dtype: DTypeLike = jnp.float32
    mixed: int = 0

    @nn.compact
    def __call__(self, actions: Float[Array, "B t A"]) -> Float[Array, "B t D"]:
        x = Dense(self.mixed or actions.shape[-1], self.dtype, name="mix")(actions)
        x = nn.silu(Dense(4 * self.width, self.dtype, name="up")(x))
        return Dense(self.width, self.dtype, name="down")(x)


class Modulated(nn.Module):
    """LeWorldModel's block with AdaLN-zero (arXiv 2212.09748): x + gate f(norm(norm(x) (1 + scale) + shift)).

    The outer norm has no parameters (epsilon 1e-6), the inner one has (epsilon 1e-5). f is causal attention without a
    bias of q, k and v, or an MLP. Gates, scales and shifts are linear in SiLU of the condition, and start at 0, so a
    fresh block changes nothing. `head` is the width of a head, and heads x head need not be D.
    """

    heads: int
    head: int
    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B t D"], condition: Float[Array, "B t D"]) -> Float[Array, "B t D"]:
        zero, width = nn.initializers.zeros, x.shape[-1]
        kernel = self.param("modulation_kernel", zero, (condition.shape[-1], 6 * width))
        bias = self.param("modulation_bias", zero, (6 * width,))
        parts = product("btc,cd->btd", nn.silu(condition), kernel, self.dtype) + bias
        shift, scale, gate, shift2, scale2, gate2 = jnp.split(parts, 6, axis=-1)
        x = x + gate * self._attention(_standard(x) * (1 + scale) + shift)
        y = nn.LayerNorm(epsilon=1e-5, name="norm2")(_standard(x) * (1 + scale2) + shift2)
        y = GELU["exact"](Dense(self.hidden, self.dtype, name="up")(y))
        return x + gate2 * Dense(width, self.dtype, result=jnp.float32, name="down")(y)

    def _attention(self, x: Array) -> Array:
        inner, (scenes, times, width) = self.heads * self.head, x.shape
        kernel = self.param("qkv_kernel", nn.initializers.truncated_normal(0.02), (width, 3 * inner))
        x = nn.LayerNorm(epsilon=1e-5, name="norm1")(x)
        x = product("btc,cd->btd", x, kernel, self.dtype).astype(self.dtype)
        q, k, v = x.reshape(scenes, times, 3, self.heads, self.head).transpose(2, 0, 3, 1, 4)
        out = attention(q, k, v, time=jnp.arange(times)).transpose(0, 2, 1, 3).reshape(scenes, times, inner)
        return Dense(width, self.dtype, result=jnp.float32, name="out")(out)


class Causal(nn.Module):
    """LeWorldModel's predictor (arXiv 2603.19312): causal blocks that the action modulates, learned positions.

    Attributes: history, the most frames that it sees. depth, heads, head (width of a head), hidden (of the MLP). mixed:
    see ActionEncoder.
    Raises: ConfigError for more frames.
    """

    history: int = 3
    depth: int = 6
    heads: int = 16
    head: int = 64
    hidden: int = 2048
    mixed: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, latents: Float[Array, "B t D"], actions: Float[Array, "B t A"], proprio: Array | None = None
    ) -> Float[Array, "B t D"]:
        times, width = latents.shape[1:]
        if times > self.history:
            raise ConfigError(f"objective.predictor.history = {self.history}: must be at least {times}, the frames")
        code = ActionEncoder(width, self.dtype, self.mixed, name="action")(actions)
        table = self.param("positions", nn.initializers.normal(1.0), (1, self.history, width))
        x = latents + table[:, :times]
        for index in range(self.depth):
            x = Modulated(self.heads, self.head, self.hidden, self.dtype, name=f"block{index}")(x, code)
        return nn.LayerNorm(epsilon=1e-5, name="norm")(x)


class Interleaved(nn.Module):
    """V-JEPA 2-AC's predictor (arXiv 2506.09985): [action, state, tokens] of each frame, causal by frame.

    Tokens of a frame see everything of their own frame and of earlier ones. Rotary positions by time, row and column.
    Action and state are at row and column 0. Without `proprio` there is no state token. The tokens of a frame are a
    square.

    Attributes: history, the most frames that it sees. depth, width, heads. positions: "rope_tile" (as published, see
    positions.axis_rotation) or "rope". epsilon of the norms.
    """

    history: int = 15
    depth: int = 24
    width: int = 1024
    heads: int = 16
    positions: str = "rope_tile"
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, latents: Float[Array, "B t M D"], actions: Float[Array, "B t A"], proprio: Array | None = None
    ) -> Float[Array, "B t M D"]:
        scenes, times, count, out = latents.shape
        side = round(count**0.5)
        if side**2 != count:
            raise ConfigError(f"objective.latent: a frame has {count} tokens, which must be a square number")
        agent = {"action": actions} | ({} if proprio is None else {"state": proprio})
        inputs = [Dense(self.width, self.dtype, name=name)(values)[:, :, None] for name, values in agent.items()]
        x = jnp.concatenate([*inputs, Dense(self.width, self.dtype, name="embed")(latents)], axis=2)
        each = x.shape[2]  # tokens of a frame
        width, tile = self.width // self.heads, self.positions == "rope_tile"
        alone, placed = (positions.rotations(grid, width, tile) for grid in ((times, 1, 1), (times, side, side)))
        tables = [table.reshape(times, -1, *table.shape[1:]) for table in (*[alone] * len(inputs), placed)]
        rotation = jnp.concatenate(tables, axis=1).reshape(1, times * each, *placed.shape[1:])
        stack = Stack(self.depth, self.heads, dtype=self.dtype, epsilon=self.epsilon, causal="frame", name="stack")
        time = jnp.repeat(jnp.arange(times), each)
        x = stack(x.reshape(scenes, times * each, self.width), rotation=rotation, time=time)
        x = x.reshape(scenes, times, each, self.width)[:, :, len(inputs) :]
        return Dense(out, self.dtype, result=jnp.float32, name="prediction")(x)


class Recurrent(nn.Module):
    """A GRU whose input is the action and whose hidden state is the latent, as in eb_jepa's example of PLDM.

    Attributes: history is 1: the next latent depends on the last one alone.
    """

    dtype: DTypeLike = jnp.float32
    history: int = 1

    @nn.compact
    def __call__(
        self, latents: Float[Array, "B t D"], actions: Float[Array, "B t A"], proprio: Array | None = None
    ) -> Float[Array, "B t D"]:
        cell = nn.GRUCell(latents.shape[-1], dtype=self.dtype, name="cell")
        return cell(latents, actions)[1].astype(jnp.float32)


def _standard(x: Array) -> Array:
    return jax.nn.standardize(x.astype(jnp.float32), axis=-1, epsilon=1e-6)
