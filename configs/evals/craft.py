"""Questions in words about the simulated world of launchers and baskets, in CRAFT's five types.

    python -m cjepa_jax.train --config=configs/worlds/craft.py --workdir=runs/craft
    python -m cjepa_jax.evaluate --config=configs/evals/craft.py --checkpoint=runs/craft

Each question is balanced against its words. Its answers are simulated (some 0.5 s a scene on a busy laptop core), and
some five questions a scene name a removed object, each of which is hidden and encoded for each model. To do less:

    --config.evals.fit=512 --config.evals.test=256
    --config.evals.test_split=layout    unseen layouts (or count, colour)
    --config.evals.protocols.craft.parts=3     time in three stretches
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            craft=dict(type="cjepa_jax.evals.benchmarks.craft:Craft", components=24, parts=1, interventional=True),
        ),
    )
    data = dict(  # for a run that was trained on another source
        source="cjepa_jax.data.worlds:Craft",
        intervened="rerender",
        max_objects=12,  # 7 to 9, and in the split "count" up to 11
    )
    return ConfigDict(dict(evals=evals, data=data)).lock()
