"""Squared error instead of smooth l1.

    python -m cjepa_jax.train --config=configs/ablations/mse.py

Named in the description, but not in its table. The mean over D of the squared error, of raw targets. lambda and mu are
unchanged. Everything else is as in full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.prediction_loss = "mse"
    return config
