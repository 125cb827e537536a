"""VideoSAUR's slot encoder on features of a frozen image encoder (arXiv 2306.04829), and SlotContrast's start of it.

Written from the papers and a description of the public code. Norms have PyTorch's epsilon, products are float32.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from cjepa_jax.models.layers import Dense
from cjepa_jax.models.slot_encoders import LATENT, Corrector, places
from cjepa_jax.models.slot_predictor import EPSILON, FAN_IN, XAVIER
from cjepa_jax.types import Array, Params


class Block(nn.Module):
    """A pre-norm transformer block with ReLU. With `memory` its queries attend to it instead of to each other.

    As in the public code, logits are multiplied by the square root of a head's width, where transformers divide by it.
    """

    heads: int
    units: int

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], memory: Float[Array, "B M D"] | None = None) -> Float[Array, "B N D"]:
        """The tokens after the block."""
        width = x.shape[-1]
        normed = nn.LayerNorm(epsilon=EPSILON, name="norm1")(x)
        kernel = self.param("qkv_kernel", XAVIER, (width, 3 * width))
        bias = self.param("qkv_bias", nn.initializers.zeros, (3 * width,))
        other = normed if memory is None else memory
        q = normed @ kernel[:, :width] + bias[:width]
        k, v = jnp.split(other @ kernel[:, width:] + bias[width:], 2, -1)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** 0.5)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        x = x + Dense(width, kernel_init=FAN_IN, name="out")(y)
        y = nn.LayerNorm(epsilon=EPSILON, name="norm2")(x)
        y = nn.relu(Dense(self.units, kernel_init=FAN_IN, name="up")(y))
        return x + Dense(width, kernel_init=FAN_IN, name="down")(y)


class Mixer(nn.Module):
    """The slot mixer: queries of places look at all slots, choose a mixture of them, and an MLP decodes it.

    Attributes: places, outputs: of the decoded array. blocks, heads: of the allocator. units: of the MLP's layers.
    """

    places: int
    outputs: int
    blocks: int = 3
    heads: int = 4
    units: Sequence[int] = (1024, 1024, 1024)

    @nn.compact
    def __call__(self, slots: Float[Array, "B K S"]) -> tuple[Float[Array, "B N D"], Float[Array, "B K N"]]:
        """The decoded array [B, N, outputs], and the share of each slot at each place, which adds up to 1."""
        width = slots.shape[-1]
        positions = self.param("positions", nn.initializers.normal(width**-0.5), (self.places, width))
        memory = nn.LayerNorm(epsilon=EPSILON, name="norm_memory")(slots)
        x = jnp.broadcast_to(positions, (len(slots), *positions.shape))
        for i in range(self.blocks):
            x = Block(self.heads, 4 * width, name=f"block{i}")(x, memory)
        q = nn.Dense(width, use_bias=False, kernel_init=FAN_IN, name="q")(
            nn.LayerNorm(epsilon=EPSILON, name="norm_q")(x)
        )
        k = nn.Dense(width, use_bias=False, kernel_init=FAN_IN, name="k")(
            nn.LayerNorm(epsilon=EPSILON, name="norm_k")(slots)
        )
        shares = jax.nn.softmax(jnp.einsum("bns,bks->bkn", q, k) * width**-0.5, axis=1)
        x = jnp.einsum("bkn,bks->bns", shares, slots) + positions
        for i, count in enumerate(self.units):
            x = nn.relu(Dense(count, kernel_init=FAN_IN, name=f"layer{i}")(x))
        return Dense(self.outputs, kernel_init=FAN_IN, name="output")(x), shares


class PlaceMlp(nn.Module):
    """An MLP that decodes each slot at each place, from slot + position, into values and a logit (DINOSAUR's).

    The softmax of the logits over slots mixes the values. Attributes: as `Mixer`.
    """

    places: int
    outputs: int
    units: Sequence[int] = (1024, 1024, 1024)

    @nn.compact
    def __call__(self, slots: Float[Array, "B K S"]) -> tuple[Float[Array, "B N D"], Float[Array, "B K N"]]:
        """As `Mixer`."""
        width = slots.shape[-1]
        positions = self.param("positions", nn.initializers.normal(width**-0.5), (self.places, width))
        x = slots[:, :, None] + positions
        for i, count in enumerate(self.units):
            x = nn.relu(Dense(count, kernel_init=FAN_IN, name=f"layer{i}")(x))
        x = Dense(self.outputs + 1, kernel_init=FAN_IN, name="output")(x)
        shares = jax.nn.softmax(x[..., -1], axis=1)
        return jnp.einsum("bkn,bknd->bnd", shares, x[..., :-1]), shares


class VideoSaur(nn.Module):
    """Slots of a video from its frames' features [B, T, P, F], and what they say of features and their motion.

    Attributes:
      slots, width: K and S. fixed: False draws the first slots from one learned normal distribution (VideoSAUR). True:
        each of them is learned (SlotContrast).
      embed: units of the features' MLP. hidden: of slot attention's MLP, 0 for none (VideoSAUR).
      first, iterations: of slot attention, in the first frame and in the others.
      heads: of the predictor of the next frame's first slots. blocks, units: of the decoder. decoder: "mixer" (Mixer,
        VideoSAUR's), or "mlp" (PlaceMlp, SlotContrast's), which has no blocks.
      similarity: whether the decoder also gives P logits at each place, of where its content is in the next frame.
      placed: whether a linear map of the place is added to the features, of P = n x n patches. Features of an image
        encoder say where they are. A patch's pixels do not, and a slot could not know where its object is.
    """

    slots: int = 7
    width: int = 128
    fixed: bool = False
    embed: int = 768
    hidden: int = 0
    first: int = 3
    iterations: int = 2
    heads: int = 4
    blocks: int = 3
    units: Sequence[int] = (1024, 1024, 1024)
    similarity: bool = True
    decoder: str = "mixer"
    placed: bool = False

    @nn.compact
    def __call__(
        self, features: Float[Array, "B T P F"], noise: Float[Array, "B K S"] | None = None
    ) -> dict[str, Array]:
        """Values by name.

        Args:
          features: of the image encoder, a token for each patch.
          noise: standard normal, for slots that are drawn. None: 0 for fixed ones. Then equal slots would stay equal.
        Returns: "slots" [B, T, K, S] after each frame, "predicted", the next frame's first ones, "attention"
          [B, T, K, P] of slot attention, "features" [B, T, P, F] and "masks" [B, T, K, P] of the decoder, and with
          `similarity` "logits" [B, T, P, P].
        """
        batch, frames, count, width = features.shape
        x = nn.LayerNorm(epsilon=EPSILON, name="norm_features")(features)
        if self.placed:
            x = x + Dense(width, kernel_init=FAN_IN, name="position")(jnp.asarray(grid(count)))
        x = nn.relu(Dense(self.embed, kernel_init=FAN_IN, name="up")(x))
        x = Dense(self.width, kernel_init=FAN_IN, name="down")(x)
        if self.fixed:
            start = jnp.broadcast_to(
                self.param("slots", LATENT, (self.slots, self.width)), (batch, self.slots, self.width)
            )
        else:
            mean = self.param("mean", nn.initializers.xavier_uniform(), (1, self.width))
            log_std = self.param("log_std", nn.initializers.xavier_uniform(), (1, self.width))
            drawn = jnp.zeros((batch, self.slots, self.width)) if noise is None else noise
            start = mean + jnp.exp(log_std) * drawn
        corrector = Corrector(self.hidden, epsilon=1e-8, normed=True, name="corrector")
        predictor = Block(self.heads, 4 * self.width, name="predictor")
        found = []
        for t in range(frames):
            slots, attention = corrector(x[:, t], start, self.iterations if t else self.first)
            start = predictor(slots)
            found.append((slots, start, attention))
        slots, predicted, attention = (jnp.stack(values, 1) for values in zip(*found, strict=True))
        outputs = width + count * self.similarity
        if self.decoder == "mlp":
            decoder: nn.Module = PlaceMlp(count, outputs, self.units, name="mlp")
        else:
            decoder = Mixer(count, outputs, self.blocks, self.heads, self.units, name="mixer")
        decoded, masks = decoder(slots.reshape(-1, self.slots, self.width))
        decoded = decoded.reshape(batch, frames, count, outputs)
        out = {"slots": slots, "predicted": predicted, "attention": attention, "embedded": x}
        out |= {"features": decoded[..., :width], "masks": masks.reshape(batch, frames, self.slots, count)}
        return out | ({"logits": decoded[..., width:]} if self.similarity else {})


def first_slots(model: VideoSaur, params: Params, noise: Float[Array, "B K S"]) -> Float[Array, "B K S"]:
    """The slots from which the first frame starts. `noise` is for those that are drawn."""
    if model.fixed:
        return jnp.broadcast_to(params["slots"], noise.shape)
    return params["mean"] + jnp.exp(params["log_std"]) * noise


def next_slots(
    model: VideoSaur, params: Params, features: Float[Array, "B P F"], start: Float[Array, "B K S"], iterations: int
) -> tuple[Float[Array, "B K S"], Float[Array, "B K S"]]:
    """(slots after one frame, and the next frame's start): the module's slots in steps, for videos of any length."""
    norm = nn.LayerNorm(epsilon=EPSILON, parent=None)
    x = norm.apply({"params": params["norm_features"]}, features)
    if model.placed:
        position = Dense(x.shape[-1], kernel_init=FAN_IN, parent=None)
        x = x + position.apply({"params": params["position"]}, jnp.asarray(grid(x.shape[-2])))
    for name, units in (("up", model.embed), ("down", model.width)):
        x = Dense(units, kernel_init=FAN_IN, parent=None).apply({"params": params[name]}, x)
        x = nn.relu(x) if name == "up" else x
    corrector = Corrector(model.hidden, epsilon=1e-8, normed=True, parent=None)
    slots, _ = corrector.apply({"params": params["corrector"]}, x, start, iterations)
    return slots, Block(model.heads, 4 * model.width, parent=None).apply({"params": params["predictor"]}, slots)


def grid(count: int) -> Float[np.ndarray, "P 4"]:
    """The places of a square of patches. Raises ValueError for a number that is not a square."""
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} patches: must be a square number for places")
    return places(side, side).reshape(count, 4)


def similarity(keys: Float[Array, "B T P F"], temperature: float) -> Float[Array, "B T1 P P"]:
    """Where the content of each patch is in the next frame: softmax of the keys' cosine / temperature.

    Cosines below 0 are left out. A patch without any above has an even distribution.
    """
    unit = keys / jnp.maximum(jnp.linalg.norm(keys, axis=-1, keepdims=True), 1e-12)
    cosine = jnp.einsum("btpf,btqf->btpq", unit[:, :-1], unit[:, 1:])
    kept = cosine > 0
    logits = jnp.where(kept, cosine / temperature, jnp.where(kept.any(-1, keepdims=True), -jnp.inf, 0))
    return jax.nn.softmax(logits)


def slot_contrast(
    slots: Float[Array, "B T K S"], temperature: float, across: bool = True, valid: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """Each slot should be nearer to itself in the frame before than to all others there: a scene's mean cross-entropy.

    across: whether the slots of all scenes are the others (SlotContrast), or those of the same scene. valid: scenes
    that are not padding. Slots of padding scenes are not negatives of other scenes.
    """
    unit = slots / jnp.maximum(jnp.linalg.norm(slots, axis=-1, keepdims=True), 1e-12)
    batch, frames, count, _ = slots.shape
    if across:
        logits = jnp.einsum("btks,ctls->btkcl", unit[:, 1:], unit[:, :-1])
        if valid is not None:
            other = valid | jnp.eye(batch, dtype=bool)  # [B, C]
            logits = jnp.where(other[:, None, None, :, None], logits, -jnp.inf)
        logits = logits.reshape(batch, frames - 1, count, -1)
        own = jnp.arange(batch)[:, None, None] * count + jnp.arange(count)
    else:
        logits = jnp.einsum("btks,btls->btkl", unit[:, 1:], unit[:, :-1])
        own = jnp.broadcast_to(jnp.arange(count), (batch, 1, count))
    own = jnp.broadcast_to(own, logits.shape[:3])
    log = jax.nn.log_softmax(logits / temperature)
    return -jnp.take_along_axis(log, own[..., None], -1)[..., 0].mean((1, 2))
