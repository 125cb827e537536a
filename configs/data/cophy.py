"""CoPhy's videos (ballsCF, blocktowerCF, collisionCF): ViT-S/16 on clips of 10 frames at 224 x 224.

    python -m cjepa_jax.train --config=configs/data/cophy.py --config.data.path=CoPhy_224

CoPhy_224 is what cophy_224.tar.gz unpacks to, with its splits in CoPhy_224/splits (docs/DATA.md). Every third of the 30
frames is taken, so that a scene is a whole clip: AB and CD of each of the 7000 training pairs. Not run on the real data
by us. For other scenarios, or a look on a laptop:

    --config.data.options.scenario=blocktowerCF --config.data.options.objects=3 --config.data.options.setting=normal
    --config.data.options.scenario=collisionCF --config.data.options.objects=0 \
        --config.data.options.setting=normal --config.data.options.stride=1     clips of 15 frames
    --config.data.size=64 --config.train.batch=16 --config.train.steps=100 --config.data.workers=1
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import vitl_video


def get_config():
    config = vitl_video.get_config()
    config.objective.encoder.variant = "S/16"
    config.train.batch = 256
    config.data.source = "cjepa_jax.data.sources.cophy:CoPhy"
    config.data.frames = 10
    config.data.count = 0
    config.data.options = ConfigDict(dict(scenario="ballsCF", objects=4, setting="", video="both", stride=3))
    config.data.max_objects = 9  # a slot per colour
    config.mask.area = (0.01, 0.40)  # balls are small
    return config
