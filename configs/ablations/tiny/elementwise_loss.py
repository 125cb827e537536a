"""Smooth l1 by component, averaged over D, as I-JEPA's published code has it.

    python -m cjepa_jax.train --config=configs/ablations/tiny/elementwise_loss.py

No row of the document's table. Tiny's own choice, so this is full.py by another name: the partner of vector_loss.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.prediction_loss = "elementwise"
    return config
