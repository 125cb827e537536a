"""The scene under do(remove) is the same video without the hidden tokens.

    python -m cjepa_jax.train --config=configs/ablations/clips/drop_tokens.py

Not an ablation of the description. The target encoder sees the visible tokens alone. Everything else is as in full.py,
which renders the re-simulated scene.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.intervened = "drop_tokens"
    return config
