"""CoPhy's score, the mean squared error of D's positions, by a fine-tuned MLP (METHOD, Algorithm 3, line 3).

    python -m cjepa_jax.train --config=configs/data/cophy.py --config.data.path=CoPhy_224 --workdir=runs/cophy
    python -m cjepa_jax.evaluate --config=configs/evals/cophy.py --checkpoint=runs/cophy

Fits on all 7000 training pairs and scores the 1000 of the test split. They are held in memory, 1.7 MB a pair at this
size. Not run on the real data by us.

    --config.evals.protocols.cophy.finetune=False     the encoder frozen: minutes instead of hours
    --config.data.path=CoPhy_224     for a run that was trained on other data
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        fit=0,
        test=0,  # all pairs
        protocols=dict(
            cophy=dict(
                type="cjepa_jax.evals.benchmarks.cophy:CoPhy",
                finetune=True,  # score the encoder and the MLP trained end to end
                interventional=True,  # score what the model predicts of AB without the changed object
                hidden=256,  # GELUs of the MLP
                steps=4000,  # at most
                batch=32,  # pairs
                share=0.1,  # the encoder's learning rate, as a share of the peak of its training
                head_share=0.1,  # the MLP's
                stop=True,  # keep what is best on the last fifth of the fitting pairs
            ),
        ),
    )
    data = dict(  # for a run that was trained on another source
        source="cjepa_jax.data.sources.cophy:CoPhy",
        count=0,
        intervened="zero_pixels",
        max_objects=9,  # a slot per colour
        options=dict(scenario="ballsCF", objects=4, setting="", video="both", stride=3),
    )
    return ConfigDict(dict(evals=evals, data=data)).lock()
