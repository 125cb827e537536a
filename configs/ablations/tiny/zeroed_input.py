"""The encoder sees the whole grid, hidden tokens as zeros, instead of the visible tokens alone.

    python -m cjepa_jax.train --config=configs/ablations/tiny/zeroed_input.py

Named in the description, but not in its table. It costs more: no token is left out. Everything else is as in full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.encoder_input = "zeroed"
    return config
