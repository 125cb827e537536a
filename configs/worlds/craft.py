"""Clips of 32 frames (3.2 s) of launchers, turning bars, ramps, baskets (cjepa_jax/data/worlds/craft.py).

python -m cjepa_jax.data.show --config=configs/worlds/craft.py --out=craft.gif
python -m cjepa_jax.train --config=configs/worlds/craft.py
"""

from configs import tiny


def get_config():
    config = tiny.get_config()
    config.data.source = "cjepa_jax.data.worlds:Craft"
    config.data.frames = 32
    return config
