"""Hides random tokens, as many in each scene as of whole objects, without a causal term.

    python -m cjepa_jax.train --config=configs/ablations/clips/random_tokens.py

Not an ablation of the description: compare with object_tokens.py. It differs only in the choice of tokens: here single
tokens anywhere after the anchor. They are drawn from the same generator, so each scene hides the same amount.
"""

from cjepa_jax.configs.ablations.clips import object_tokens


def get_config():
    config = object_tokens.get_config().unlock()
    config.mask.type = "cjepa_jax.masks.random:matched"
    config.mask.tubes = False
    return config.lock()
