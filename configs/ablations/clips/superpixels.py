"""SLIC superpixels instead of objects.

    python -m cjepa_jax.train --config=configs/ablations/clips/superpixels.py

The ablation "Superpixel masking" of the description. A superpixel is hidden as an object would be; on average 0.19 of
the tokens are (full.py: 0.14). It has no scene without it to render, so the one under do(remove) is the video with it
painted black: compare with zero_pixels.py, from which this differs in the masks only. SLIC took about 8 ms of processor
time a clip on a laptop core, in each epoch. It needs scikit-image (the extra "sam").

    --config.data.options.segments=32     smaller ones
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().unlock()
    config.data.source = "cjepa_jax.data.sources.superpixels:Superpixels"
    segments = dict(segments=16, compactness=10.0)
    config.data.options = ConfigDict(dict(of="cjepa_jax.data.worlds:Balls", of_options=ConfigDict(), **segments))
    config.data.max_objects = 16
    config.data.intervened = "zero_pixels"
    return config.lock()
