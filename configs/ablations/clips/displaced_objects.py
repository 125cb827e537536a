"""Hides the shape of the objects' tokens at another place of the plane, without a causal term.

    python -m cjepa_jax.train --config=configs/ablations/clips/displaced_objects.py

Not an ablation of the description: the control for object shapes. It hides as many tokens in each scene as
object_tokens.py, in the same shape, moved as one to a random place away from the objects. They may overlap: of 300
scenes 40 % of the displaced tokens, against 26 % of those of random_tokens.py, lay where the hidden objects are.
"""

from cjepa_jax.configs.ablations.clips import object_tokens


def get_config():
    config = object_tokens.get_config()
    config.mask.type = "cjepa_jax.masks.displaced:draw"
    return config
