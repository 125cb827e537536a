"""Prediction at several scales: pooling against loops, one level is Jepa to the bit, the weights of the terms."""

import jax
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.objectives.pyramid import Pyramid, pool
from tests.objectives.test_dense import SIZES, batch_of


def test_pooling_is_the_mean_of_the_masked_tokens_of_each_square():
    grid, rng = (2, 3, 5), np.random.default_rng(0)
    tokens, mask = rng.normal(size=(2, 30, 4)).astype(np.float32), rng.random((2, 30)) < 0.4
    run = jax.jit(pool, static_argnums=(2, 3))
    found, cells = run(tokens, mask, grid, 2)
    for b in range(2):
        square = 0
        for t in range(2):
            for r in range(0, 3, 2):
                for c in range(0, 5, 2):
                    inside = [t * 15 + i * 5 + j for i in range(r, min(r + 2, 3)) for j in range(c, min(c + 2, 5))]
                    own = [n for n in inside if mask[b, n]]
                    assert bool(cells[b, square]) == bool(own)
                    wanted = tokens[b, own].mean(0) if own else np.zeros(4)
                    np.testing.assert_allclose(found[b, square], wanted, atol=1e-6)
                    square += 1
        assert square == found.shape[1]
    same, cells = run(tokens, mask, grid, 1)
    np.testing.assert_allclose(same, np.where(mask[..., None], tokens, 0), atol=1e-7)
    np.testing.assert_array_equal(cells, mask)


PLAIN = SIZES | dict(prediction_loss="elementwise", target_norm="layer_norm", causal_weight=0.0, sigreg_weight=0.0)


@pytest.mark.slow
def test_one_level_is_jepa_to_the_bit_and_more_add_their_terms():
    video = np.random.default_rng(1).integers(0, 256, (3, 4, 24, 24, 3), np.uint8)
    context = np.random.default_rng(2).random((3, 18)) < 0.5
    batch, key = batch_of(video, context), jax.random.key(0)
    plain = Jepa(**PLAIN)
    params, target, extra = jax.jit(plain.init)(key, batch)
    run = lambda objective: jax.jit(jax.value_and_grad(  # noqa: E731
        lambda p: objective.loss(p, target, extra, batch, key, 5), has_aux=True
    ))(params)  # fmt: skip
    (wanted, (its, _)), slope = run(plain)
    (found, _), own = run(Pyramid(**PLAIN, weights=(1.0,)))
    assert float(found) == float(wanted)
    jax.tree.map(np.testing.assert_array_equal, own, slope)
    (total, (metrics, _)), _ = run(Pyramid(**PLAIN, weights=(0.5, 2.0), variance=3.0, covariance=0.1))
    assert float(metrics["level/0"]) == pytest.approx(float(its["loss/prediction"]), rel=1e-6)
    terms = {"loss/prediction": 0.5, "level/1": 2.0, "loss/variance": 3.0, "loss/covariance": 0.1}
    assert float(total) == pytest.approx(sum(w * float(metrics[name]) for name, w in terms.items()), rel=1e-5)
    assert float(metrics["level/1"]) < float(metrics["level/0"])  # a mean varies less
    assert metrics["level/0_copy"] > 0


@pytest.mark.parametrize("field, value", [("weights", ()), ("weights", (0.0, 1.0)), ("variance", -1.0)])
def test_values_that_cannot_work_are_refused(field, value):
    with pytest.raises(ConfigError, match=rf"^objective.{field} = "):
        Pyramid(**PLAIN, **{field: value})
