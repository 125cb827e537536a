"""Removed objects stay visible, and the predictor is told which they are. A displaced shape is hidden in their place.

    python -m cjepa_jax.train --config=configs/ablations/clips/named.py

Not an ablation of the description: the control for hiding. The causal term is the same as clips.py's, over the visible
tokens that no removed object touches. Tune its rate and its lambda as often as the method's.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.mask.type = "cjepa_jax.masks.displaced:named"
    with config.unlocked():
        config.objective.predictor.name_context = True
    return config
