"""Simulated 2-D worlds: the default data. They give object masks, states, contacts and simulated do(remove)."""

from cjepa_jax.data.worlds.balls import Balls
from cjepa_jax.data.worlds.blocks import Blocks
from cjepa_jax.data.worlds.craft.world import Craft
from cjepa_jax.data.worlds.headings import Headings
from cjepa_jax.data.worlds.motion import Motion
from cjepa_jax.data.worlds.ramps import Ramps
from cjepa_jax.data.worlds.shadows import Shadows

__all__ = ["Balls", "Blocks", "Craft", "Headings", "Motion", "Ramps", "Shadows"]
