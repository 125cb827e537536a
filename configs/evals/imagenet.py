"""ImageNet: linear probe, with all labels and with 1 %, 20 nearest neighbours, attentive probe, collapse.

python -m cjepa_jax.train --config=configs/data/imagenet.py --config.data.path=DIR --workdir=runs/imagenet
python -m cjepa_jax.evaluate --config=configs/evals/imagenet.py --checkpoint=runs/imagenet

Heads are fitted on the whole training split and scored on the validation split (the test split has no labels).
Pixels of large splits are not kept; tokens for the attentive probe take Classify.limit bytes of memory per model. On a
laptop add --config.evals.fit=4096 --config.evals.test=1024 --config.evals.protocols.classify.steps=1000. Not run by us
on all of ImageNet.

    --config.data.options.masks=     classes need none, so the masks of the training need not be there
    --config.data.path=DIR     for a run that was trained on other data
    --checkpoint=FOLDER_OR_FILE --training=data/imagenet --config.data.path=DIR     published weights
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        fit=0,
        test=0,
        test_split="validation",
        random_inits=1,
        protocols=dict(
            classify=dict(
                type="cjepa_jax.evals.classify:Classify",
                classes=1000,
                low_shot=0.01,
                neighbours=20,
                steps=100_000,
                limit=16 * 2**30,
            ),
            collapse=dict(type="cjepa_jax.evals.collapse:Collapse", scenes=1024, crop=(0.5, 1.0)),
        ),
    )
    data = dict(  # for a run that was trained on another source
        source="cjepa_jax.data.sources.imagenet:ImageNet",
        count=0,
        intervened="zero_pixels",
        options=dict(masks=""),  # classes need none
    )
    return ConfigDict(dict(evals=evals, data=data)).lock()
