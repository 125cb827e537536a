"""The step: what is not finite changes nothing, whichever part of it. Under jax.pmap on any number of devices the state
and the metrics of the one under jit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax import microbatch, optim, train_step
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.types import Batch
from configs import vitl
from tests.objectives import test_jepa
from tests.test_accumulate import KEY, awkward, check, slow, whole

COUNTED = ("fallback_scenes", "skipped")


class Parabola:
    """The sum of w^2 + the constant batch[1]. Where batch[0] is not 0 also sqrt(w - w): 0, with an infinite slope."""

    def loss(self, params, target, extra, batch, key, step):
        w = params["w"]
        steep = jnp.sqrt(jnp.where(batch[0] != 0, w - jax.lax.stop_gradient(w), 1.0)).sum()
        total = (w**2).sum() + steep + jax.lax.stop_gradient(batch[1])
        return total, ({"loss": total, "draw": jax.random.uniform(key)}, {"steps": extra["steps"] + 1})

    def next_target(self, params, target, step):
        return jax.tree.map(lambda old, new: 0.5 * (old + new), target, params)


@pytest.mark.parametrize(
    "batch, rate, loss, norm",
    [
        pytest.param((1.0, 0.0), 0.1, True, False, id="only the gradient is infinite"),
        pytest.param((0.0, np.inf), 0.1, False, True, id="only the loss is infinite"),
        pytest.param((0.0, np.nan), 0.1, False, True, id="only the loss is no number"),
        pytest.param((0.0, 0.0), np.inf, True, True, id="only the update is infinite"),
    ],
)
def test_a_step_that_is_not_finite_in_one_part_alone_changes_nothing(batch, rate, loss, norm):
    optimizer = optim.make(vitl.get_config().optim)
    params = {"w": np.array([1.0, -2.0, 3.0], np.float32)}
    zero = np.zeros((), np.int32)
    state = train_step.TrainState(zero, params, {"w": np.ones(3, np.float32)}, {"steps": zero}, None, zero)
    state = dataclasses.replace(state, opt_state=optimizer.init(params))
    step = jax.jit(train_step.make(Parabola(), optimizer, lambda step: jnp.where(step == 1, rate, 0.1), 0))
    good, metrics = step(state, np.zeros(2, np.float32))
    assert int(metrics["skipped"]) == 0 and int(good.extra["steps"]) == 1 and (good.params["w"] != params["w"]).all()
    new, metrics = step(good, np.array(batch, np.float32))
    assert (np.isfinite(metrics["loss"]), np.isfinite(metrics["grad_norm"])) == (loss, norm)
    assert (int(new.step), int(new.skipped), int(metrics["skipped"])) == (2, 1, 1)
    for field in ("params", "target", "extra", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, field), getattr(good, field))


class Drawn(PerExample):
    """A scene's part of the loss is its own number times what is drawn with the slice's key. Reduce draws too."""

    def per_example_terms(self, params, target, extra, batch, key):
        drawn = jax.random.uniform(key)
        return {"part": params["w"] * batch.scene * drawn}, {"drawn": drawn[None]}

    def reduce(self, terms, stats, extra, key, step):
        return terms["part"].sum(), ({"drawn": stats["drawn"], "whole": jax.random.uniform(key)}, extra)


@pytest.mark.parametrize("devices, microbatches", [(1, 2), (2, 1), (2, 2)])
def test_every_slice_draws_from_a_key_of_its_own_and_the_gradient_is_of_all(devices, microbatches):
    count, key = devices * microbatches, jax.random.key(3)
    batch = Batch(np.arange(8, dtype=np.float32), *[None] * 7, valid=np.ones(8, bool))
    slices = functools.partial(microbatch.sliced, Drawn(), microbatches, "data" if devices > 1 else None)
    arguments = {"w": np.float32(1)}, {}, {}
    if devices == 1:
        (_, (metrics, _)), gradient = jax.jit(slices)(*arguments, batch, key, 0)
    else:
        axes = None, None, None, 0, None, None
        mapped = jax.pmap(slices, "data", in_axes=axes, devices=jax.devices()[:devices])
        (_, (metrics, _)), gradient = jax.tree.map(lambda x: x[0], mapped(*arguments, split(batch, devices), key, 0))
    expected = [float(jax.random.uniform(jax.random.fold_in(key, number))) for number in range(count)]
    np.testing.assert_allclose(metrics["drawn"], expected, rtol=1e-6)
    assert float(metrics["whole"]) == pytest.approx(float(jax.random.uniform(key)))
    parts = np.arange(8).reshape(count, -1).sum(1)  # runs of scenes, one after the other
    assert float(gradient["w"]) == pytest.approx((parts * expected).sum(), rel=1e-5)


def test_every_step_draws_from_the_seed_and_its_number():
    optimizer = optim.make(vitl.get_config().optim)
    params, zero = {"w": np.ones(3, np.float32)}, np.zeros((), np.int32)
    state = train_step.TrainState(zero, params, params, {"steps": zero}, optimizer.init(params), zero)
    for seed in (0, 7):
        step = jax.jit(train_step.make(Parabola(), optimizer, lambda step: 0.1, seed))
        now = state
        for number in range(2):
            now, metrics = step(now, np.zeros(2, np.float32))
            expected = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), number))
            assert float(metrics["draw"]) == pytest.approx(float(expected))


def split(tree, devices):
    return jax.tree.map(lambda x: np.reshape(x, (devices, -1, *x.shape[1:])), jax.device_get(tree))


def joined(out):
    """One device's (value, gradient), which all devices share. Scenes are in the order of the devices."""
    for name, value in jax.tree_util.tree_leaves_with_path(out):
        if "per_scene" not in jax.tree_util.keystr(name):
            value = np.asarray(value)
            np.testing.assert_array_equal(value, np.broadcast_to(value[:1], value.shape), err_msg=str(name))
    (loss, (metrics, extra)), gradient = jax.tree.map(lambda x: np.asarray(x)[0], out)
    every = np.asarray(out[0][1][0]["per_scene"]).reshape(-1)
    return (loss, (metrics | {"per_scene": every}, extra)), gradient


