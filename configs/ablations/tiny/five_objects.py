"""Up to five objects are removed: M_max = 5.

    python -m cjepa_jax.train --config=configs/ablations/tiny/five_objects.py

The row "M_max = 5" of the document's ablation table (section 9). On average 0.19 of the tokens are hidden (full.py:
0.14); the predictor has five object embeddings instead of three. All else is that of full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.mask.max_objects = 5
    return config
