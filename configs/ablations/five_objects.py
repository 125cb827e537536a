"""Up to five objects are removed: M_max = 5.

    python -m cjepa_jax.train --config=configs/ablations/five_objects.py

The row "M_max = 5" of the document's ablation table (section 9). More is hidden, 0.40 of the tokens on average
(full.py: 0.30), which is part of what the row changes; the predictor has five object embeddings. All else is that of
full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.mask.max_objects = 5
    return config
