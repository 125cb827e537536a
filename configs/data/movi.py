"""Causal-JEPA, ViT-S/16 on MOVi-A: 16 frames of each of about 9,750 clips at 256 x 256, 250 held out.

    python -m cjepa_jax.train --config=configs/data/movi.py --config.data.path=DIR/movi_a/256x256/1.0.0

DIR is a copy of gs://kubric-public/tfds (docs/DATA.md, "MOVi"). MOVi-B to E have the same layout. Kubric is licensed
under Apache-2.0. On a laptop, the 128 x 128 variant and

    --config.data.size=64 --config.data.frames=4 --config.objective.encoder.variant=Mu/8 --config.train.batch=16 \\
        --config.train.steps=200 --config.optim.warmup_share=0.1 --config.data.eval_count=64 \\
        --config.probe.train=32 --config.probe.test=32

Not run to its end by us.
"""

from cjepa_jax.configs import vitl_video


def get_config():
    config = vitl_video.get_config()
    config.objective.encoder.variant = "S/16"
    config.data.source = "cjepa_jax.data.sources.movi:Movi"
    config.data.path = "data/movi_a/256x256/1.0.0"
    config.data.count = 0
    config.data.eval_count = 240
    config.data.max_objects = 10  # 23 in MOVi-D and E
    config.mask.anchor = 1  # a removed object is seen at the start
    config.probe.train = 120
    config.probe.test = 120
    return config
