"""CLEVRER's questions, open and multiple choice, on features of its videos. Not run on the real data by us.

    python -m cjepa_jax.train --config=configs/data/clevrer.py --config.data.path=CLEVRER --workdir=runs/clevrer
    python -m cjepa_jax.evaluate --config=configs/evals/clevrer.py --config.data.path=CLEVRER --checkpoint=runs/clevrer

Scored on the published validation split: the answers of the test split are not public. Heads are fitted on scenes of
the train split, with fixed settings. 2.4 MB a clip are held in memory.

    --config.evals.fit=0 --config.evals.test=0     all 10,000 and 5,000 scenes (about 36 GB)
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.data import clevrer


def get_config():
    config = clevrer.get_config()
    with config.unlocked():
        config.evals.test_split = "eval"
        config.evals.protocols.clevrer = ConfigDict(
            dict(type="cjepa_jax.evals.benchmarks.clevrer:Clevrer", components=24, parts=3)
        )
    return config
