"""What a loss is computed of is float32 under bfloat16 compute: the heads' sums are not rounded on their way out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.models.decoder import Decoder
from cjepa_jax.models.heads import Projector
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.models.slots import Slots

TOKENS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 24)), jnp.float32)
SEEN, GRID = jnp.array([[True, True, False, False]] * 2), (1, 2, 2)
PATCHES, REMOVED = jnp.array([[[False, False, True, True]]] * 2), jnp.array([[True]] * 2)
SMALL = {"depth": 1, "width": 12, "heads": 2, "dtype": jnp.bfloat16}
HEADS = {  # (module, its arguments)
    "joint": (Predictor(**SMALL, out=24), (TOKENS, SEEN, PATCHES, REMOVED, GRID)),
    "cross": (Predictor(**SMALL, out=24, attention="cross"), (TOKENS, SEEN, PATCHES, REMOVED, GRID)),
    "pixels": (Decoder(**SMALL, out=24), (TOKENS, SEEN, GRID)),
    "projector": (Projector((16,), 8, "layer", jnp.bfloat16), (TOKENS, SEEN)),
    "slots": (Slots(2, 8, 1, 12, 1, jnp.bfloat16), (TOKENS, GRID, jax.random.key(1))),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_keep_what_a_narrow_type_cannot_hold(name):
    module, inputs = HEADS[name]
    params = jax.jit(lambda key: module.init(key, *inputs))(jax.random.key(0))
    out, state = jax.jit(lambda params: module.apply(params, *inputs, capture_intermediates=True))(params)
    if name == "slots":  # mixed in float32 afterwards: its last layer itself
        out = state["intermediates"]["Dense_1"]["__call__"]
    for values in jax.tree.leaves(out):
        assert values.dtype == jnp.float32
        assert np.mean(np.asarray(values.astype(jnp.bfloat16), np.float32) != np.asarray(values)) > 0.9