@pytest.mark.parametrize(
    "name, devices, microbatches",
    [
        ("kl", 2, 2),
        *(slow("kl", devices, k) for devices, k in ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2))),
        slow("epps_pulley", 4, 2),
        slow("mae", 8, 1),
        slow("regression", 4, 2),
    ],
)
def test_devices_of_pmap_are_one_batch(name, devices, microbatches):
    objective, state, expected = whole(name)
    slices = functools.partial(microbatch.sliced, objective, microbatches, "data")
    mapped = jax.pmap(slices, "data", in_axes=(None, None, None, 0, None, None), devices=jax.devices()[:devices])
    check(joined(mapped(*state, split(awkward(devices * microbatches), devices), KEY, 3)), expected)


@functools.cache
def stepping(devices):
    """(mapped step, state and batch of the default objective, a float video)."""
    batch = awkward(devices)
    batch = dataclasses.replace(batch, video=batch.video.astype(jnp.float32))
    objective, optimizer = test_jepa.make(), optax.adam(1.0)
    state = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))(batch)
    make = functools.partial(train_step.make, objective, optimizer, lambda step: 1e-3, 0)
    mapped = jax.pmap(make(axis="data"), "data", in_axes=(None, 0), devices=jax.devices()[:devices])
    return mapped, jax.jit(make()), state, batch


@pytest.mark.slow
def test_a_mapped_step_is_the_jitted_one_and_skips_on_all_devices_alike():
    mapped, jitted, state, batch = stepping(4)
    (many, metrics), (one, expected) = mapped(state, split(batch, 4)), jitted(state, awkward_floats(1))
    for name, value in expected.items():
        found = metrics[name].reshape(-1) if name == "per_scene" else metrics[name][0]
        np.testing.assert_allclose(found, value, rtol=2e-5, atol=1e-5, err_msg=name)
    for name, value in test_jepa.flat(one.target).items():
        np.testing.assert_allclose(test_jepa.flat(many.target)[name][0], value, atol=1e-5, err_msg=name)
    spoilt = dataclasses.replace(batch, video=batch.video.at[5].set(jnp.nan))
    new, metrics = mapped(state, split(spoilt, 4))
    assert new.skipped.tolist() == [1] * 4 and metrics["skipped"].tolist() == [1] * 4 and new.step.tolist() == [1] * 4
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.broadcast_to(b, a.shape)), new.params, state.params)
    assert np.flatnonzero(~np.isfinite(metrics["per_scene"].reshape(-1))).tolist() == [5]


def awkward_floats(shards):
    batch = awkward(shards)
    return dataclasses.replace(batch, video=batch.video.astype(jnp.float32))


@pytest.mark.slow
def test_one_microbatch_takes_no_second_forward_pass():
    objective, state, _ = whole("kl")
    plain = jax.jit(jax.value_and_grad(objective.loss, has_aux=True)).lower(*state, awkward(1), KEY, 3)
    slices = functools.partial(microbatch.sliced, objective, 1, "data")
    mapped = jax.pmap(slices, "data", in_axes=(None, None, None, 0, None, None), devices=jax.devices()[:1])
    traced = mapped.lower(*state, split(awkward(1), 1), KEY, 3)
    assert traced.as_text().count("dot_general") == plain.as_text().count("dot_general") > 0
