"""The scene under do(remove) is simulated and rendered again.

    python -m cjepa_jax.train --config=configs/ablations/tiny/rerender.py

Not an ablation of the description. This is tiny's choice, so the config equals full.py. It is the partner of
zero_pixels.py and drop_tokens.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.data.intervened = "rerender"
    return config
