"""A predictor of cross attention instead of joint attention.

    python -m cjepa_jax.train --config=configs/ablations/tiny/cross_attention.py

No row of the document's table. Hidden tokens attend to each other and to the context, context tokens to hidden ones; in
full.py all attend to all. All else is that of full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.predictor.attention = "cross"
    return config
