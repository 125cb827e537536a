"""Random patches as I-JEPA hides them, instead of objects.

    python -m cjepa_jax.train --config=configs/ablations/random_patches.py

The ablation "Random patch masking (I-JEPA style)" of the description: blocks of random place and shape, with as many
tokens in every scene as full.py hides there. The causal term is kept: the scene under do(remove) has the pixels of the
hidden blocks set to zero. The predictor gets no object embedding. Everything else is as in full.py. I-JEPA itself is
configs/baselines/ijepa.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.mask.type = "cjepa_jax.masks.random:matched_blocks"
    return config
