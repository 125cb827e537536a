"""SLIC superpixels instead of objects.

    python -m cjepa_jax.train --config=configs/ablations/superpixels.py

The ablation "Superpixel masking" of the description. A superpixel is hidden, and set to zero, like an object. On
average 0.37 of the tokens are hidden (full.py: 0.30). SLIC took about 8 ms of processor time a clip on a laptop core,
again in each epoch. It needs scikit-image (the extra "sam"). Everything else is as in full.py.

    --config.data.options.segments=32     smaller ones
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config().unlock()
    config.data.source = "cjepa_jax.data.sources.superpixels:Superpixels"
    segments = dict(segments=16, compactness=10.0)
    config.data.options = ConfigDict(dict(of="cjepa_jax.data.worlds:Balls", of_options=ConfigDict(), **segments))
    config.data.max_objects = 16  # all of them
    return config.lock()
