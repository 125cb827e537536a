"""Violation of expectation: objects that vanish or appear in the middle of a clip, in sight or behind a curtain.

    python -m cjepa_jax.train --config=configs/worlds/balls.py --workdir=runs/balls
    python -m cjepa_jax.evaluate --config=configs/evals/surprise.py --checkpoint=runs/balls

In sight, "nothing changes" finds every jump, so the number that says something is the one behind the curtain.

    --config.data.source=cjepa_jax.data.worlds:Ramps     another world, that of the run
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.worlds import balls


def get_config():
    config = balls.get_config()
    with config.unlocked():
        for name, curtain in (("surprise", 0), ("surprise_curtain", 1)):
            config.evals.protocols[name] = ConfigDict(
                dict(
                    type="cjepa_jax.evals.surprise:Surprise",
                    curtain=curtain,  # grey tubelets in the middle
                    target_norm=config.objective.get_ref("target_norm"),
                )
            )
    return config
