"""Clips of 16 frames of objects that cast shadows on a floor and on each other (cjepa_jax/data/worlds/shadows.py).

python -m cjepa_jax.data.show --config=configs/worlds/shadows.py --out=shadows.gif
python -m cjepa_jax.train --config=configs/worlds/shadows.py
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.worlds:Shadows"
    config.data.frames = 16
    return config
