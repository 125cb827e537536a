"""Smooth l1 by component, averaged over D, as in I-JEPA's published code.

    python -m cjepa_jax.train --config=configs/ablations/tiny/elementwise_loss.py

Not an ablation of the description. This is tiny's choice, so the config equals full.py. It is the partner of
vector_loss.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.prediction_loss = "elementwise"
    return config
