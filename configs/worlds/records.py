"""A world read from disk instead of simulated: the clips of configs/clips.py, written once and then only read.

    python -m cjepa_jax.data.build --world=balls --split=train --count=10000 --frames=4 --out=data/balls
    python -m cjepa_jax.data.build --world=balls --split=eval --count=2048 --frames=4 --out=data/balls
    python -m cjepa_jax.train --config=configs/worlds/records.py --config.data.path=data/balls

Scenes and run have the same bits as with the world itself. A clip takes 14 KB, at 224 x 224 x 16 60 KB. This pays if
drawing is expensive: large or long clips, other worlds, many runs.

    --config.data.frames=2 --config.data.size=32     smaller than what is stored
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.sources.records:Records"
    config.data.path = "data/balls"
    return config
