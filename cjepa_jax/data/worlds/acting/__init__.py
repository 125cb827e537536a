"""Simulated worlds with actions. Each gives episodes, tasks (start and goal), and a simulator for planners."""

from cjepa_jax.data.worlds.acting.nudge import Nudge
from cjepa_jax.data.worlds.acting.push import Push
from cjepa_jax.data.worlds.acting.rooms import Rooms

__all__ = ["Nudge", "Push", "Rooms"]
