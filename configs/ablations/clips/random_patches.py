"""Random patches as I-JEPA hides them, instead of objects.

    python -m cjepa_jax.train --config=configs/ablations/clips/random_patches.py

The ablation "Random patch masking (I-JEPA style)" of the description: four blocks of 0.15 to 0.2 of the plane, the full
model's fallback for scenes without an eligible object. They span all times after the anchor. The context is all other
tokens. On average 0.24 of the tokens are hidden (full.py: 0.14). No object is removed, so there is no causal term.
Compare with no_causal.py too. Everything else is as in full.py. I-JEPA itself is configs/baselines/ijepa.py.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().unlock()
    config.data.intervened = "none"
    blocks = dict(type="cjepa_jax.masks.blocks:draw", count=4, scale=(0.15, 0.2), aspect=(0.75, 1.5))
    config.mask = ConfigDict(blocks | dict(anchor=config.mask.anchor))
    config.objective.causal_weight = 0.0
    return config.lock()
