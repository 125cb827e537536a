"""The scene under do(remove) is the same video without the hidden tokens.

    python -m cjepa_jax.train --config=configs/ablations/tiny/drop_tokens.py

No row of the document's table. The target encoder sees the visible tokens alone. All else is that of full.py, which
renders the scene as it would have been.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.data.intervened = "drop_tokens"
    return config
