"""Hidden are random tubes, as many tokens in each scene as of whole objects; no causal term.

    python -m cjepa_jax.train --config=configs/ablations/clips/tube_tokens.py

Not an ablation of the description: compare with object_tokens.py, from which it differs in the choice of tokens only,
here single places of the plane at all times after the anchor. Drawn from the same generator, so that each scene hides
the same amount to half a tube.
"""

from cjepa_jax.configs.ablations.clips import object_tokens


def get_config():
    config = object_tokens.get_config().unlock()
    config.mask.type = "cjepa_jax.masks.random:matched"
    config.mask.tubes = True
    return config.lock()
