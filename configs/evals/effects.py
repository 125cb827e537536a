"""Does the model know what changes without object k rather than without another object? Scores differences of removals.

    python -m cjepa_jax.train --config=configs/tiny.py --workdir=runs/tiny
    python -m cjepa_jax.evaluate --config=configs/evals/effects.py --checkpoint=runs/tiny

Formulas: docs/EVALUATION.md, "Effects". A folder caches pairs, floors and random initialisations, which all models of
one world and one grid of tokens share.

    --config.evals.test_split=eval     while a setting is being chosen
    --config.evals.protocols.effects.probe_pairs="()" --config.evals.protocols.effects.probe_steps="()"     no do-probe
    --config.data.source=cjepa_jax.data.worlds:Shadows     another world than the run's
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        random_inits=1,
        protocols=dict(
            effects=dict(
                type="cjepa_jax.evals.counterfactual.effects:Effects",
                pairs_fit=1500,
                pairs_test=600,
                anchor=-1,  # the training's
                probe_pairs=(300, 1500),
                probe_steps=(200, 400),
                cache="runs/pairs",
            ),
        ),
    )
    return ConfigDict(dict(evals=evals)).lock()
