"""Simulated 2-D worlds with object masks, states, contacts and real do(remove): the embedded default data."""

from cjepa_jax.data.worlds.balls import Balls
from cjepa_jax.data.worlds.shadows import Shadows

__all__ = ["Balls", "Shadows"]
