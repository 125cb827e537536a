"""Causal states: in which layer does a subspace hold the class, and does the encoder use it? docs/STATES.md

    python -m cjepa_jax.train --config=configs/worlds/motion.py --workdir=runs/motion
    python -m cjepa_jax.evaluate --config=configs/evals/causal_states.py --checkpoint=runs/motion

Half of the 400 clips fit, the other half is scored. Finished layers are kept in `cache`, so the same command resumes.

    --checkpoint=random --training=worlds/motion     the network at initialisation
    --config.evals.fit=400 --config.evals.test=400     narrower intervals
    --config.evals.protocols.causal_states.layers="(0, 8, 16, 24)"     some layers of a large encoder
    --config.evals.protocols.causal_states.nuisances="()"     a run on labelled videos (configs/data/videos.py)

Any source with classes works. Without twins, interchange is left out, and without such labels the nuisance control.
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        fit=200,
        test=200,
        batch=100,
        random_inits=1,
        protocols=dict(
            causal_states=dict(
                type="cjepa_jax.evals.causal_states:CausalStates",
                label="class",
                extractors=("means", "class_pca", "l1", "gradient"),
                controlled=("means",),
                nuisances=("speed", "size", "hue", "place/x"),
                layers=(),  # all
                draws=12,
                strengths=(1.0, 3.0),
                per_time=False,
                cache="runs/causal_states",
            ),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
