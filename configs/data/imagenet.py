"""Causal-JEPA, ViT-S/16 on ImageNet (ILSVRC 2012: 1,281,167 images, 50,000 held out) with custom masks.

    python -m cjepa_jax.train --config=configs/data/imagenet.py --config.data.path=DIR/imagenet2012/5.1.0 \\
        --config.data.options.masks=MASKS

TFDS prepares DIR, python -m cjepa_jax.data.segment the masks (docs/DATA.md, "ImageNet"). The images may be used for
research and teaching that is not commercial, after registration at image-net.org. On a laptop add

    --config.data.size=64 --config.objective.encoder.variant=Ti/8 --config.train.batch=16 --config.train.steps=200 \\
        --config.optim.warmup_share=0.1 --config.data.eval_count=64 --config.probe.train=32 --config.probe.test=32

Not run to its end by us.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import vitl_natural


def get_config():
    config = vitl_natural.get_config()
    config.objective.encoder.variant = "S/16"
    config.data.source = "cjepa_jax.data.sources.imagenet:ImageNet"
    config.data.path = "data/imagenet2012/5.1.0"
    config.data.count = 0
    config.data.options = ConfigDict(dict(masks="data/imagenet2012/segments"))
    return config
