"""Fine-tuning: the scenes' labels by an encoder that is trained further with a linear head, at a tenth of its
training's rate.

    python -m cjepa_jax.train --config=configs/tiny.py --workdir=runs/tiny
    python -m cjepa_jax.evaluate --config=configs/evals/finetune.py --checkpoint=runs/tiny

Classes, such as those of configs/data/imagenet.py, need their number:

    --config.evals.protocols.finetune.classes=1000
    --config.evals.protocols.finetune.label=count     a label as the class, where the source says none
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            finetune=dict(
                type="cjepa_jax.evals.finetune:Finetune",
                classes=0,  # 0: regress all labels; more: the number of classes
                label="class",  # which: as the source says, or the name of a label
                hidden=0,  # GELUs between mean token and output (0: a linear head)
                steps=1000,
                batch=32,
                share=0.1,  # the encoder's learning rate, as a share of the peak of its training
                head_share=0.1,  # the head's
                stop=False,  # keep what is best on the last fifth of the fitting scenes, which are not learned from
            ),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
