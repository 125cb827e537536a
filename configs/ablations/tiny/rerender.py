"""The scene under do(remove) is simulated and rendered anew.

    python -m cjepa_jax.train --config=configs/ablations/tiny/rerender.py

No row of the document's table. Tiny's own choice, so this is full.py by another name: the partner of zero_pixels.py and
drop_tokens.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.data.intervened = "rerender"
    return config
