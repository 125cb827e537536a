"""CRAFT's own questions, by type, on features of its own videos. Not run on the real data by us.

    python -m cjepa_jax.train --config=configs/data/craft.py --config.data.path=CRAFT --workdir=runs/craft
    python -m cjepa_jax.evaluate --config=configs/evals/craft_published.py --checkpoint=runs/craft

CRAFT names no removed objects by number, so there is no interventional readout. 2.4 MB a clip are held in memory.

    --config.evals.fit=0 --config.evals.test=0     all questions of the published splits (some 20 GB)
    --config.data.options.setting=hard    test scenes of unseen layouts
    --config.data.path=CRAFT     for a run that was trained on other data
"""

from ml_collections import ConfigDict


def get_config():
    evals = dict(
        protocols=dict(
            craft=dict(type="cjepa_jax.evals.benchmarks.craft:Craft", components=24, parts=1, interventional=False),
        ),
    )
    data = dict(  # for a run that was trained on another source
        source="cjepa_jax.data.sources.craft:Craft",
        count=0,
        eval_count=1900,  # of the 1,983 validation videos
        intervened="zero_pixels",
        options=dict(setting="random", clip_frames=250, stride=15, masks=""),
    )
    return ConfigDict(dict(evals=evals, data=data)).lock()
