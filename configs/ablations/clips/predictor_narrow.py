"""A predictor half as wide.

    python -m cjepa_jax.train --config=configs/ablations/clips/predictor_narrow.py

The ablation "D_pred = 192" of the description. There the full model has 384. Here it has 48, so the same factor
gives 24. The heads stay 4. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.predictor.width = 24
    return config
