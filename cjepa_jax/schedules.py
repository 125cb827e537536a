"""Learning rate and EMA momentum as pure functions of the step. They accept Python, NumPy and traced numbers."""

import jax.numpy as jnp
import optax

from cjepa_jax.types import Array


def learning_rate(step: Array, peak: float, warmup: int, total: int) -> Array:
    """Linear warm-up from 0 to `peak` at step `warmup`, then cosine to 0 at step `total` and after. METHOD (13)."""
    warm = optax.linear_schedule(0.0, peak, max(warmup, 1))
    decay = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
    return optax.join_schedules([warm, decay], [warmup])(step)


def ema_momentum(step: Array, total: int, start: float = 0.996, end: float = 1.0, kind: str = "cosine") -> Array:
    """tau(t) of METHOD (12): cosine or linear from `start` at step 0 to `end` at step `total` and after."""
    progress = jnp.clip(step / total, 0.0, 1.0)
    if kind == "linear":
        return start + (end - start) * progress
    return end - (end - start) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
