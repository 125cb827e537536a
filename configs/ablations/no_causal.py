"""No causal consistency loss: lambda = 0.

    python -m cjepa_jax.train --config=configs/ablations/no_causal.py

The ablation "No causal consistency loss" of the description. Everything else is as in full.py. The scene under
do(remove) is still made but not used.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.causal_weight = 0.0
    return config
