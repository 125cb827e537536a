"""World models: the place of the agent in the latents, and the error of rollouts beside copying.

    python -m cjepa_jax.train --config=configs/family/lewm.py --workdir=runs/lewm
    python -m cjepa_jax.evaluate --config=configs/evals/world_models.py --checkpoint=runs/lewm

Episodes are longer than in training: 3 true frames, then 10 predictions.
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        fit=256,
        test=256,
        protocols=dict(
            rollouts=dict(
                type="cjepa_jax.evals.rollouts:Rollouts",
                targets=("position/x", "position/y"),
                object=0,
                frames=13,
                given=3,
                steps=(1, 5, 10),
            )
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
