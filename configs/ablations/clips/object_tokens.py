"""Hides the tokens of whole objects, without a causal term.

    python -m cjepa_jax.train --config=configs/ablations/clips/object_tokens.py

Not an ablation of the description: the first of four that differ only in which tokens are hidden, as many in each scene
(with tube_tokens.py, random_tokens.py and displaced_objects.py, which remove no object and so have no causal term). All
have clips of 6 frames. With 4 frames the anchor would leave one token in time, and tubes would be single tokens.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.frames = 6
    config.mask.type = "cjepa_jax.masks.objects:draw"
    config.objective.causal_weight = 0.0
    config.data.intervened = "none"
    return config
