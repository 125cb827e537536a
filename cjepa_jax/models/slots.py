"""Slots that compete for a scene's tokens and explain them: objects found without masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Key

from cjepa_jax.models.layers import Dense, LayerNorm
from cjepa_jax.models.matmul import product
from cjepa_jax.positions import sincos
from cjepa_jax.types import Array


def hard(masks: Float[Array, "B K N"]) -> Bool[Array, "B K N"]:
    """Each token's slot of the largest mask (the first of equals): soft [B, K, N] -> bool [B, K, N], one per token."""
    return jnp.arange(masks.shape[1])[:, None] == jnp.argmax(masks, axis=1)[:, None]


def compete(
    logits: Float[Array, "B K N"], values: Float[Array, "B N S"], epsilon: float
) -> tuple[Float[Array, "B K S"], Float[Array, "B K N"]]:
    """Each slot's mean of the values by its attention (+ epsilon), and the attention, a softmax over slots."""
    attention = jax.nn.softmax(logits, axis=1)
    share = attention + epsilon
    return jnp.einsum("bkn,bns->bks", share / share.sum(-1, keepdims=True), values), attention


class SlotAttention(nn.Module):
    """Algorithm 1 of slot attention (arXiv 2006.15055).

    Attributes: iterations, which share their weights. hidden: width of the MLP. dtype of the projections' products
    (softmax, norms and slots are float32). Keys and values have the width of the slots.
    """

    iterations: int = 3
    hidden: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N D"], slots: Float[Array, "B K S"]
    ) -> tuple[Float[Array, "B K S"], Float[Array, "B K N"]]:
        """Tokens [B, N, D] and initial slots [B, K, S] -> slots and the last attention [B, K, N], which adds up to 1
        over the slots at every token."""
        width = slots.shape[-1]
        # With the initialisation of models.layers.Dense all logits would start nearly equal.
        project = {name: nn.Dense(width, use_bias=False, dtype=self.dtype, name=name) for name in ("q", "k", "v")}
        gru = nn.GRUCell(width, name="gru")
        mlp = nn.Sequential([nn.Dense(self.hidden, dtype=self.dtype), nn.relu, nn.Dense(width, dtype=self.dtype)])
        norm_slots, norm_mlp = LayerNorm(name="norm_slots"), LayerNorm(name="norm_mlp")

        tokens = LayerNorm(name="norm_tokens")(tokens)
        keys, values = project["k"](tokens), project["v"](tokens)
        for _ in range(self.iterations):
            logits = jnp.einsum("bks,bns->bkn", project["q"](norm_slots(slots)), keys).astype(jnp.float32)
            updates, attention = compete(logits / jnp.sqrt(width), values.astype(jnp.float32), 1e-8)
            slots, _ = gru(slots, updates)
            slots = slots + mlp(norm_mlp(slots)).astype(jnp.float32)
        return slots, attention


class Slots(nn.Module):
    """Slots and the decoder that reconstructs the tokens from them (DINOSAUR, arXiv 2209.14860, its MLP decoder).

    One MLP decodes every slot at every place, from slot + position, into a token and a weight. The softmax of the
    weights over slots mixes the tokens and is the segmentation. Positions are sin-cos codes (there: learned).

    Attributes: count, width, iterations of the slots. hidden: width of the MLPs. layers: hidden layers of the decoder's
    MLP (there: 3, of width 1024 and more). dtype.
    """

    count: int = 7
    width: int = 64
    iterations: int = 3
    hidden: int = 128
    layers: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N D"], grid: tuple[int, int, int], key: Key[Array, ""]
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B K N"]]:
        """Tokens [B, N, D] -> their reconstruction from the slots, and soft masks [B, K, N] that add up to 1 over
        slots.

        `key` draws the initial slots from one learned normal distribution, so any slot may take any object.
        """
        batch, places, width = tokens.shape
        mean = self.param("mean", nn.initializers.normal(0.02), (self.width,))
        log_std = self.param("log_std", nn.initializers.zeros, (self.width,))
        slots = mean + jnp.exp(log_std) * jax.random.normal(key, (batch, self.count, self.width))
        slots, _ = SlotAttention(self.iterations, self.hidden, self.dtype, name="attention")(tokens, slots)

        x = Dense(self.width, name="position")(jnp.asarray(sincos(grid, self.width)))
        x = (slots[:, :, None] + x).reshape(-1, self.width)  # [B K N, S]
        for _ in range(self.layers):
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x))
        x = nn.Dense(width + 1, dtype=self.dtype, dot_general=_wide)(x).reshape(batch, self.count, places, width + 1)
        masks = jax.nn.softmax(x[..., -1], axis=1)
        return jnp.einsum("bkn,bknd->bnd", masks, x[..., :-1]), masks


def _wide(x, kernel, *_, **__):
    """A dense layer's product. Its float32 sums are not rounded to the compute type, because the output is in the
    loss."""
    return product("mk,kn->mn", x, kernel, x.dtype)
