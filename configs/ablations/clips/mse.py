"""Squared error instead of smooth l1.

    python -m cjepa_jax.train --config=configs/ablations/clips/mse.py

Named in the description, but not in its table. By component, averaged over D, of layer-normed targets, as in full.py.
lambda and mu are unchanged. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.prediction_loss = "mse"
    return config
