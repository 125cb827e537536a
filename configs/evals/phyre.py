"""PHYRE's own score, AUCCESS: a linear ranker on frozen features acts in the real simulator.

The protocol is cjepa_jax/evals/benchmarks/phyre.py.

    CJEPA_PHYRE_PYTHON=~/phyre/bin/python python -m cjepa_jax.train --config=configs/data/phyre.py --workdir=runs/phyre
    CJEPA_PHYRE_PYTHON=~/phyre/bin/python python -m cjepa_jax.evaluate --config=configs/evals/phyre.py \
        --checkpoint=runs/phyre

Setup and fold are config.data.options, as in training; PHYRE's own numbers are means over folds 0 .. 9. Each test task
gets 1000 random actions to choose from, so 500 tasks are 500 000 simulations (100 to 700 a second) and, for the model
and each random initialisation, as many clips to encode. On a laptop, for a run trained with the overrides of
configs/data/phyre.py: the same, and

    --config.evals.random_inits=1 --config.evals.protocols.phyre.tasks_fit=60 \
        --config.evals.protocols.phyre.tasks_test=40 --config.evals.protocols.phyre.candidates=200
    --config.evals.protocols.phyre.rankers="('linear','mlp')"     a network of one hidden layer too
    --config.evals.test_split=eval     PHYRE's dev tasks, while a setting is being chosen
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.data import phyre


def get_config():
    config = phyre.get_config()
    with config.unlocked():
        config.evals.protocols.phyre = ConfigDict(
            dict(
                type="cjepa_jax.evals.benchmarks.phyre:PhyreAgent",
                tasks_fit=400,
                actions_fit=32,  # a task, half of them solving
                tasks_test=0,  # 0: all of the fold
                candidates=1000,
                attempts=100,
                rankers=("linear",),
            )
        )
    return config
