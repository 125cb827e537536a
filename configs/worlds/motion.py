"""Clips of 16 frames of one object that moves in one of eight directions (cjepa_jax/data/worlds/motion.py).

    python -m cjepa_jax.data.show --config=configs/worlds/motion.py --out=motion.gif
    python -m cjepa_jax.train --config=configs/worlds/motion.py --workdir=runs/motion
    python -m cjepa_jax.evaluate --config=configs/evals/causal_states.py --checkpoint=runs/motion

128 tokens: a token is 8 frames of 4 x 4 pixels, so it sees motion (2 frames of 8 x 8 pixels: docs/STATES.md). One of
the two times of a removed object stays visible, since nothing else shows where it moves.
A linear probe of seed 0 finds the direction with an R2 of 0.59 (random 0.00, pixels 0.21) after 400 steps.

    "--config.data.options={'objects': (2, 4), 'ground': 'mixed'}"     more objects at rest, and patterned grounds
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.train.steps = 400
    config.data.source = "cjepa_jax.data.worlds:Motion"
    config.data.size = 32
    config.data.frames = 16
    config.data.options = dict(objects=(1, 2), ground="plain")
    config.objective.encoder.variant = "64x4x4x256/4"
    config.objective.encoder.tubelet = 8
    config.optim.peak = 2e-3
    return config
