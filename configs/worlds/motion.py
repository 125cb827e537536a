"""Clips of 16 frames of one object that moves in one of eight directions (cjepa_jax/data/worlds/motion.py).

python -m cjepa_jax.data.show --config=configs/worlds/motion.py --out=motion.gif
python -m cjepa_jax.train --config=configs/worlds/motion.py --workdir=runs/motion
python -m cjepa_jax.evaluate --config=configs/evals/causal_states.py --checkpoint=runs/motion

At 32 pixels, 16 frames are 128 tokens. The first two frames of a removed object stay visible, since nothing else shows
where it moves.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.worlds:Motion"
    config.data.size = 32
    config.data.frames = 16
    return config
