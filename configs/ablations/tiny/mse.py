"""Squared error instead of smooth l1.

    python -m cjepa_jax.train --config=configs/ablations/tiny/mse.py

Named in the description, but not in its table. By component, averaged over D, of layer-normed targets, as in full.py.
lambda and mu are unchanged. Everything else is as in full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.prediction_loss = "mse"
    return config
