"""No causal consistency loss: lambda = 0.

    python -m cjepa_jax.train --config=configs/ablations/clips/no_causal.py

The ablation "No causal consistency loss" of the description. No scene under do(remove) is drawn, because it would not
be used. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.causal_weight = 0.0
    config.data.intervened = "none"
    return config
