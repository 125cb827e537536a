"""Smooth l1 of each token's error norm, as in METHOD (6), instead of by component.

    python -m cjepa_jax.train --config=configs/ablations/clips/vector_loss.py

Not an ablation of the description: it has this form only. The norm over D = 96 is about 10 times a component's error;
lambda and mu stay, so they weigh less. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.prediction_loss = "smooth_l1"
    return config
