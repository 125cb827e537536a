"""Gates of edges between slots: which slot may attend to which, for each scene (hard concrete, arXiv 1712.01312)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Key

from cjepa_jax.models.layers import Dense
from cjepa_jax.models.slot_predictor import FAN_IN
from cjepa_jax.types import Array

LOW, HIGH, TEMPERATURE = -0.1, 1.1, 2 / 3  # of the stretched distribution, as in the paper
OPEN = 2.0  # added to the logits: at first a gate is open with a probability of about 0.97


class SlotGates(nn.Module):
    """An MLP on the visible history of two slots gives the gate of the edge between them.

    Attributes: history, frames that are looked at. width of the hidden layers.
    """

    history: int
    width: int = 32

    @nn.compact
    def __call__(
        self, slots: Float[Array, "B T S D"], visible: Bool[Array, "B T S"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "B S S"], Float[Array, "B S S"]]:
        """(gates in [0, 1], the probability that each is not 0). The diagonal is 1.

        key: draws the gates. None: their values without noise.
        """
        batch, _, count, _ = slots.shape
        past = jnp.where(visible[..., None], slots, 0)[:, : self.history].astype(jnp.float32)
        seen = visible[:, : self.history].astype(jnp.float32)
        flat = jnp.concatenate([past.transpose(0, 2, 1, 3).reshape(batch, count, -1), seen.transpose(0, 2, 1)], -1)
        by, of = (Dense(self.width, kernel_init=FAN_IN, name=name)(flat) for name in ("by", "of"))
        hidden = nn.relu(by[:, :, None] + of[:, None])
        hidden = nn.relu(Dense(self.width, kernel_init=FAN_IN, name="pair")(hidden))
        logits = OPEN + Dense(1, kernel_init=FAN_IN, name="edge")(hidden)[..., 0]
        if key is None:
            sample = jax.nn.sigmoid(logits)
        else:
            uniform = jax.random.uniform(key, logits.shape, minval=1e-6, maxval=1 - 1e-6)
            noise = jnp.log(uniform) - jnp.log1p(-uniform)
            sample = jax.nn.sigmoid((logits + noise) / TEMPERATURE)
        gates = jnp.clip(sample * (HIGH - LOW) + LOW, 0, 1)
        probability = jax.nn.sigmoid(logits - TEMPERATURE * jnp.log(-LOW / HIGH))
        own = jnp.eye(count, dtype=bool)
        return jnp.where(own, 1.0, gates), jnp.where(own, 1.0, probability)
