"""The encoder sees the whole grid, hidden tokens as zeros, instead of the visible tokens alone.

    python -m cjepa_jax.train --config=configs/ablations/zeroed_input.py

Named by the document without a row in its table (section 9). It costs more: no token is left out. All else is that of
full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.encoder_input = "zeroed"
    return config
