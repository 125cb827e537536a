"""As blocks.py, with single tokens hidden, drawn uniformly.

python -m cjepa_jax.train --config=configs/effects/tokens.py
"""

from cjepa_jax.configs.effects import blocks


def get_config():
    config = blocks.get_config()
    config.mask.type = "cjepa_jax.masks.random:matched"
    return config
