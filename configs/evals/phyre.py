"""PHYRE's own score, AUCCESS: a linear ranker on frozen features acts in the real simulator.

The protocol is cjepa_jax/evals/benchmarks/phyre.py.

    CJEPA_PHYRE_PYTHON=~/phyre/bin/python python -m cjepa_jax.train --config=configs/data/phyre.py --workdir=runs/phyre
    CJEPA_PHYRE_PYTHON=~/phyre/bin/python python -m cjepa_jax.evaluate --config=configs/evals/phyre.py \
        --checkpoint=runs/phyre

Setup and fold are those of the training (config.data.options). PHYRE's own numbers are means over folds 0 .. 9. Each
test task gets 1000 random actions to choose from, so 500 tasks are 500 000 simulations (100 to 700 a second) and, for
the model and each random initialisation, as many clips to encode. On a laptop, for a run trained with the overrides of
configs/data/phyre.py:

    --config.evals.random_inits=1 --config.evals.protocols.phyre.tasks_fit=60 \
        --config.evals.protocols.phyre.tasks_test=40 --config.evals.protocols.phyre.candidates=200
    --config.evals.protocols.phyre.rankers="('linear','mlp')"     a network of one hidden layer too
    --config.evals.test_split=eval     PHYRE's dev tasks, while a setting is being chosen
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            phyre=dict(
                type="cjepa_jax.evals.benchmarks.phyre:PhyreAgent",
                tasks_fit=400,
                actions_fit=32,  # a task, half of them solving
                tasks_test=0,  # 0: all of the fold
                candidates=1000,
                attempts=100,
                rankers=("linear",),
            ),
        ),
    )
    data = dict(  # for a run that was trained on another source
        source="cjepa_jax.data.sources.phyre:Phyre",
        intervened="rerender",
        max_objects=16,
        options=dict(setup="ball_within_template", fold=0, stride=15, python=""),
    )
    return ConfigDict(dict(evals=evals, data=data)).lock()
