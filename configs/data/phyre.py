"""Causal-JEPA, ViT-S/16 on rollouts of PHYRE's simulator: random actions at the training tasks of fold 0.

    CJEPA_PHYRE_PYTHON=~/phyre/bin/python python -m cjepa_jax.train --config=configs/data/phyre.py

The interpreter is installed in two lines, and the tasks come with it (docs/DATA.md, PHYRE, Apache-2.0). do(remove) is
simulated too. Hardware: as configs/vitl_video.py, at a fifteenth of its FLOPs. Not run to its end by us. On a laptop:

    --config.train.batch=8 --config.train.steps=50 --config.optim.warmup_share=0.06 --config.data.size=64 \
        --config.data.frames=4 --config.objective.encoder.variant=Mu/8 --config.objective.predictor.depth=2 \
        --config.objective.predictor.width=48 --config.objective.predictor.heads=4 --config.data.workers=1 \
        --config.data.eval_count=32 --config.probe.train=16 --config.probe.test=16 --config.probe.batch=16
    --config.data.options.setup=two_balls_cross_template --config.data.options.fold=3
"""

from cjepa_jax.configs import vitl_video


def get_config():
    config = vitl_video.get_config()
    config.data.source = "cjepa_jax.data.sources.phyre:Phyre"
    with config.unlocked():
        config.data.options.setup = "ball_within_template"
        config.data.options.fold = 0
        config.data.options.stride = 15  # 4 frames a second
        config.data.options.python = ""  # the interpreter; "": CJEPA_PHYRE_PYTHON
    config.data.intervened = "rerender"
    config.data.max_objects = 16
    config.mask.area = (0.002, 0.40)  # PHYRE's objects are small
    config.mask.anchor = 1
    config.objective.encoder.variant = "S/16"
    return config
