"""The control for object masks: tiny, hiding in every scene as many tokens as its object mask would, but random ones.

    python -m cjepa_jax.train --config=configs/baselines/random_tokens.py

No object is removed, so there is no causal term; all else is tiny's. Compare with configs/tiny.py
--config.objective.causal_weight=0, which differs in the choice of tokens only.

    --config.mask.tubes=True     places of the plane at all times after the anchor, instead of single tokens
"""

from ml_collections import ConfigDict

from configs import tiny


def get_config():
    config = tiny.get_config().unlock()
    config.data.intervened = "none"
    own = {key: config.mask[key] for key in ("max_objects", "area", "anchor")}
    config.mask = ConfigDict(dict(type="cjepa_jax.masks.random:matched", tubes=False, **own))
    config.objective.causal_weight = 0.0
    return config.lock()
