"""As named.py, with displaced shapes that meet the objects as often as the blocks of blocks.py do.

    python -m cjepa_jax.train --config=configs/effects/met.py

Removed objects stay visible in part: some of their tokens are hidden in 69 % of the removals
(docs/figures/hidden_shares.py). The predictor is told which objects they are.
"""

from cjepa_jax.configs.effects import named


def get_config():
    config = named.get_config()
    with config.unlocked():
        config.mask.meet = 0.67
    return config
