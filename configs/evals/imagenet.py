"""ImageNet: linear probe, with all labels and with 1 %, 20 nearest neighbours, attentive probe, collapse.

python -m cjepa_jax.train --config=configs/data/imagenet.py --config.data.path=DIR --workdir=runs/imagenet
python -m cjepa_jax.evaluate --config=configs/evals/imagenet.py --config.data.path=DIR --checkpoint=runs/imagenet

Heads are fitted on the whole training split and scored on the validation split (the test split has no labels).
Pixels of large splits are not kept; tokens for the attentive probe take Classify.limit bytes of memory per model. On a
laptop add --config.evals.fit=4096 --config.evals.test=1024 --config.evals.protocols.classify.steps=1000. Not run by us
on all of ImageNet.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.data import imagenet


def get_config():
    config = imagenet.get_config()
    config.data.options.masks = ""  # classes need none
    config.evals.fit = 0
    config.evals.test = 0
    config.evals.test_split = "validation"
    config.evals.random_inits = 1
    with config.unlocked():
        config.evals.protocols = ConfigDict(
            dict(
                classify=dict(
                    type="cjepa_jax.evals.classify:Classify",
                    classes=1000,
                    low_shot=0.01,
                    neighbours=20,
                    steps=100_000,
                    limit=16 * 2**30,
                ),
                collapse=dict(type="cjepa_jax.evals.collapse:Collapse", scenes=1024, crop=(0.5, 1.0)),
            )
        )
    return config
