"""Violation of expectation: objects that vanish or appear in the middle of a clip, in sight or behind a curtain.

    python -m cjepa_jax.train --config=configs/worlds/balls.py --workdir=runs/balls
    python -m cjepa_jax.evaluate --config=configs/evals/surprise.py --checkpoint=runs/balls

In sight, "nothing changes" finds every jump, so only the number behind the curtain is informative.

    --config.data.source=cjepa_jax.data.worlds:Ramps     another world than the run's
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            surprise=dict(type="cjepa_jax.evals.surprise:Surprise", curtain=0, target_norm=""),
            surprise_curtain=dict(  # grey tubelets in the middle
                type="cjepa_jax.evals.surprise:Surprise", curtain=1, target_norm=""
            ),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
