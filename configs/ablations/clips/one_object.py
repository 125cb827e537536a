"""At most one object is removed: M_max = 1.

    python -m cjepa_jax.train --config=configs/ablations/clips/one_object.py

The ablation "M_max = 1" of the description. On average 0.08 of the tokens are hidden (full.py: 0.14), which is part of
the ablation. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.mask.max_objects = 1
    return config
