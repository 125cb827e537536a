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
