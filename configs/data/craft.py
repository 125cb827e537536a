"""CRAFT's videos: ViT-S/16 on clips of 16 frames at 224 x 224, every fifteenth of 250.

    python -m cjepa_jax.train --config=configs/data/craft.py --config.data.path=CRAFT

CRAFT is what CRAFT.zip unpacks to (docs/DATA.md). It holds no object masks: blocks are hidden instead of objects, until
you name a folder of masks. Not run on the real data by us.

    --config.data.options.masks=masks     CRAFT/masks/sid_1/000000.json, ...
    --config.data.options.setting=hard    test scenes of unseen layouts
    --config.data.size=64 --config.train.batch=16 --config.train.steps=100 --config.data.workers=1     on a laptop
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import vitl_video


def get_config():
    config = vitl_video.get_config()
    config.objective.encoder.variant = "S/16"
    config.train.batch = 256
    config.data.source = "cjepa_jax.data.sources.craft:Craft"
    config.data.count = 0
    config.data.eval_count = 1900  # of the 1,983 validation videos
    config.probe.train = config.probe.test = 950
    config.data.options = ConfigDict(dict(setting="random", clip_frames=250, stride=15, masks=""))
    config.mask.area = (0.01, 0.40)
    return config
