"""Graphs of influence between slots, read from a slot predictor: graph[b, i, j] says how much i depends on j."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Key

from cjepa_jax.types import Array

Predict = Callable[[Array, Array], Array]  # visible [B, T, S], present [B, T, S] -> prediction [B, T, S, D]
LEAST = 1e-9  # shares of nothing


def pairs(present: Bool[Array, "B K"]) -> Bool[Array, "B K K"]:
    """The ordered pairs of two different slots that hold an object."""
    return present[:, :, None] & present[:, None] & ~jnp.eye(present.shape[1], dtype=bool)


def unlinked(graph: Bool[Array, "B K K"], present: Bool[Array, "B K"]) -> Bool[Array, "B K K"]:
    """The ordered pairs that no chain of the graph's edges links, in either direction. With the contacts of a clip as
    the graph, neither object of such a pair has an effect on the other in the clip, unless the chain between them goes
    through an object without a slot, which is not in the graph."""
    slots = present.shape[1]
    reach = graph[:, :slots, :slots] | graph[:, :slots, :slots].mT | jnp.eye(slots, dtype=bool)
    for _ in range(max(slots - 1, 1).bit_length()):  # each squaring doubles the length of the chains
        reach = (reach.astype(jnp.float32) @ reach.astype(jnp.float32)) > 0
    return pairs(present) & ~reach


def published(attention: Float[Array, "B N N"], history: int, frames: int, slots: int) -> Float[Array, "B K K"]:
    """The graph of the public CTT code: attention of the first future frame, averaged over the T frames of the keys.

    Each row adds up to 1 / T with the diagonal, so at 4 frames no entry of 7 slots reaches its threshold of 0.15 but
    one that has more than 60 % of the attention, and at 16 frames none can.
    """
    return _by_slot(attention, frames, slots)[:, history].mean(2)


def attention(
    weights: Float[Array, "B N N"], present: Bool[Array, "B K"], history: int, frames: int
) -> Float[Array, "B K K"]:
    """Attention of the future, summed over the frames of the keys, as shares of the other slots, minus even shares.

    Each row adds up to 0 over the other slots that are present. Entries of absent slots and the diagonal are 0.
    """
    found = _by_slot(weights, frames, present.shape[1])[:, history:].mean(1).sum(2)
    there = pairs(present)
    shares = jnp.where(there, found, 0)
    shares = shares / jnp.maximum(shares.sum(-1, keepdims=True), LEAST)
    return jnp.where(there, shares - 1 / jnp.maximum(there.sum(-1, keepdims=True), 1), 0)


def effects(
    predict: Predict,
    visible: Bool[Array, "B T S"],
    present: Bool[Array, "B T S"],
    *,
    history: int,
    slots: int,
    removal: str,
) -> Float[Array, "B K K"]:
    """How much slot i's predicted future changes without slot j: mean squared difference per component and frame.

    removal: "drop" lets no token attend to slot j. "mask" hides it after the first frame, as the published ablation.
    """
    future = slice(history, None)
    base = predict(visible, present)[:, future, :slots]

    def without(j: Array) -> Array:
        other = predict(*ablated(visible, present, jnp.arange(visible.shape[2]) == j, removal))[:, future, :slots]
        return jnp.square(other - base).mean((1, 3))

    return jax.vmap(without, out_axes=-1)(jnp.arange(slots))


def jacobian(
    predict: Callable[[Array], Array],
    tokens: Float[Array, "B T S D"],
    key: Key[Array, ""],
    *,
    history: int,
    probes: int,
) -> Float[Array, "B K K"]:
    """Estimate of the squared Frobenius norm of d(slot i's future)/d(slot j's history), by random signs.

    predict: tokens -> the future of K slots, [B, T_p, K, D]. key: draws `probes` sets of signs. The estimate has no
    bias (Hutchinson's).
    """
    out, back = jax.vjp(predict, tokens)
    slots = out.shape[2]

    def row(i: Array, key: Array) -> Array:
        signs = jax.random.rademacher(key, out.shape, out.dtype)
        (slope,) = back(jnp.where((jnp.arange(slots) == i)[:, None], signs, 0))
        return jnp.square(slope[:, :history, :slots]).sum((1, 3))

    keys = jax.random.split(key, probes)
    every = jax.vmap(lambda i: jax.vmap(lambda key: row(i, key))(keys).mean(0), out_axes=1)
    return every(jnp.arange(slots))


def ablated(
    visible: Bool[Array, "B T S"], present: Bool[Array, "B T S"], which: Bool[Array, "*B S"], removal: str
) -> tuple[Bool[Array, "B T S"], Bool[Array, "B T S"]]:
    """(visible, present) without the slots `which`, by "drop" or by "mask" (see `effects`)."""
    which = which[..., None, :]
    if removal == "drop":
        return visible, present & ~which
    return visible & ~(which & (jnp.arange(visible.shape[1]) > 0)[:, None]), present


def _by_slot(weights: Array, frames: int, slots: int) -> Float[Array, "B T K T K"]:
    """Weights of the slots' tokens by frame and slot. Tokens after the slots of a frame are left out."""
    count = weights.shape[-1] // frames
    split = weights.reshape(len(weights), frames, count, frames, count)
    return split[:, :, :slots, :, :slots]
