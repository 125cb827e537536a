"""The scene under do(remove) is the same video with the removed objects painted black.

    python -m cjepa_jax.train --config=configs/ablations/tiny/zero_pixels.py

No row of the document's table. It needs no simulator; where objects interact, it shows what they caused without them.
All else is that of full.py, which renders the scene as it would have been.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.data.intervened = "zero_pixels"
    return config
