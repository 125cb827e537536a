"""BYOL and LeJEPA against NumPy, on one and eight devices; what must collapse does, and the methods do not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import losses, sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.siamese import Byol, LeJepa
from cjepa_jax.schedules import ema_momentum
from tests import scenes
from tests.objectives.test_jepa import ENCODER, as_batch, flat, started

MLP = {"hidden": (24,), "out": 8}
VIEWS = {"scale": (0.5, 1.0)}
SMALL = {"encoder": ENCODER, "projector": MLP, "steps": 10}


def make(kind, **fields):
    if kind is Byol:
        return Byol(**SMALL | {"predictor": {"hidden": (16,)}, "views": VIEWS} | fields)
    return LeJepa(**SMALL | {"views": VIEWS | {"count": 3}, "slices": 32, "weight": 0.1} | fields)


@functools.cache
def default(kind):
    """(objective, batch, state, jitted step)."""
    return started(make(kind), as_batch(scenes.batch(range(8))))


def mlp(params, x):
    """[B, D] float64 -> [B, out]: Dense, batch norm with the batch's own statistics, ReLU, Dense."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = x @ params["dense0"]["kernel"] + params["dense0"]["bias"]
    norm = params["norm0"]["BatchNorm_0"]
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * norm["scale"] + norm["bias"]
    return np.maximum(x, 0) @ params["out"]["kernel"] + params["out"]["bias"]


def perturbed(tree, by=0.3):
    """Other weights than fresh ones, whose batch norms are trivial."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [x + by * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


@functools.cache
def compared(kind):
    """(objective, params, target, mean tokens of params, of target [B, V, D], metrics) at perturbed heads."""
    objective, batch, state, _ = default(kind)
    heads = [name for name in state.params if name != "encoder"]
    params = state.params | {name: perturbed(state.params[name]) for name in heads}
    target = jax.tree.map(lambda x: 0.9 * x + 0.01, {k: params[k] for k in state.target})
    key = jax.random.key(5)
    views_key = key if kind is Byol else jax.random.split(key)[0]

    @jax.jit
    def run(params, target):
        views = objective._views(views_key, batch.video)
        seen = objective.pooled(params, views), objective.pooled(target or params, views)
        return *seen, objective.loss(params, target, state.extra, batch, key, 3)[1][0]

    return objective, params, target, *jax.device_get(run(params, target))


def test_byol_is_its_formula():
    _, params, target, mine, other, metrics = compared(Byol)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    projected = [mlp(params["projector"], mine[:, view]) for view in range(2)]
    online = [unit(mlp(params["predictor"], view)) for view in projected]
    wanted = [unit(mlp(target["projector"], other[:, view])) for view in range(2)]
    expected = ((online[0] - wanted[1]) ** 2).sum(-1) + ((online[1] - wanted[0]) ** 2).sum(-1)
    np.testing.assert_allclose(metrics["per_scene"], expected, rtol=1e-3, atol=1e-4)
    assert float(metrics["loss"]) == pytest.approx(expected.mean(), rel=1e-3)
    assert float(metrics["projection_std"]) == pytest.approx(8**0.5 * unit(projected[0]).std(0).mean(), rel=1e-3)


def test_lejepa_is_its_formula():
    objective, params, _, mine, _, metrics = compared(LeJepa)
    projected = mlp(params["projector"], mine.reshape(-1, 96)).reshape(8, 3, 8)  # all views share the statistics
    invariance = np.square(projected - projected.mean(1, keepdims=True)).mean()
    assert float(metrics["loss/invariance"]) == pytest.approx(invariance, rel=1e-3)
    slices = losses.random_slices(jax.random.split(jax.random.key(5))[1], 8, objective.slices)
    views = [losses.epps_pulley(jnp.asarray(projected[:, view], jnp.float32), slices) for view in range(3)]
    assert float(metrics["loss/epps_pulley"]) == pytest.approx(float(np.mean(views)), rel=1e-3)
    total = 0.9 * metrics["loss/invariance"] + 0.1 * metrics["loss/epps_pulley"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize("kind", [Byol, LeJepa])
def test_a_step_moves_parameters_target_and_statistics(kind):
    objective, batch, state, step = default(kind)
    new, metrics = step(state, batch)
    assert all(np.isfinite(value).all() for value in metrics.values()) and int(new.skipped) == 0
    for (name, a), b in zip(flat(state.params).items(), flat(new.params).values(), strict=True):
        assert (a != b).any() and b.dtype == np.float32, name
    for (name, a), b in zip(flat(state.extra).items(), flat(new.extra).values(), strict=True):
        assert (a != b).any(), name
    tau = float(ema_momentum(0, 10))
    for name, value in flat(new.target).items():
        np.testing.assert_allclose(
            value, tau * flat(state.target)[name] + (1 - tau) * flat(new.params)[name], atol=1e-6
        )
    again, _ = step(state, batch)
    for (name, a), b in zip(flat(new.params).items(), flat(again.params).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_running_statistics_are_the_batchs():
    """Flax's rule with momentum 0.9, once per view in BYOL, once for all views in LeJEPA."""
    for kind, times in ((Byol, 2), (LeJepa, 1)):
        objective, batch, state, step = default(kind)
        stats = step(state, batch)[0].extra["batch_stats"]["projector"]["norm0"]["BatchNorm_0"]
        key = jax.random.fold_in(jax.random.key(0), 0)
        views = objective._views(key if kind is Byol else jax.random.split(key)[0], batch.video)
        pooled = np.asarray(objective.pooled(state.params, views))
        hidden = pooled @ np.asarray(state.params["projector"]["dense0"]["kernel"])
        mean = np.zeros(24)
        for part in np.split(hidden, times, axis=1):
            mean = 0.9 * mean + 0.1 * part.mean((0, 1))
        np.testing.assert_allclose(stats["mean"], mean, atol=1e-4)


