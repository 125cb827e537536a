"""Smooth l1 by component, averaged over D, as in I-JEPA's published code.

    python -m cjepa_jax.train --config=configs/ablations/clips/elementwise_loss.py

Not an ablation of the description. This is clips.py's choice, so the config equals full.py. It is the partner of
vector_loss.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.prediction_loss = "elementwise"
    return config
