"""A target of fixed momentum, tau = 0.999.

    python -m cjepa_jax.train --config=configs/ablations/clips/ema_fixed.py

The ablation "Fixed EMA" of the description. The full model goes from 0.996 to 1 by a cosine. In 750 steps the
target moves only about half of the way (1 - 0.999^750 = 0.53). Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.ema = (0.999, 0.999)
    return config
