"""Clips of one or two balls. One is white and starts in one of eight directions (cjepa_jax/data/worlds/headings.py).

    python -m cjepa_jax.data.show --config=configs/worlds/headings.py --out=headings.gif
    python -m cjepa_jax.train --config=configs/worlds/headings.py --workdir=runs/headings
    python -m cjepa_jax.evaluate --config=configs/evals/causal_states.py --checkpoint=runs/headings

The settings are those of worlds/motion.py, where nothing collides. A linear probe of seed 0 finds the direction with an
R2 of 0.20 (random 0.08, pixels 0.06) with `--config.train.steps=300`, and of 0.09 with one to three balls.
"""

from cjepa_jax.configs.worlds import motion


def get_config():
    config = motion.get_config()
    config.data.source = "cjepa_jax.data.worlds:Headings"
    config.data.options = dict(objects=(1, 2))
    return config
