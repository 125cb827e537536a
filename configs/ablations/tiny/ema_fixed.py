"""A target of fixed momentum, tau = 0.999.

    python -m cjepa_jax.train --config=configs/ablations/tiny/ema_fixed.py

The ablation "Fixed EMA" of the description. The full model goes from 0.996 to 1 by a cosine. In tiny's 750 steps the
target moves only about half of the way (1 - 0.999^750 = 0.53). Everything else is as in full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.ema = (0.999, 0.999)
    return config
