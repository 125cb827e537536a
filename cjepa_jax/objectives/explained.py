"""How much of its target's variance a prediction explains, over the tokens of all slices of a batch. Monitors."""

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.types import Array


def moments(prediction: Array, target: Array, mask: Array, valid: Array) -> dict[str, Array]:
    """Over a slice's masked tokens: their count, the target's mean and variance, the squared error. [1, ...] each."""
    prediction, target = jax.lax.stop_gradient((prediction, target))
    tokens = mask & valid[:, None]
    mask = jnp.broadcast_to(tokens[..., None], target.shape)
    mean = losses.masked_mean(target, mask, axis=(0, 1))
    error = losses.masked_mean(jnp.square(prediction - target), mask)
    variance = losses.masked_mean(jnp.square(target - mean), mask)
    moments = {"count": tokens.sum(), "mean": mean, "variance": variance, "error": error}
    return {name: value[None] for name, value in moments.items()}


def explained(moments: dict[str, Array]) -> Array:
    """1 - squared error / variance of the target over the tokens of all slices: progress, which the loss does not show
    because its target moves. A monitor."""
    error, variance = moments["error"], moments["variance"]
    if error.shape[0] > 1:  # of one slice they are the batch's, to the last bit
        share = moments["count"] / jnp.maximum(moments["count"].sum(), 1)
        mean = (share[:, None] * moments["mean"]).sum(0)
        variance = share * (variance + jnp.square(moments["mean"] - mean).mean(-1))
        error = share * error
    return 1.0 - error.sum() / jnp.maximum(variance.sum(), 1e-12)
