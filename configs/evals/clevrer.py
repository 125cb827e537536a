"""CLEVRER's questions, open and multiple choice, on features of its videos. Not run on the real data by us.

    python -m cjepa_jax.train --config=configs/data/clevrer.py --config.data.path=CLEVRER --workdir=runs/clevrer
    python -m cjepa_jax.evaluate --config=configs/evals/clevrer.py --checkpoint=runs/clevrer

Scored on the published validation split, because the answers of the test split are not public. Heads are fitted on
scenes of the train split, with fixed settings. 2.4 MB a clip are held in memory.

    --config.evals.fit=0 --config.evals.test=0     all 10,000 and 5,000 scenes (about 36 GB)
    --config.data.path=CLEVRER     for a run that was trained on other data
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        test_split="eval",
        protocols=dict(clevrer=dict(type="cjepa_jax.evals.benchmarks.clevrer:Clevrer", components=24, parts=3)),
    )
    data = dict(  # for a run that was trained on another source
        source="cjepa_jax.data.sources.clevrer:Clevrer",
        count=0,
        intervened="zero_pixels",
        options=dict(stride=8, masks="processed_proposals"),
    )
    return ConfigDict(dict(evals=evals, data=data)).lock()
