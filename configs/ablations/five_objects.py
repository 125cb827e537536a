"""Up to five objects are removed: M_max = 5.

    python -m cjepa_jax.train --config=configs/ablations/five_objects.py

The ablation "M_max = 5" of the description. More is hidden, 0.40 of the tokens on average (full.py: 0.30), which is
part of the ablation. The predictor has five object embeddings. Everything else is as in full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.mask.max_objects = 5
    return config
