"""V-JEPA as vjepa.py, with both masks for every clip, as published: the loss is the mean of both predictions.

    python -m cjepa_jax.train --config=configs/baselines/vjepa_both.py

The target encoder sees a clip once, encoder and predictor twice. Different from the published system, besides what
vjepa.py says: both kinds of masks share one mask token (there each has its own).

V-JEPA 2 and 2.1 with both masks, as published too:

    python -m cjepa_jax.train --config=configs/family/vjepa2.py --config.mask.both=True
    python -m cjepa_jax.train --config=configs/family/vjepa2_1.py --config.mask.both=True
"""

from cjepa_jax.configs.baselines import vjepa


def get_config():
    config = vjepa.get_config().unlock()
    config.mask.both = True
    return config.lock()
