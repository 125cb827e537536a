"""BYOL and LeJEPA against NumPy, on one and eight devices. What must collapse does, and the methods do not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.siamese import Byol, LeJepa
from tests import scenes
from tests.objectives.test_jepa import ENCODER, as_batch, flat, started

KEY = jax.random.key(5)
MLP = {"hidden": (24,), "out": 8}
VIEWS = {"scale": (0.5, 1.0)}
SMALL = {"encoder": ENCODER, "projector": MLP, "steps": 10}
KINDS = [Byol, pytest.param(LeJepa, marks=pytest.mark.slow)]  # one compilation each


def make(kind, **fields):
    if kind is Byol:
        return Byol(**SMALL | {"predictor": {"hidden": (16,)}, "views": VIEWS} | fields)
    return LeJepa(**SMALL | {"views": VIEWS | {"count": 3}, "slices": 32, "weight": 0.1} | fields)


@functools.cache
def default(kind):
    """(objective, batch, fresh params, target, extra)."""
    objective, batch = make(kind), as_batch(scenes.batch(range(8)))
    return objective, batch, *jax.jit(objective.init)(jax.random.key(0), batch)


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
def perturbed_heads(kind):
    """(params, target) with such heads."""
    _, _, params, target, _ = default(kind)
    params = {name: part if name == "encoder" else perturbed(part) for name, part in params.items()}
    return params, jax.tree.map(lambda x: 0.9 * x + 0.01, {name: params[name] for name in target})


@functools.cache
def program(kind):
    """The jitted function of (params, target, batch) -> mean tokens by params and by target, metrics, extra, gradients
    to params and target."""
    objective, _, _, _, extra = default(kind)
    views_key = KEY if kind is Byol else jax.random.split(KEY)[0]

    def run(params, target, batch):
        views = objective._views(views_key, batch.video)
        tokens = [objective.pooled(part or params, views) for part in (params, target)]
        loss = jax.value_and_grad(objective.loss, (0, 1), has_aux=True)
        (_, (metrics, new)), gradients = loss(params, target, extra, batch, KEY, 3)
        return *tokens, metrics, new, *gradients

    return jax.jit(run)


@functools.cache
def compared(kind):
    """What `program` gives for the perturbed heads."""
    return jax.device_get(program(kind)(*perturbed_heads(kind), default(kind)[1]))


def test_byol_is_its_formula():
    (params, target), (mine, other, metrics, *_) = perturbed_heads(Byol), compared(Byol)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    projected = [mlp(params["projector"], mine[:, view]) for view in range(2)]
    online = [unit(mlp(params["predictor"], view)) for view in projected]
    wanted = [unit(mlp(target["projector"], other[:, view])) for view in range(2)]
    expected = ((online[0] - wanted[1]) ** 2).sum(-1) + ((online[1] - wanted[0]) ** 2).sum(-1)
    np.testing.assert_allclose(metrics["per_scene"], expected, rtol=1e-3, atol=1e-4)
    assert float(metrics["loss"]) == pytest.approx(expected.mean(), rel=1e-3)
    assert float(metrics["projection_std"]) == pytest.approx(8**0.5 * unit(projected[0]).std(0).mean(), rel=1e-3)


@pytest.mark.slow
def test_lejepa_is_its_formula():
    (params, _), (mine, _, metrics, *_) = perturbed_heads(LeJepa), compared(LeJepa)
    projected = mlp(params["projector"], mine.reshape(-1, 96)).reshape(8, 3, 8)  # all views share the statistics
    invariance = np.square(projected - projected.mean(1, keepdims=True)).mean()
    assert float(metrics["loss/invariance"]) == pytest.approx(invariance, rel=1e-3)
    slices = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (8, 32)), np.float64)
    along = projected @ (slices / np.sqrt((slices**2).sum(0)))  # [B, V, K]
    t = np.linspace(-3, 3, 33)  # twice 17 knots from 0 on, 0 in common
    normal = np.exp(-(t**2) / 2)
    distance = np.abs(np.exp(1j * along[..., None] * t).mean(0) - normal) ** 2 * normal
    statistic = 8 * np.trapezoid(distance, t).mean()
    assert float(metrics["loss/epps_pulley"]) == pytest.approx(statistic, rel=1e-3)
    total = 0.9 * metrics["loss/invariance"] + 0.1 * metrics["loss/epps_pulley"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize("kind, times", [(Byol, 2), pytest.param(LeJepa, 1, marks=pytest.mark.slow)])
def test_running_statistics_are_the_batchs(kind, times):
    """Flax's rule with momentum 0.9: once per view in BYOL, once for all views together in LeJEPA."""
    (params, _), (tokens, _, _, extra, *_) = perturbed_heads(kind), compared(kind)
    first = params["projector"]["dense0"]
    mean, hidden = np.zeros(24), tokens @ np.asarray(first["kernel"]) + np.asarray(first["bias"])
    for part in np.split(hidden, times, axis=1):
        mean = 0.9 * mean + 0.1 * part.mean((0, 1))
    stats = extra["batch_stats"]["projector"]["norm0"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], mean, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_and_never_the_target(kind):
    *_, mine, theirs = compared(kind)
    for name, gradient in flat(mine).items():
        # A bias in front of a batch norm changes nothing.
        assert np.isfinite(gradient).all() and ((gradient != 0).any() or "['dense0']['bias']" in name), name
    assert all((x == 0).all() for x in flat(theirs).values())


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_scenes_change_nothing(kind):
    _, batch, *_ = default(kind)
    valid = jnp.arange(8) < 6
    spoilt = dataclasses.replace(batch, valid=valid, video=batch.video.at[6:].set(7))
    heads = perturbed_heads(kind)
    one, two = (program(kind)(*heads, b)[2:4] for b in (dataclasses.replace(batch, valid=valid), spoilt))
    assert float(one[0]["loss"]) == pytest.approx(float(two[0]["loss"]), rel=1e-5)
    assert float(one[0]["loss"]) != pytest.approx(float(compared(kind)[2]["loss"]), rel=1e-5)
    for (name, a), b in zip(flat(one[1]).items(), flat(two[1]).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


def test_byols_target_follows_encoder_and_projector():
    objective, _, params, target, _ = default(Byol)
    moved = jax.tree.map(lambda x: x + 1.0, params)
    new, tau = objective.next_target(moved, target, 5), 0.998  # half of a cosine from 0.996 to 1
    jax.tree.map(lambda n, o: np.testing.assert_allclose(n, o + (1 - tau), atol=1e-6), new, target)
    assert new.keys() == {"encoder", "projector"} and default(LeJepa)[3] == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Byol, LeJepa])
