"""CLEVRER's videos: ViT-S/16 on clips of 16 frames at 224 x 224, every eighth of 128.

    python -m cjepa_jax.train --config=configs/data/clevrer.py --config.data.path=CLEVRER

CLEVRER holds the files of the project's page (CC0, see docs/DATA.md): video_train/, video_validation/,
annotation_train/, annotation_validation/ and the masks that a network found, in processed_proposals/. Without the last,
add --config.data.options.masks= : blocks are hidden instead of objects. Not run on the real data by us.

    --config.data.size=64 --config.train.batch=16 --config.train.steps=100 --config.data.workers=1     on a laptop
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import vitl_video


def get_config():
    config = vitl_video.get_config()
    config.objective.encoder.variant = "S/16"
    config.train.batch = 256
    config.data.source = "cjepa_jax.data.sources.clevrer:Clevrer"
    config.data.count = 0
    config.data.options = ConfigDict(dict(stride=8, masks="processed_proposals"))
    config.mask.area = (0.005, 0.40)  # its objects are small
    return config
