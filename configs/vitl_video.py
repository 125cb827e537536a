"""Causal-JEPA, ViT-L/16 on clips of 16 frames at 224 x 224 (1568 tokens a scene).

    python -m cjepa_jax.train --config=configs/vitl_video.py

Hardware: as configs/vitl.py, about 8 times its FLOPs a step. Not run to its end by us.
"""

from cjepa_jax.configs import vitl


def get_config():
    config = vitl.get_config()
    config.data.frames = 16
    # Attention weights of 1568 tokens do not fit beside each other: the backward pass computes them again.
    config.objective.encoder.remat = "dots"
    config.objective.predictor.remat = "dots"
    return config
