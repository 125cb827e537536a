"""The scene under do(remove) is the same video with the removed objects painted black.

    python -m cjepa_jax.train --config=configs/ablations/clips/zero_pixels.py

Not an ablation of the description. It needs no simulator. If objects interact, it still shows the effects of the
removed ones. Everything else is as in full.py, which renders the re-simulated scene.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.intervened = "zero_pixels"
    return config
