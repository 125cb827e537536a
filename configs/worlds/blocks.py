"""Clips of 16 frames of stacked blocks, some of which fall (cjepa_jax/data/worlds/blocks.py).

python -m cjepa_jax.data.show --config=configs/worlds/blocks.py --out=blocks.gif
python -m cjepa_jax.train --config=configs/worlds/blocks.py
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.worlds:Blocks"
    config.data.frames = 16
    return config
