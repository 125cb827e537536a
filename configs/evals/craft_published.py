"""CRAFT's own questions, by type, on features of its own videos. Not run on the real data by us.

    python -m cjepa_jax.train --config=configs/data/craft.py --config.data.path=CRAFT --workdir=runs/craft
    python -m cjepa_jax.evaluate --config=configs/evals/craft_published.py --config.data.path=CRAFT \
        --checkpoint=runs/craft

CRAFT names no removed objects by number, so there is no interventional readout. 2.4 MB a clip are held in memory.

    --config.evals.fit=0 --config.evals.test=0     all questions of the published splits (some 20 GB)
    --config.data.options.setting=hard    test scenes of unseen layouts
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.data import craft


def get_config():
    config = craft.get_config()
    with config.unlocked():
        config.evals.protocols.craft = ConfigDict(
            dict(type="cjepa_jax.evals.benchmarks.craft:Craft", components=24, parts=1, interventional=False)
        )
    return config
