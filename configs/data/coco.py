"""Causal-JEPA, ViT-S/16 on COCO 2017 (118,287 images with the masks of their objects; 5,000 held out).

    python -m cjepa_jax.train --config=configs/data/coco.py --config.data.path=DIR

DIR holds annotations/instances_{train,val}2017.json, train2017/ and val2017/ (docs/DATA.md, "COCO-style folders").
Annotations: CC BY 4.0, COCO Consortium. The pictures are Flickr's, under their owners' terms. With the masks that
`python -m cjepa_jax.data.segment` made, DIR holds images/ and segments/ instead. On a laptop add

    --config.data.size=64 --config.objective.encoder.variant=Ti/8 --config.train.batch=16 --config.train.steps=200 \
        --config.optim.warmup_share=0.1 --config.data.eval_count=64 --config.probe.train=32 --config.probe.test=32

Not run to its end by us.
"""

from cjepa_jax.configs import vitl_natural


def get_config():
    config = vitl_natural.get_config()
    config.objective.encoder.variant = "S/16"
    config.data.source = "cjepa_jax.data.sources.coco:Coco"
    config.data.path = "data/coco"
    config.data.count = 0
    return config
