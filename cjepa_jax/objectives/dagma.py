"""A learned acyclic graph of slots: DAGMA with a linear model (Bello et al. 2022, arXiv 2209.08037)."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax.types import Array

STAGES = tuple(zip((1.0, 0.1, 0.01, 0.001), (1.0, 0.9, 0.8, 0.7), strict=True))  # (mu, s) of the central path
SPARSITY = 0.03  # lambda_1
STEPS, RATE = 800, 5e-3  # of Adam in each stage. The public code has 30,000 and 3e-4
BETA1, BETA2, EPSILON = 0.99, 0.999, 1e-8
OUTSIDE = -1e-6  # an inverse with entries below is not that of an M-matrix; float32 rounds what is 0


def static_graph(slots: Float[Array, "B T K D"], present: Bool[Array, "B K"]) -> Float[Array, "B K K"]:
    """Each scene's nearly acyclic graph over slots, graph[b, i, j]: the absolute weight of j in the linear model of i.

    A sample is a component of all slots in one frame, minus its mean over the frames, so that what slots have in common
    in all frames does not count. Columns are scaled to a variance of 1. The graph has no time: of two slots at most one
    depends on the other. Where both directions of an edge fit equally well, as between two slots that only depend on
    each other, a rounding error chooses. Absent slots and the diagonal are 0.
    """
    x = jnp.where(present[:, None, :, None], slots.astype(jnp.float32), 0)
    x = jnp.moveaxis(x - x.mean(1, keepdims=True), 2, -1).reshape(len(x), -1, x.shape[2])  # [B, T D, K]
    x = x / jnp.maximum(jnp.sqrt(jnp.square(x).mean(1, keepdims=True)), 1e-6)
    covariance = jnp.einsum("bni,bnj->bij", x, x, precision="highest") / x.shape[1]
    return jnp.abs(jax.vmap(weights)(covariance)).swapaxes(-1, -2)


def weights(covariance: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """W [K, K] of the linear model x = x W + noise, W[j, i] the weight of j for i, nearly acyclic.

    Minimises mu (tr((I - W)' C (I - W)) / 2 + lambda_1 |W|) - log det(s I - W * W) by Adam for falling mu, each from
    the last one's solution. Steps that leave the M-matrices are not made, and halve the rate.
    """
    size = len(covariance)
    eye, off = jnp.eye(size), 1 - jnp.eye(size)
    w = jnp.zeros((size, size))
    for mu, s in STAGES:

        def step(number, carry, mu=mu, s=s):
            w, inverse, mean, square, rate = carry
            slope = mu * (SPARSITY * jnp.sign(w) - covariance @ (eye - w)) + 2 * w * inverse.T
            mean, square = BETA1 * mean + (1 - BETA1) * slope, BETA2 * square + (1 - BETA2) * slope**2
            large = jnp.sqrt(square / (1 - BETA2 ** (number + 1.0))) + EPSILON
            moved = off * (w - rate * mean / (1 - BETA1 ** (number + 1.0)) / large)
            after = jnp.linalg.inv(s * eye - moved * moved)
            inside = (after >= OUTSIDE).all()
            kept = jnp.where(inside, moved, w), jnp.where(inside, after, inverse)
            return *kept, mean, square, jnp.where(inside, rate, rate / 2)

        start = w, jnp.linalg.inv(s * eye - w * w), jnp.zeros_like(w), jnp.zeros_like(w), jnp.float32(RATE)
        w = jax.lax.fori_loop(0, STEPS, step, start)[0]
    return w
