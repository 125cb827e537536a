"""Learning rate and EMA momentum as pure functions of the step. They accept Python, NumPy and traced numbers."""

import jax.numpy as jnp
import optax

from cjepa_jax.types import Array


def learning_rate(step: Array, peak: float, warmup: int, total: int, cooldown: int = 0) -> Array:
    """Linear warm-up from 0 to `peak` at step `warmup`, then cosine to 0 at step `total` and after. METHOD (13).

    With a `cooldown`, the rate stays at `peak` after the warm-up and falls linearly to 0 in the last `cooldown` steps,
    as in V-JEPA 2 (arXiv 2506.09985, section 2.2). `warmup` + `cooldown` is at most `total`.
    """
    warm = optax.linear_schedule(0.0, peak, max(warmup, 1))
    if cooldown:
        fall = optax.linear_schedule(peak, 0.0, cooldown)
        constant = optax.constant_schedule(peak)
        return optax.join_schedules([warm, constant, fall], [warmup, total - cooldown])(step)
    decay = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
    return optax.join_schedules([warm, decay], [warmup])(step)


def ema_momentum(step: Array, total: int, start: float = 0.996, end: float = 1.0, kind: str = "cosine") -> Array:
    """tau(t) of METHOD (12): cosine or linear from `start` at step 0 to `end` at step `total` and after."""
    progress = jnp.clip(step / total, 0.0, 1.0)
    if kind == "linear":
        return start + (end - start) * progress
    return end - (end - start) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
