"""SLIC superpixels instead of objects.

    python -m cjepa_jax.train --config=configs/ablations/superpixels.py

The row "Superpixel masking" of the document's ablation table (section 9). A superpixel is hidden, and set to zero, as
an object would be. On average 0.37 of the tokens are hidden (full.py: 0.30). SLIC took about 8 ms of processor time a
clip on a laptop core, anew each epoch. It needs scikit-image (the extra "sam"). All else is that of full.py.

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
