"""Hidden are random tokens, as many in each scene as of whole objects; no causal term.

    python -m cjepa_jax.train --config=configs/ablations/tiny/random_tokens.py

No row of the document's table: compare with object_tokens.py, from which it differs in the choice of tokens only, here
single tokens anywhere after the anchor. Drawn from the same generator, so that each scene hides the same amount.
"""

from cjepa_jax.configs.ablations.tiny import object_tokens


def get_config():
    config = object_tokens.get_config().unlock()
    config.mask.type = "cjepa_jax.masks.random:matched"
    config.mask.tubes = False
    return config.lock()
