"""No causal consistency loss: lambda = 0.

    python -m cjepa_jax.train --config=configs/ablations/tiny/no_causal.py

The row "No causal consistency loss" of the document's ablation table (section 9). No scene under do(remove) is drawn,
since nothing would look at it. All else is that of full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.causal_weight = 0.0
    config.data.intervened = "none"
    return config
