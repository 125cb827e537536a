"""At most one object is removed: M_max = 1.

    python -m cjepa_jax.train --config=configs/ablations/one_object.py

The ablation "M_max = 1" of the description. Less is hidden, on average 0.16 of the tokens (full.py: 0.30), which is
part of the ablation. The predictor has one object embedding. Everything else is as in full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.mask.max_objects = 1
    return config
