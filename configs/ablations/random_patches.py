"""Random patches as I-JEPA hides them, instead of objects.

    python -m cjepa_jax.train --config=configs/ablations/random_patches.py

The row "Random patch masking (I-JEPA style)" of the document's ablation table (section 9): blocks of random place and
shape, in every scene as many tokens as full.py hides there. The causal term stays: the scene under do(remove) has the
pixels of the hidden blocks set to zero. No object is named to the predictor, as there is none. All else is that of
full.py; I-JEPA itself is configs/baselines/ijepa.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.mask.type = "cjepa_jax.masks.random:matched_blocks"
    return config
