"""Removed objects stay visible, and the predictor is told which they are. Their shapes are hidden at other places.

    python -m cjepa_jax.train --config=configs/effects/named.py

The control for hiding: the same pairs (the scene, the scene without the objects) as tiny's, and as many hidden tokens.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.mask.type = "cjepa_jax.masks.displaced:named"
    with config.unlocked():
        config.objective.predictor.name_context = True
    return config
