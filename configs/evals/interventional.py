"""What happens to an object when another one is removed? Asks a frozen model by every readout.

    python -m cjepa_jax.train --config=configs/worlds/balls.py --workdir=runs/balls
    python -m cjepa_jax.evaluate --config=configs/evals/interventional.py --checkpoint=runs/balls

For several models, a folder caches what they share:

    --config.evals.protocols.interventional.cache=runs/questions
    --config.evals.protocols.interventional.anchor=0     everything of the removed object is hidden (-1: as in training)
    --config.data.source=cjepa_jax.data.worlds:Shadows     another world than the run's
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            interventional=dict(
                type="cjepa_jax.evals.interventional:Interventional",
                questions_fit=1600,
                questions_test=1000,
                anchor=-1,
                cache="",
            ),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
