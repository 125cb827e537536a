"""One device or eight: the same loss, gradient and step; who feeds what."""

import functools

import jax
import numpy as np
import pytest

from cjepa_jax import sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.types import Rows
from tests import scenes
from tests.objectives import test_jepa


@functools.cache
def on(devices):
    """The default objective's batch of eight scenes, loss and gradients on so many devices."""
    mesh = sharding.make_mesh(8, jax.devices()[:devices])
    batch = sharding.put_batch(mesh, scenes.batch(range(8), shards=devices))
    objective = test_jepa.make()
    init = jax.jit(lambda batch: objective.init(jax.random.key(0), batch), out_shardings=sharding.state_sharding(mesh))
    params, target, _ = init(batch)
    target = jax.tree.map(lambda x: 1.1 * x, target)

    def loss(params, target, batch):
        return objective.loss(params, target, {}, batch, jax.random.key(0), 0)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (metrics, _)), gradient = run(params, target, batch)
    return batch, jax.device_get(metrics), gradient


def test_one_and_eight_devices_agree():
    _, one, gradient_one = on(1)
    batch, eight, gradient_eight = on(8)
    assert len(batch.video.sharding.device_set) == 8
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    single, spread = test_jepa.flat(gradient_one), test_jepa.flat(gradient_eight)
    assert single.keys() == spread.keys()
    for name, value in single.items():
        assert np.linalg.norm(spread[name] - value) <= 1e-5 * np.linalg.norm(value), name


def test_gradients_are_replicated():
    for leaf in jax.tree.leaves(on(8)[2]):
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == 8


def test_each_device_holds_its_scenes_and_its_rows():
    mesh = sharding.make_mesh(16)
    assert mesh.size == sharding.local_shards(mesh) == 8
    arrays = scenes.batch(range(16), shards=8)
    batch = sharding.put_batch(mesh, arrays)
    assert isinstance(batch.rows, Rows) and batch.states is None
    for d, shard in enumerate(sorted(batch.scene.addressable_shards, key=lambda s: s.index[0].start)):
        assert np.asarray(shard.data).tolist() == [2 * d, 2 * d + 1]
    assert {shard.data.shape for shard in batch.rows.index.addressable_shards} == {(1, 2, 16)}
    for name, value in arrays.items():
        jax.tree.map(np.testing.assert_array_equal, value, vars(getattr(batch, name)) if name == "rows" else
                     getattr(batch, name))  # fmt: skip


@pytest.mark.parametrize("batch", [1, 12, 31])
def test_batches_that_do_not_divide_are_refused(batch):
    with pytest.raises(ConfigError, match=f"train.batch = {batch}: must be a multiple of .* 8"):
        sharding.make_mesh(batch)
