"""The scene under do(remove) is simulated and rendered again.

    python -m cjepa_jax.train --config=configs/ablations/clips/rerender.py

Not an ablation of the description. This is clips.py's choice, so the config equals full.py. It is the partner of
zero_pixels.py and drop_tokens.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.intervened = "rerender"
    return config
