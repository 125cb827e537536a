"""A dense probe of any run on simulated scenes, point clouds or sounds: what single tokens say of their place, of
objects, and, where objects have a depth (Balls), of which is in front.

python -m cjepa_jax.evaluate --config=configs/evals/tokens.py --checkpoint=runs/vjepa2_1
"""

from ml_collections import ConfigDict


def get_config():
    tokens = dict(type="cjepa_jax.evals.tokens:Tokens", each=32)
    return ConfigDict(dict(evals=dict(fit=512, test=512, random_inits=3, protocols=dict(tokens=tokens)))).lock()
