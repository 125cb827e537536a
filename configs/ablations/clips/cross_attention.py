"""A predictor of cross attention instead of joint attention.

    python -m cjepa_jax.train --config=configs/ablations/clips/cross_attention.py

Not an ablation of the description. Hidden tokens attend to each other and to the context, context tokens to hidden
ones. In full.py all attend to all. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.predictor.attention = "cross"
    return config
