"""Clips of 32 frames (3.2 s) of launchers, turning bars, ramps, baskets (cjepa_jax/data/worlds/craft/world.py).

python -m cjepa_jax.data.show --config=configs/worlds/craft.py --out=craft.gif
python -m cjepa_jax.train --config=configs/worlds/craft.py

1,024 tokens a scene, eight times those of configs/clips.py. On two laptop cores use fewer steps, or
--config.data.frames=16.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.worlds:Craft"
    config.data.frames = 32
    config.data.max_objects = 12  # 7 to 9, and in the split "count" up to 11
    return config
