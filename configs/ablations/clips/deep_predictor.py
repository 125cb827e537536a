"""A predictor twice as deep.

    python -m cjepa_jax.train --config=configs/ablations/clips/deep_predictor.py

Named in the description, but not in its table: depth 12 instead of 6. Tiny's predictor has 2 blocks, so the same factor
gives 4. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.predictor.depth = 4
    return config