@pytest.mark.parametrize("kind", [Byol, LeJepa])
def test_one_and_eight_devices_agree(kind):
    """Batch norm and the statistic see the global batch."""
    objective = make(kind)

    def on(devices):
        mesh = sharding.make_mesh(8, jax.devices()[:devices])
        batch = sharding.put_batch(mesh, scenes.batch(range(8), shards=devices))
        home = sharding.state_sharding(mesh)
        state = jax.device_put(jax.device_get((default(kind)[2].params, default(kind)[2].target)), home)
        extra = jax.device_put(jax.device_get(default(kind)[2].extra), home)
        run = jax.jit(lambda p, t, e, b: objective.loss(p, t, e, b, jax.random.key(7), 0)[1])
        return jax.device_get(run(*state, extra, batch))

    (one, one_extra), (eight, eight_extra) = on(1), on(8)
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    for (name, a), b in zip(flat(one_extra).items(), flat(eight_extra).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", [Byol, LeJepa])
def test_invalid_scenes_change_nothing(kind):
    _, batch, state, step = default(kind)
    valid = jnp.arange(8) < 6
    spoilt = dataclasses.replace(batch, valid=valid, video=batch.video.at[6:].set(7))
    one, two = step(state, dataclasses.replace(batch, valid=valid)), step(state, spoilt)
    assert float(one[1]["loss"]) == pytest.approx(float(two[1]["loss"]), rel=1e-5)
    assert float(one[1]["loss"]) != pytest.approx(float(step(state, batch)[1]["loss"]), rel=1e-5)
    for (name, a), b in zip(flat(one[0].extra).items(), flat(two[0].extra).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


def test_byols_target_gets_no_gradient_unless_it_is_the_network_itself():
    objective, batch, state, _ = default(Byol)

    def loss(params, target):
        return objective.loss(params, target, state.extra, batch, jax.random.key(0), 0)[0]

    mine, theirs = jax.jit(jax.grad(loss, (0, 1)))(state.params, state.target)
    assert all(np.isfinite(x).all() for x in flat(mine).values())
    assert (flat(mine)["['encoder']['tokenizer']['projection']['kernel']"] != 0).any()
    assert all((x == 0).all() for x in flat(theirs).values())


@pytest.mark.parametrize(
    "kind, wrong, named",
    [
        (Byol, {"views": {"count": 3}}, "objective.views.count = 3"),
        (Byol, {"projector": MLP | {"norm": "group"}}, "objective.projector.norm = 'group'"),
        (Byol, {"predictor": {"hidden": (0,)}}, "objective.predictor"),
        (LeJepa, {"views": {"count": 1}}, "objective.views.count = 1"),
        (LeJepa, {"weight": 1.5}, "objective.weight = 1.5"),
        (LeJepa, {"slices": 0}, "objective.slices = 0"),
    ],
)
def test_values_that_cannot_work_are_refused(kind, wrong, named):
    with pytest.raises(ConfigError, match=named):
        make(kind, **wrong)