def test_one_and_eight_devices_agree(kind):
    """Batch norm and the statistic see the global batch."""
    objective, _, *parts = default(kind)
    parts = jax.device_get(parts)

    def on(devices):
        mesh = sharding.make_mesh({}, 8, devices=jax.devices()[:devices])
        batch = sharding.put_batch(mesh, scenes.batch(range(8), shards=devices))
        run = jax.jit(lambda p, t, e, b: objective.loss(p, t, e, b, KEY, 0)[1])
        return jax.device_get(run(*jax.device_put(parts, sharding.everywhere(mesh)), batch))

    (one, one_extra), (eight, eight_extra) = on(1), on(8)
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    for (name, a), b in zip(flat(one_extra).items(), flat(eight_extra).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


def trained(objective, steps=150):
    """Metrics of the last of `steps` steps on fixed scenes."""
    _, batch, state, step = started(objective, as_batch(scenes.batch(range(16))), weight_decay=0.0)
    for _ in range(steps):
        state, metrics = step(state, batch)
    assert int(state.skipped) == 0
    return jax.device_get(metrics)


@pytest.mark.slow
def test_lejepa_collapses_without_its_statistic_and_not_with_it():
    good, bad = trained(make(LeJepa)), trained(make(LeJepa, weight=0.0))
    print({k: (float(good[k]), float(bad[k])) for k in good if good[k].ndim == 0})
    assert good["projection_std"] > 0.5 and good["loss/epps_pulley"] < 3
    assert bad["projection_std"] < 0.05 and bad["loss/epps_pulley"] > 0.3 * 16


@pytest.mark.slow
def test_byol_collapses_without_predictor_and_stop_gradient_and_not_with_them():
    good, bad = trained(make(Byol)), trained(make(Byol, predict=False, stop_gradient=False, ema=(0.0, 0.0)))
    print({k: (float(good[k]), float(bad[k])) for k in good if good[k].ndim == 0})
    assert bad["loss/cosine"] < good["loss/cosine"]
    assert bad["projection_std"] < 0.1 < 0.3 < good["projection_std"]


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


SMALL_VIEWS = VIEWS | {"count": 2, "small": 3, "small_size": 16, "small_scale": (0.1, 0.3)}


def test_small_views_are_refused_where_they_cannot_work():
    with pytest.raises(ConfigError, match="objective.views.small = 3: must be 0 with BYOL"):
        make(Byol, views=SMALL_VIEWS)
    with pytest.raises(ConfigError, match="objective.views.small_size = 15: must be a multiple of the patch"):
        make(LeJepa, views=SMALL_VIEWS | {"small_size": 15})


@pytest.mark.slow
def test_all_views_agree_with_the_mean_of_the_large_ones():
    objective, batch = make(LeJepa, views=SMALL_VIEWS), as_batch(scenes.batch(range(8)))
    params, _, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    params = {"encoder": params["encoder"], "projector": perturbed(params["projector"])}
    (_, (metrics, _)) = jax.jit(objective.loss)(params, {}, extra, batch, KEY, 3)
    key = jax.random.split(KEY)[0]
    large = objective.pooled(params, objective._views(key, batch.video))
    small = objective.pooled(params, objective._views.small_views(key, batch.video))
    pooled = np.concatenate([large, small], 1).astype(np.float64)
    projected = mlp(params["projector"], pooled.reshape(40, -1)).reshape(8, 5, 8)
    wanted = np.square(projected - projected[:, :2].mean(1, keepdims=True)).mean()
    assert float(metrics["loss/invariance"]) == pytest.approx(wanted, rel=1e-3)
