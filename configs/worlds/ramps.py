"""Clips of 16 frames of balls, bars, ramps and jars with a goal (cjepa_jax/data/worlds/ramps.py).

python -m cjepa_jax.data.show --config=configs/worlds/ramps.py --out=ramps.gif
python -m cjepa_jax.train --config=configs/worlds/ramps.py
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.worlds:Ramps"
    config.data.frames = 16
    return config
