"""Rollouts of slots by horizon, beside copying the last frame and constant velocity.

    python -m cjepa_jax.train --config=configs/slots/balls.py --workdir=runs/slots
    python -m cjepa_jax.evaluate --config=configs/evals/rollout.py --checkpoint=runs/slots

`history` and `future` are those of the run.

    --config.evals.protocols.rollout.horizon=20     further than the model predicts at once
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            rollout=dict(type="cjepa_jax.evals.rollout:Rollout", history=3, future=5, horizon=0),
            rollout_long=dict(type="cjepa_jax.evals.rollout:Rollout", history=3, future=5, horizon=15),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
