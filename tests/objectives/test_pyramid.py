"""Prediction at several scales: pooling against loops, one level is Jepa to the bit, the weights of the terms, and the
feature pyramid against NumPy."""

import jax
import numpy as np
import pytest

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.fusion import Levels, parents
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


def layer(params, name, x):
    """Dense and LayerNorm in NumPy."""
    y = x @ np.float64(params[name]["kernel"]) + np.float64(params[name]["bias"])
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    norm = params[f"{name}_norm"]
    return y * np.float64(norm["scale"]) + np.float64(norm["bias"])


def test_a_square_takes_the_vector_of_the_one_that_holds_it():
    grid = (2, 3, 5)  # squares of 2: 2 x 3 a time
    coarse = np.random.default_rng(3).normal(size=(1, 12, 4)).astype(np.float32)
    found = np.asarray(parents(coarse, grid, 1))
    for t in range(2):
        for r in range(3):
            for c in range(5):
                np.testing.assert_array_equal(found[0, t * 15 + r * 5 + c], coarse[0, t * 6 + (r // 2) * 3 + c // 2])
    assert parents(coarse[:, :4], grid, 2).shape == (1, 12, 4)  # 1 x 2 above 2 x 3


@pytest.mark.parametrize("kind", ["project", "add", "concat"])
def test_the_pyramid_equals_numpy(kind):
    grid, rng = (1, 4, 4), np.random.default_rng(4)
    tokens, mask = rng.normal(size=(2, 16, 6)).astype(np.float32), rng.random((2, 16)) < 0.6
    net = Levels(kind, 3, grid)
    params = net.init(jax.random.key(0), tokens, mask)["params"]
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)
    found = jax.jit(net.apply)({"params": params}, tokens, mask)

    def average(x, side):
        n = 4 // side
        weight = mask.reshape(2, n, side, n, side, 1).astype(np.float64)
        total = (x.reshape(2, n, side, n, side, 6) * weight).sum((2, 4))
        return (total / np.maximum(weight.sum((2, 4)), 1)).reshape(2, n * n, 6)

    if kind == "project":
        wanted = [average(layer(params, f"project_{h}", np.float64(tokens)), 2**h) for h in range(3)]
    else:
        wanted = [layer(params, f"lateral_{h}", average(np.float64(tokens), 2**h)) for h in range(3)]
        for h in (1, 0):
            n = 4 // 2**h
            above = np.repeat(np.repeat(wanted[h + 1].reshape(2, n // 2, n // 2, 6), 2, 1), 2, 2).reshape(2, n * n, 6)
            above = layer(params, f"down_{h}", above)
            if kind == "add":
                wanted[h] = wanted[h] + above
            else:
                wanted[h] = np.maximum(layer(params, f"fuse_{h}", np.concatenate([wanted[h], above], -1)), 0)
        wanted = [layer(params, f"project_{h}", x) for h, x in enumerate(wanted)]
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, other, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["project", "add", "concat"])
def test_levels_of_a_pyramid_are_all_that_is_compared_and_targets_do_not_teach_them(kind):
    video = np.random.default_rng(1).integers(0, 256, (3, 4, 24, 24, 3), np.uint8)
    batch, key = batch_of(video, np.random.default_rng(2).random((3, 18)) < 0.5), jax.random.key(0)
    objective = Pyramid(**PLAIN, weights=(0.5, 2.0), variance=3.0, covariance=0.1, fusion=kind)
    params, target, extra = jax.jit(objective.init)(key, batch)
    assert set(params) == {"encoder", "predictor", "levels"}
    run = jax.jit(jax.value_and_grad(lambda p, t: objective.loss(p, t, extra, batch, key, 5), (0, 1), has_aux=True))
    (total, (metrics, _)), (slope, of_target) = run(params, target)
    terms = {"level/0": 0.5, "level/1": 2.0, "loss/variance": 3.0, "loss/covariance": 0.1}
    assert float(total) == pytest.approx(sum(w * float(metrics[name]) for name, w in terms.items()), rel=1e-5)
    assert all(np.any(x) for x in jax.tree.leaves(slope["levels"]["project_0"]))
    assert not any(np.any(x) for x in jax.tree.leaves(of_target))
    # VICReg's terms are those of the visible tokens' means and of each level's mean prediction.
    context = objective.encode_context(params, batch)
    prediction, _ = objective.predict(params, context, batch)
    net, hidden = Levels(kind, 2, (2, 3, 3)), ~batch.context
    made = net.apply({"params": params["levels"]}, prediction, hidden)
    means = [np.average(context, 1, np.broadcast_to(batch.context[..., None], context.shape))]
    for h in (0, 1):
        cells = np.broadcast_to(pool(prediction, hidden, (2, 3, 3), 2**h)[1][..., None], made[h].shape)
        means.append(np.average(made[h], 1, cells))
    for name, term in (("variance", losses.variance_hinge), ("covariance", losses.covariance)):
        assert float(metrics[f"loss/{name}"]) == pytest.approx(sum(float(term(x)) for x in means), rel=1e-4)
    # The layers learn as if the targets' vectors were numbers.
    wanted = np.random.default_rng(5).normal(size=prediction.shape).astype(np.float32)
    fixed = net.apply({"params": params["levels"]}, wanted, hidden)

    def error(levels):
        found = objective.further({"levels": levels}, prediction, wanted, hidden, batch)
        return sum(found[f"level/{h}"].sum() for h in (0, 1))

    def against_numbers(levels):
        found = net.apply({"params": levels}, prediction, hidden)
        each = [pool(prediction, hidden, (2, 3, 3), 2**h)[1] for h in (0, 1)]
        return sum(losses.smooth_l1_elementwise(*two, cells, 1.0, per_example=True).sum() for two, cells in
                   zip(zip(found, fixed, strict=True), each, strict=True))  # fmt: skip

    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4),
        *(jax.jit(jax.grad(run))(params["levels"]) for run in (error, against_numbers)),
    )


def test_a_pyramid_without_variance_is_refused():
    with pytest.raises(ConfigError, match=r"^objective.variance = 0.0: must be above 0 with objective.fusion = 'add'"):
        Pyramid(**PLAIN, fusion="add")


@pytest.mark.parametrize(
    "field, value", [("weights", ()), ("weights", (0.0, 1.0)), ("variance", -1.0), ("fusion", "sum")]
)
def test_values_that_cannot_work_are_refused(field, value):
    with pytest.raises(ConfigError, match=rf"^objective.{field} = "):
        Pyramid(**PLAIN, **{field: value})
