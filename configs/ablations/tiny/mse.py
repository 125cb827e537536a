"""Squared error instead of smooth l1.

    python -m cjepa_jax.train --config=configs/ablations/tiny/mse.py

Named by the document without a row in its table (section 9). As full.py by component, averaged over D, of layer-normed
targets; lambda and mu stay. All else is that of full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.prediction_loss = "mse"
    return config
