"""Microbatches one after the other: the loss, the gradient and the metrics of the one large batch, in less memory."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cjepa_jax import microbatch, train_step
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.mae import Mae
from cjepa_jax.objectives.siamese import Byol
from cjepa_jax.objectives.supervised import Supervised
from tests import scenes
from tests.broken_objective import NanAt
from tests.objectives import test_jepa, test_joint, test_mae, test_supervised

KEY = jax.random.key(1)
OBJECTIVES = {
    "kl": test_jepa.make,
    "epps_pulley": functools.partial(test_jepa.make, sigreg_kind="epps_pulley"),
    "document": functools.partial(test_jepa.make, target_norm="layer_norm", prediction_loss="elementwise"),
    "mae": test_mae.make,
    "regression": functools.partial(Supervised, test_supervised.BACKBONES["vit"], 10),
    "classes": functools.partial(Supervised, test_supervised.BACKBONES["vit"], 10, classes=7),
}


def awkward(shards, count=8):
    """Scenes for this number of shards: the fourth has no hidden token, the seventh does not count, and only some
    have an intervened scene. With two or more microbatches one of them has fewer such than another."""
    batch = test_jepa.as_batch(scenes.batch(range(count), shards=shards, intervened="rerender"))
    scene = np.arange(count)
    return dataclasses.replace(
        batch,
        hidden=~np.asarray(batch.context) & (scene != 3)[:, None],
        valid=scene != 6,
        intervened_valid=np.isin(scene % 8, (0, 1, 3, 6)),
    )


@functools.cache
def whole(name):
    """(objective, arguments of its loss but the batch, what value_and_grad returns for the large batch)."""
    objective, batch = OBJECTIVES[name](), awkward(1)
    params, target, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    target = jax.tree.map(lambda x: np.float32(1.1) * np.asarray(x), target)
    out = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))(params, target, extra, batch, KEY, 3)
    return objective, (params, target, extra), out


def check(found, expected, tolerance=1e-5):
    """The same loss, metrics and next `extra`, and every leaf of the gradient to `tolerance` of its norm."""
    ((loss, (metrics, extra)), gradient), ((right, (metrics_right, extra_right)), gradient_right) = found, expected
    assert float(loss) == pytest.approx(float(right), rel=1e-5)
    assert metrics.keys() == metrics_right.keys()
    for name, value in metrics_right.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), extra, extra_right)
    gradient, gradient_right = test_jepa.flat(gradient), test_jepa.flat(gradient_right)
    assert gradient.keys() == gradient_right.keys()
    for name, value in gradient_right.items():
        assert np.linalg.norm(gradient[name] - value) <= tolerance * np.linalg.norm(value), name


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "name, microbatches",
    [slow("kl", 8), *(slow(name, 4) for name in OBJECTIVES)],  # fast: in test_train_step.py
)
def test_microbatches_are_one_batch(name, microbatches):
    objective, state, expected = whole(name)
    slices = jax.jit(functools.partial(microbatch.sliced, objective, microbatches, None))
    check(slices(*state, awkward(microbatches), KEY, 3), expected)


@pytest.mark.slow
def test_microbatches_on_many_devices_are_one_batch_and_no_scene_leaves_its_device():
    """Under jit on four devices: what a scene gives is gathered, gradients are summed, nothing else moves."""
    objective, state, expected = whole("kl")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    divided, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    slices = jax.jit(functools.partial(microbatch.sliced, objective, 2, None), out_shardings=everywhere)
    arguments = (*jax.device_put(state, everywhere), jax.device_put(awkward(8), divided), KEY, 3)
    text = slices.lower(*arguments).compile().as_text()
    assert " all-reduce(" in text and " all-to-all(" not in text and " collective-permute(" not in text
    gathered = [int(np.prod(json.loads(shape))) for shape in re.findall(r"= \w+(\[[0-9,]+\])\S* all-gather\(", text)]
    assert 0 < max(gathered) <= 8 * 96  # pooled features
    check(slices(*arguments), expected)


def test_per_scene_and_slices_keep_the_order_of_data_shards():
    """Two shards of two microbatches each: shard 0 has scenes 0-3, of which 0 and 1 come first."""
    batch = jax.device_get(awkward(4))
    parts = microbatch.split(batch, 2)
    assert parts.scene.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert parts.rows.index.shape[:2] == (2, 2) and batch.rows.index.shape[0] == 4
    np.testing.assert_array_equal(parts.rows.index[1], batch.rows.index[1::2])
    np.testing.assert_array_equal(microbatch._merge(parts.scene, 2), batch.scene)


@pytest.mark.slow
def test_slots_draw_other_objects_in_every_microbatch():
    """What is drawn in the step differs from slice to slice, so only finiteness and counts can be compared."""
    objective, batch = test_joint.make(), awkward(2)
    _, _, state, _ = test_jepa.started(objective, batch)
    step = jax.jit(train_step.make(objective, optax.identity(), lambda step: 1e-3, 0, 2))
    twice = jax.tree.map(lambda x: x, dataclasses.replace(batch, video=jnp.tile(batch.video[:4], (2, 1, 1, 1, 1))))
    new, metrics = step(dataclasses.replace(state, opt_state=optax.EmptyState()), twice)
    assert int(new.skipped) == 0 and all(np.isfinite(value).all() for value in metrics.values())
    assert (metrics["per_scene"][:4] != metrics["per_scene"][4:]).any()


@functools.cache
def stepping():
    """(state, batch of floats laid out for four microbatches, jitted step) of the default objective."""
    batch = awkward(4)
    batch = dataclasses.replace(batch, video=batch.video.astype(jnp.float32))
    objective, _, state, _ = test_jepa.started(test_jepa.make(), batch)
    optimizer = optax.adam(1.0)
    state = dataclasses.replace(state, opt_state=optimizer.init(state.params))
    return state, batch, jax.jit(train_step.make(objective, optimizer, lambda step: 1e-3, 0, 4))


@pytest.mark.slow
def test_a_microbatch_that_is_not_finite_skips_the_whole_step():
    state, batch, step = stepping()
    good, metrics = step(state, batch)
    assert int(metrics["skipped"]) == 0
    for scene in (0, 5):
        new, metrics = step(good, dataclasses.replace(batch, video=batch.video.at[scene].set(jnp.nan)))
        for field in ("params", "target", "opt_state"):
            jax.tree.map(np.testing.assert_array_equal, getattr(good, field), getattr(new, field))
        assert (int(new.step), int(new.skipped), int(metrics["skipped"])) == (2, 1, 1)
        assert np.flatnonzero(~np.isfinite(metrics["per_scene"])).tolist() == [scene]
    new, metrics = step(new, batch)
    assert int(metrics["skipped"]) == 0 and np.isfinite(metrics["loss"]) and int(new.skipped) == 1


@pytest.mark.slow
def test_microbatches_take_the_memory_of_one():
    """Scratch memory of the gradient of 64 scenes: in 8 slices under a third of it, next to nothing for their sum."""
    objective = test_jepa.make()
    state = objective.init(jax.random.key(0), awkward(1))

    def scratch(microbatches):
        run = jax.value_and_grad(objective.loss, has_aux=True)
        if microbatches > 1:
            run = functools.partial(microbatch.sliced, objective, microbatches, None)
        compiled = jax.jit(run).lower(*state, awkward(microbatches, 64), KEY, 3).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert scratch(8) < scratch(1) / 3


def products(run, *arguments):
    """Matrix products in what XLA has made of a function. A loop's body counts once."""
    return jax.jit(run).lower(*arguments).compile().as_text().count(" dot(")


