"""Your own images: a folder of pictures and instance maps, by default the 20 of the example.

See docs/DATA.md, "Your own images".

    python -m cjepa_jax.train --config=configs/folder.py
    python -m cjepa_jax.train --config=configs/folder.py --config.data.path=DIR --config.train.steps=2000

The example only shows that the pieces fit. 12 pictures and 100 steps teach nothing.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.train.batch = 8
    config.train.steps = 100
    config.data.source = "cjepa_jax.data.sources.folder:Folder"
    config.data.path = "examples/folder"
    config.data.frames = 1
    config.data.count = 0
    config.data.eval_count = 8
    config.data.crop = True
    config.data.intervened = "zero_pixels"  # nobody can photograph the scene without its objects
    config.data.workers = 0
    config.mask.anchor = 0  # an image has no earlier moment
    config.checkpoint.every = 50
    config.probe.every = 50
    config.probe.train = 4
    config.probe.test = 4
    config.probe.batch = 4
    return config
