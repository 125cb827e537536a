"""CoPhy's score, the mean squared error of D's positions, by a fine-tuned MLP (the document's protocol for CoPhy).

    python -m cjepa_jax.train --config=configs/data/cophy.py --config.data.path=CoPhy_224 --workdir=runs/cophy
    python -m cjepa_jax.evaluate --config=configs/evals/cophy.py --config.data.path=CoPhy_224 --checkpoint=runs/cophy

Fits on all 7000 training pairs and scores the 1000 of the test split. They are held in memory, 1.7 MB a pair at this
size. Not run on the real data by us. Another scenario needs the options of its training, and

    --config.evals.protocols.cophy.finetune=False     the encoder frozen: minutes instead of hours
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.data import cophy


def get_config():
    config = cophy.get_config()
    config.evals.fit = config.evals.test = 0  # all pairs
    with config.unlocked():
        config.evals.protocols.cophy = ConfigDict(
            dict(
                type="cjepa_jax.evals.benchmarks.cophy:CoPhy",
                finetune=True,  # score the encoder and the MLP trained end to end
                interventional=True,  # score what the model makes of AB without the changed object
                hidden=256,  # GELUs of the MLP
                steps=4000,  # at most
                batch=32,  # pairs
                share=0.1,  # the encoder's learning rate, as a share of the peak of its training
                head_share=0.1,  # the MLP's
                stop=True,  # keep what is best on the last fifth of the fitting pairs
            )
        )
    return config
