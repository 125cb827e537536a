"""The step under jax.pmap: on any number of devices the state and the metrics of the one under jit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax import train_step
from tests.objectives import test_jepa
from tests.test_accumulate import KEY, awkward, check, slow, whole

COUNTED = ("fallback_scenes", "skipped")


def split(tree, devices):
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), tree)


def joined(out):
    """One device's (value, gradient), of which all have the same; every device's own scenes one after the other."""
    for name, value in jax.tree_util.tree_leaves_with_path(out):
        if "per_scene" not in jax.tree_util.keystr(name):
            np.testing.assert_array_equal(value, np.broadcast_to(value[:1], value.shape), err_msg=str(name))
    (loss, (metrics, extra)), gradient = jax.tree.map(lambda x: np.asarray(x[0]), out)
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
    slices = functools.partial(train_step._by_slices, objective, microbatches, "data")
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
    slices = functools.partial(train_step._by_slices, objective, 1, "data")
    mapped = jax.pmap(slices, "data", in_axes=(None, None, None, 0, None, None), devices=jax.devices()[:1])
    traced = mapped.lower(*state, split(awkward(1), 1), KEY, 3)
    assert traced.as_text().count("dot_general") == plain.as_text().count("dot_general") > 0
