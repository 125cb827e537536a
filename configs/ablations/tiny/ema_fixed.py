"""A target of fixed momentum, tau = 0.999.

    python -m cjepa_jax.train --config=configs/ablations/tiny/ema_fixed.py

The row "Fixed EMA" of the document's ablation table (section 9); the full model goes from 0.996 to 1 by a cosine. In
tiny's 750 steps the target moves about half of the way only (1 - 0.999^750 = 0.53). All else is that of full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.ema = (0.999, 0.999)
    return config
