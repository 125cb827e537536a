"""Simulated 2-D worlds with object masks, states, contacts and real do(remove): the embedded default data."""

from cjepa_jax.data.worlds.balls import Balls
from cjepa_jax.data.worlds.blocks import Blocks
from cjepa_jax.data.worlds.craft.world import Craft
from cjepa_jax.data.worlds.ramps import Ramps
from cjepa_jax.data.worlds.shadows import Shadows

__all__ = ["Balls", "Blocks", "Craft", "Ramps", "Shadows"]
