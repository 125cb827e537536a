"""Causal-JEPA, ViT-L/16 on natural images with object masks: 600 epochs, joint crop and flip.

    python -m cjepa_jax.train --config=configs/vitl_natural.py \
        --config.data.source=cjepa_jax.data.sources.folder:Folder --config.data.path=DIR --config.data.count=0

DIR holds images and their instance maps (docs/DATA.md, "Your own images"). Not run to its end by us.
"""

from cjepa_jax.configs import vitl


def get_config():
    config = vitl.get_config()
    config.train.epochs = 600
    config.data.crop = True
    return config
