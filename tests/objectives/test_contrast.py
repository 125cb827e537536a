"""SimCLR, VICReg and DINO against NumPy, and what must hold for each of their steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.contrast import Dino, SimClr, VicReg, cross_entropy, nt_xent
from tests import scenes
from tests.objectives.test_jepa import ENCODER, as_batch, flat

SMALL = {"encoder": ENCODER, "projector": {"hidden": (24,), "out": 8}, "steps": 10, "views": {"scale": (0.5, 1.0)}}
KINDS = {"simclr": SimClr, "vicreg": VicReg, "dino": functools.partial(Dino, prototypes=6)}


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_nt_xent_is_its_formula_over_the_scenes_that_count():
    views, valid = rows(5, 2, 4), np.array([True, True, False, True, True])
    run = jax.jit(lambda x: (nt_xent(x, valid, 0.5), jax.grad(lambda x: nt_xent(x, valid, 0.5).sum())(x)))
    found, _ = run(views)
    unit = views / np.linalg.norm(views, axis=-1, keepdims=True)
    places = [(b, v) for b in range(5) for v in range(2) if valid[b]]
    for b in range(5):
        if not valid[b]:
            assert found[b] == 0
            continue
        errors = []
        for v in range(2):
            others = {(c, w): np.exp(unit[b, v] @ unit[c, w] / 0.5) for c, w in places if (c, w) != (b, v)}
            errors.append(-np.log(others[b, 1 - v] / sum(others.values())))
        assert float(found[b]) == pytest.approx(np.mean(errors), rel=1e-5)
    assert np.isfinite(run(np.zeros((5, 2, 4), np.float32))[1]).all()


def test_simclr_normalises_both_views_together_and_vicreg_each_alone():
    """So what is added to all first views is taken out of VICReg's projections, and not out of SimCLR's."""
    pooled, valid = rows(5, 2, 96), np.array([True, True, False, True, True])
    shifted = pooled + np.array([3.0, 0.0], np.float32)[:, None]
    for kind, same in ((SimClr, False), (VicReg, True)):
        objective = kind(**SMALL | {"projector": {"hidden": (24,), "out": 8, "norm": "batch"}})
        params, _, extra = jax.jit(objective.init)(jax.random.key(0), as_batch(scenes.batch(range(2))))
        project = jax.jit(objective.project)
        own = params["projector"], extra["batch_stats"]["projector"]
        one, other = (project(*own, x, valid)[0][valid] for x in (pooled, shifted))
        assert np.allclose(one, other, atol=1e-4) == same
        moved = pooled.copy()
        moved[2] += 5.0  # a filling
        np.testing.assert_allclose(project(*own, moved, valid)[0][valid], one, atol=1e-6)


def test_vicreg_is_its_formula():
    views, valid = 0.7 * rows(9, 2, 4), np.arange(9) < 8
    per_scene, terms, total = jax.jit(VicReg(**SMALL).compare)(views, valid)
    x = views[:8].astype(np.float64)
    mse = np.square(x[:, 0] - x[:, 1]).mean()
    hinge, covariance = [], []
    for view in x.swapaxes(0, 1):
        hinge.append(np.maximum(0, 1 - np.sqrt(view.var(0, ddof=1) + 1e-4)).mean())
        matrix = np.cov(view.T)
        covariance.append((np.square(matrix).sum() - np.square(np.diag(matrix)).sum()) / 4)
    assert float(terms["invariance"]) == pytest.approx(mse, rel=1e-5)
    assert float(terms["variance"]) == pytest.approx(np.mean(hinge), rel=1e-4)  # the code averages the two views
    assert float(terms["covariance"]) == pytest.approx(sum(covariance), rel=1e-4)
    assert float(total) == pytest.approx(25 * mse + 25 * np.mean(hinge) + sum(covariance), rel=1e-4)
    np.testing.assert_allclose(per_scene[:8], np.square(x[:, 0] - x[:, 1]).mean(-1), rtol=1e-5)


def test_dinos_loss_is_of_pairs_of_different_views():
    scores, classes = rows(3, 4, 5), np.exp(rows(3, 2, 5, seed=1))
    classes /= classes.sum(-1, keepdims=True)
    log = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    wanted = [
        np.mean([-(classes[b, g] * log[b, v]).sum() for g in range(2) for v in range(4) if g != v]) for b in range(3)
    ]
    np.testing.assert_allclose(jax.jit(cross_entropy)(scores, classes), wanted, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reaches_every_parameter_and_filling_scenes_change_nothing(kind):
    objective, batch = KINDS[kind](**SMALL), as_batch(scenes.batch(range(8)))
    params, target, extra = jax.jit(objective.init)(jax.random.key(0), batch)

    def loss(params, valid):
        return objective.loss(params, target, extra, dataclasses.replace(batch, valid=valid), jax.random.key(1), 3)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, (metrics, following)), slope = run(params, batch.valid)
    assert np.isfinite(total) and metrics["loss"] == total
    for name, leaf in flat(slope).items():
        assert np.isfinite(leaf).all() and ((leaf != 0).any() or "['dense0']['bias']" in name), name
    assert jax.tree.map(jnp.shape, following) == jax.tree.map(jnp.shape, extra)
    half = batch.valid & (np.arange(8) < 4)
    (one, _), _ = run(params, half)
    assert np.isfinite(one) and one != total
    if kind == "dino":
        assert (np.asarray(following["centre"]) != 0).any() and 1 <= metrics["classes_used"] <= 6
        moved = objective.next_target(jax.tree.map(lambda x: x + 1, params), target, 0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 0.004, atol=1e-5), moved, target)


@pytest.mark.parametrize(
    "kind, fields, text",
    [
        (SimClr, {"temperature": 0}, "objective.temperature = 0: must be above 0"),
        (SimClr, {"views": {"count": 3}}, "objective.views.count = 3: must be 2 with SimClr"),
        (VicReg, {"variance": -1.0}, "objective.variance = -1.0: must be 0 or more"),
        (Dino, {"prototypes": 1}, "objective.prototypes = 1: must be at least 2"),
        (Dino, {"views": {"count": 1}}, "objective.views.count = 1: must be at least 2 with DINO"),
    ],
)
def test_values_that_cannot_work_are_refused(kind, fields, text):
    with pytest.raises(ConfigError) as error:
        kind(**SMALL | fields)
    assert str(error.value).startswith(text)
