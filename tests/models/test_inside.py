"""From the tokens of any layer the rest of the encoder gives its output, for every kind of positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.models import inside
from cjepa_jax.models.encoder import Encoder
from tests import pretrained
from tests.weights import parity

SETTINGS = {
    "V-JEPA 2": {"positions": "rope_tile"},
    "causal in time": {"causal": "frame", "gelu": "exact"},
    "V-JEPA 2.1": {"positions": "rope", "position_grid": (1, 8, 8)},
    "table of another grid": {"positions": "table", "position_grid": (4, 3, 3)},
}
GRID = (2, 4, 4)


def make(**options):
    """An encoder of three blocks, its random parameters and a video."""
    settings = {"variant": "24x3x3x40/8", "tubelet": 2, "gelu": "tanh", "epsilon": 1e-5} | options
    encoder, video = Encoder(**settings), parity.pixels(2, 4, 32, 32, 3)
    return encoder, pretrained.drawn(encoder, 0, video), video


@pytest.mark.parametrize("name", ["V-JEPA 2", *(pytest.param(n, marks=pytest.mark.slow) for n in list(SETTINGS)[1:])])
def test_every_layer_resumes_to_the_encoders_output(name):
    encoder, params, video = make(**SETTINGS[name])

    @jax.jit  # one program for all
    def everything(params, video):
        states = inside.states(encoder, params, video)
        numbers = jnp.arange(4)
        before = jax.lax.map(lambda layer: inside.before(encoder, params, video, layer), numbers)
        each = states.swapaxes(0, 1), numbers
        after = jax.lax.map(lambda one: inside.after(encoder, params, *one, GRID), each)
        repeated = jax.lax.map(lambda one: inside.after(encoder, params, one[0], one[1] - 1, GRID), each)
        return encoder.apply({"params": params}, video), states, before, after, repeated

    encoded, states, before, after, repeated = map(np.asarray, everything(params, video))
    assert states.shape == (2, 4, 32, 24)
    for layer in range(4):
        np.testing.assert_allclose(after[layer], encoded, atol=1e-5)
        np.testing.assert_allclose(before[layer], states[:, layer], atol=1e-5)
        assert not layer or np.abs(repeated[layer] - encoded).max() > 0.01  # the layer's block twice


def test_attention_of_groups_is_that_of_the_softmax_by_hand():
    encoder, params, video = make()
    groups = np.zeros((2, 3, 32), bool)
    groups[:, 0, :5], groups[0, 1, 5:32] = True, True  # the second scene has one group, and the third group is empty
    found = np.asarray(jax.jit(lambda *given: inside.attention(encoder, *given))(params, video, groups))
    assert found.shape == (2, 3, 3, 3) and (found[:, :, 2] == 0).all() and (found[1, :, 1] == 0).all()
    np.testing.assert_allclose(found[0, :, :2] @ [5, 27, 0], 1, atol=1e-5)  # weights of all keys add up to 1
    states = np.asarray(jax.jit(lambda *given: inside.states(encoder, *given))(params, video))
    for layer in range(3):
        own = jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf[layer], np.float64), params["stack"]["blocks"])
        x = states[:, layer].astype(np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * own["norm1"]["scale"] + own["norm1"]["bias"]
        qkv = (x @ own["attention"]["qkv"]["kernel"] + own["attention"]["qkv"]["bias"]).reshape(2, 32, 3, 3, 8)
        logits = np.einsum("bnhd,bmhd->bhnm", qkv[:, :, 0], qkv[:, :, 1]) / np.sqrt(8)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights = (weights / weights.sum(-1, keepdims=True)).mean(1)
        for i, j in ((0, 0), (0, 1), (1, 0)):
            wanted = weights[0][np.ix_(groups[0, i], groups[0, j])].mean()
            np.testing.assert_allclose(found[0, layer, i, j], wanted, rtol=1e-4)


def test_the_rest_of_the_network_has_the_gradient_of_finite_differences():
    encoder, params, video = make()
    weights, along = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)

    @jax.jit
    def slopes(params, video):
        tokens = inside.before(encoder, params, video, jnp.int32(1))

        def score(shift):
            return inside.after(encoder, params, tokens + shift * along, jnp.int32(1), GRID).mean(1) @ weights

        shifts = jax.lax.map(score, jnp.array([-0.01, 0.01]))
        return jax.vmap(jax.grad(lambda shift, b: score(shift)[b]), (None, 0))(0.0, jnp.arange(2)), shifts

    found, (low, high) = slopes(params, video)
    np.testing.assert_allclose(found, (np.asarray(high, np.float64) - np.asarray(low)) / 0.02, rtol=0.01, atol=1e-3)


def test_an_encoder_that_puts_out_earlier_layers_is_refused():
    encoder = Encoder(variant="24x3x3x40/8", levels=(0, 2))
    with pytest.raises(ConfigError, match=r"^objective.encoder.levels = \(0, 2\): must be \(\) to continue"):
        inside.after(encoder, {}, np.zeros((1, 32, 24), np.float32), np.int32(1), GRID)
