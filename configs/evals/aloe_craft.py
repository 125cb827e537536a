"""Questions about the world of launchers and baskets, answered by ALOE from slots of true states.

    python -m cjepa_jax.evaluate --config=configs/evals/aloe_craft.py --checkpoint=random \
        --training=configs/slots/craft.py
    python -m cjepa_jax.evaluate --config=configs/evals/aloe_craft.py --checkpoint=runs/craft_slots \
        --config.evals.protocols.aloe.do="('counterfactual',)"

The first command needs no trained predictor: all slots are those of the clip. With `do`, counterfactual questions see
the predictor's rollout without the removed object, and not the clip. Questions of the types cause, enable and prevent
compare the two, so they are not in `do`. Each question is balanced against its words. See docs/SLOTS.md.
"""

from ml_collections import ConfigDict


def get_config():
    protocol = dict(
        type="cjepa_jax.evals.benchmarks.aloe:Aloe",
        frames=32,
        moments=4,
        every=9,
        words=(18, 0),
        reader=dict(depth=2, heads=4, head_width=12, units=96, embed=20, hidden=48, dropout=0.0),
        seeds=3,
        steps=1200,
        batch=64,
        rate=2e-3,
        rolled=(),
        rollout=5,
        do=(),
        history=3,
        future=5,
        skip=1,
    )
    evals = dict(fit=768, test=192, protocols=dict(aloe=protocol))
    return ConfigDict(dict(evals=evals)).lock()
