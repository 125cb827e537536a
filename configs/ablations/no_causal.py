"""No causal consistency loss: lambda = 0.

    python -m cjepa_jax.train --config=configs/ablations/no_causal.py

The row "No causal consistency loss" of the document's ablation table (section 9). All else is that of full.py; the
scene under do(remove) is still made, and nothing looks at it.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.causal_weight = 0.0
    return config
