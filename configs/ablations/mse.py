"""Squared error instead of smooth l1.

    python -m cjepa_jax.train --config=configs/ablations/mse.py

Named by the document without a row in its table (section 9). The mean over D of the squared error, of raw targets;
lambda and mu stay. All else is that of full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.prediction_loss = "mse"
    return config
