"""Protocols for a model of a simulated world: states, counterfactuals, counts, collapse.

    python -m cjepa_jax.train --config=configs/tiny.py --workdir=runs/tiny
    python -m cjepa_jax.evaluate --config=configs/evals/worlds.py --checkpoint=runs/tiny

The data and the model are those of the run, for every objective.

    --config.data.source=cjepa_jax.data.worlds:Blocks     another world than the run's
    --config.evals.test_split=eval                        while a setting is being chosen
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            interventional=dict(type="cjepa_jax.evals.interventional:Interventional", anchor=-1, cache=""),
            states=dict(type="cjepa_jax.evals.states:States"),
            count=dict(type="cjepa_jax.evals.classify:Classify", label="count", low_shot=0.1),
            collapse=dict(type="cjepa_jax.evals.collapse:Collapse"),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
