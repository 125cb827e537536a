"""Ten classes of a data set without masks: linear probe with all labels and with 1 %, neighbours, collapse.

python -m cjepa_jax.evaluate --config=configs/evals/classes.py --checkpoint=runs/cifar10

Heads are fitted on the whole training split and scored on the eval split. Data sets with another number of classes need
--config.evals.protocols.classify.classes=N.
"""

from ml_collections import ConfigDict


def get_config():
    classify = dict(
        type="cjepa_jax.evals.classify:Classify", classes=10, low_shot=0.01, neighbours=20, steps=20_000, limit=2**32
    )
    collapse = dict(type="cjepa_jax.evals.collapse:Collapse", scenes=1024, crop=(0.5, 1.0))
    evals = dict(fit=0, test=0, test_split="eval", random_inits=1, protocols=dict(classify=classify, collapse=collapse))
    return ConfigDict(dict(evals=evals)).lock()