@pytest.mark.slow
def test_the_first_pass_is_of_the_context_encoder_alone():
    """Besides the gradient's products there are those of one encoding: no targets, no predictor. With MAE none."""
    for name, encodings in (("kl", 1), ("mae", 0)):
        objective, state, _ = whole(name)
        gradient = products(jax.value_and_grad(objective.loss, has_aux=True), *state, awkward(1), KEY, 3)
        context = products(objective.encode_context, state[0], awkward(1))
        slices = functools.partial(microbatch.sliced, objective, 2, None)
        assert products(slices, *state, awkward(2), KEY, 3) == gradient + encodings * context > 0


BYOL = {"encoder": test_jepa.ENCODER, "projector": {"norm": "none"}, "predictor": {"norm": "none"}, "steps": 10}


@pytest.mark.parametrize(
    "objective, why",
    [
        (NanAt(test_jepa.ENCODER, test_jepa.PREDICTOR, 10), "NanAt: its loss needs the batch as a whole"),
        (Byol(**BYOL), "Byol: its loss needs the batch as a whole"),
        (Supervised(test_supervised.BACKBONES["resnet"], 10), "Supervised: the batch norms of objective.backbone need"),
    ],
)
def test_objectives_that_need_the_batch_as_a_whole_are_refused_slices(objective, why):
    train_step.make(objective, optax.identity(), lambda step: 1e-3, 0)
    with pytest.raises(ConfigError, match=f"train.accumulate = 2: must be 1 with objective.type = {why}"):
        train_step.make(objective, optax.identity(), lambda step: 1e-3, 0, microbatches=2)
    with pytest.raises(ConfigError, match=f"sharding.mode = 'pmap': must be jit with objective.type = {why}"):
        train_step.make(objective, optax.identity(), lambda step: 1e-3, 0, axis="data")


def test_mae_is_not_refused():
    train_step.make(Mae(test_mae.ENCODER, test_mae.DECODER, 10), optax.identity(), lambda step: 1e-3, 0, 2)
