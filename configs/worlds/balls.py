"""Clips of 16 frames of discs and boxes that collide and hide each other (cjepa_jax/data/worlds/balls.py).

python -m cjepa_jax.data.show --config=configs/worlds/balls.py --out=balls.gif
python -m cjepa_jax.train --config=configs/worlds/balls.py
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.worlds:Balls"
    config.data.frames = 16
    return config
