"""The encoder sees the whole grid, hidden tokens as zeros, instead of the visible tokens alone.

    python -m cjepa_jax.train --config=configs/ablations/clips/zeroed_input.py

Named in the description, but not in its table. It costs more: no token is left out. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.encoder_input = "zeroed"
    return config
