"""The mesh, who feeds what, and where parameters live: what is refused in one line. See also tests/test_parity.py."""

import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from cjepa_jax import experiment, sharding, train_step
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import ConfigError
from cjepa_jax.types import Rows
from configs import clips
from tests import running, scenes
from tests.objectives import test_jepa


def test_each_device_holds_its_scenes_and_its_rows():
    mesh = sharding.make_mesh({"fsdp": 2}, 16)
    assert mesh.shape == {"data": 4, "fsdp": 2, "tensor": 1}
    assert sharding.shards(mesh) == sharding.local_shards(mesh) == 8
    arrays = scenes.batch(range(16), shards=8)
    batch = sharding.put_batch(mesh, arrays)
    assert isinstance(batch.rows, Rows) and batch.states is None
    for d, shard in enumerate(sorted(batch.scene.addressable_shards, key=lambda s: s.index[0].start)):
        assert np.asarray(shard.data).tolist() == [2 * d, 2 * d + 1]
    assert {shard.data.shape for shard in batch.rows.index.addressable_shards} == {(1, 2, 16)}
    assert batch.rows.alone  # two rows for two scenes
    for name, value in arrays.items():
        held = getattr(batch, name)
        jax.tree.map(np.testing.assert_array_equal, Rows(**value, alone=True) if name == "rows" else value, held)


def test_devices_of_a_tensor_group_hold_the_same_scenes():
    mesh = sharding.make_mesh({"tensor": 2, "data": 4}, 4)
    assert sharding.shards(mesh) == sharding.local_shards(mesh) == 4
    batch = sharding.put_batch(mesh, scenes.batch(range(4), shards=4))
    held = [np.asarray(shard.data).item() for shard in batch.scene.addressable_shards]
    assert sorted(held) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    "layout,batch,microbatches,text",
    [
        ({}, 1, 1, "train.batch = 1: must be a multiple of the number of devices, 8"),
        ({}, 12, 1, "train.batch = 12: must be a multiple of the number of devices, 8"),
        ({}, 16, 4, "train.batch = 16: must be a multiple of sharding.data x fsdp x train.accumulate = 8 x 1 x 4, 32"),
        ({"tensor": 2, "fsdp": 2}, 6, 1, "train.batch = 6: must be a multiple of .* = 2 x 2 x 1, 4"),
        ({"fsdp": 3}, 24, 1, "sharding.fsdp x sharding.tensor = 3 x 1 = 3: must divide the number of devices, 8"),
        ({"data": 2, "fsdp": 2}, 8, 1, "sharding.data x fsdp x tensor = 2 x 2 x 1 = 4: must be the .* devices, 8"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(layout, batch, microbatches, text):
    with pytest.raises(ConfigError, match=text):
        sharding.make_mesh(layout, batch, microbatches)


@functools.cache
def shapes():
    """The default objective's state, as shapes."""
    batch = test_jepa.as_batch(scenes.batch(range(2)))
    init = functools.partial(train_step.init_state, test_jepa.make(), optax.scale_by_adam(), 0)
    return jax.eval_shape(init, batch)


def specs(rules=(), **layout):
    mesh = sharding.make_mesh(layout, 8)
    tree = sharding.state_sharding(mesh, shapes(), rules)
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec for path, leaf in paths}


def test_parameters_target_and_optimiser_live_alike_and_counters_everywhere():
    found = specs(fsdp=2, tensor=2)
    blocks = "encoder/stack/blocks"
    for name, spec in {
        "attention/qkv/kernel": P(None, ("tensor", "fsdp"), None),
        "attention/out/kernel": P(None, "tensor", "fsdp"),
        "mlp/up/kernel": P(None, "fsdp", "tensor"),
        "mlp/up/bias": P(None, "tensor"),
        "mlp/down/kernel": P(None, "tensor", "fsdp"),
    }.items():
        for tree in (f"params/{blocks}", f"opt_state/mu/{blocks}", f"opt_state/nu/{blocks}", "target/stack/blocks"):
            assert found[f"{tree}/{name}"] == spec, (tree, name)
    assert found["params/encoder/tokenizer/projection/kernel"] == P("fsdp", None)
    for name in ("step", "skipped", "opt_state/count", "params/predictor/mask_token", f"params/{blocks}/norm1/scale"):
        assert found[name] == P(), name
    assert set(specs().values()) <= {P(*[None] * rank) for rank in range(4)}  # nothing to divide by


def test_own_rules_come_first_and_count_from_the_last_axis():
    found = specs([("mlp/up/kernel$", (None, "fsdp")), ("qkv/kernel$", ())], fsdp=8)
    assert found["opt_state/mu/encoder/stack/blocks/mlp/up/kernel"] == P(None, None, "fsdp")
    assert found["params/encoder/stack/blocks/attention/qkv/kernel"] == P(None, None, None)
    assert found["params/encoder/stack/blocks/mlp/down/kernel"] == P(None, None, "fsdp")


def test_what_fsdp_does_not_divide_stays_whole():
    mesh = sharding.make_mesh({"fsdp": 8}, 8)
    leaves = {"head": {"kernel": np.zeros((96, 5))}, "odd": {"kernel": np.zeros((3, 7))}}
    tree = sharding.state_sharding(mesh, leaves)
    assert tree["head"]["kernel"].spec == P("fsdp", None) and tree["odd"]["kernel"].spec == P(None, None)
    mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2}, 8)
    tree = sharding.state_sharding(mesh, leaves | {"attention": {"qkv": {"kernel": np.zeros((6, 5))}}})
    assert tree["attention"]["qkv"]["kernel"].spec == P("tensor", None)  # 6 rows: by 2, not by 8


@pytest.mark.parametrize(
    "rules,layout,text",
    [
        (
            [("mlp/upp/kernel", ("fsdp",))],
            {"fsdp": 2},
            "'mlp/upp/kernel' matches no parameter; did .* 'params/.*mlp/up/",
        ),
        ([("norm1/scale$", ("fsdp", None, None))], {"fsdp": 2}, "blocks/norm1/scale \\[1, 96\\] has only 2 axes"),
        ([("qkv/kernel$", ("fsdp", "fsdp"))], {"fsdp": 2}, "names an axis twice"),
        (
            [("object_embedding$", ("fsdp", None))],
            {"fsdp": 2},
            "3 of params/predictor/object_embedding \\[3, 16\\] is not a multiple of fsdp = 2",
        ),
        ([("kernel$", ())], {"fsdp": 2}, "sharding.fsdp = 2: divides no parameter of this model: must be 1"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rules, layout, text):
    with pytest.raises(ConfigError, match=text):
        specs(rules, **layout)


@pytest.mark.parametrize(
    "values,text",
    [
        ({"sharding.mode": "pmap", "sharding.fsdp": 2}, "sharding.fsdp = 2: must be 1 with sharding.mode = 'pmap'"),
        ({"sharding.mode": "pmap", "sharding.rules": (("kernel", ()),)}, "sharding.rules: must be empty with"),
        ({"sharding.tensor": 2}, "sharding.tensor = 2: must divide .* 3 with objective.encoder.variant = 'Mu/8'"),
        (
            {"sharding.tensor": 2, "objective.encoder.variant": "S/8", "objective.predictor.heads": 1},
            "sharding.tensor = 2: must divide .* 1 with objective.predictor.heads = 1",
        ),
    ],
)
def test_models_and_modes_that_do_not_fit_are_refused(values, text):
    config = config_lib.override(clips.get_config(), running.SMALL | values)
    with pytest.raises(ConfigError, match=text):
        experiment.assemble(config)


@pytest.mark.slow
def test_rotations_of_packed_rows_over_eight_shards_are_those_of_one(monkeypatch):
    """Three scenes a row: on eight devices one row each, on one device eight rows in another order."""
    rotary = {"objective.encoder.positions": "rope", "objective.predictor.positions": "rope_tile"}
    size = {"objective.predictor.width": 32, "objective.predictor.heads": 2, "train.batch": 24, "data.pack": 3}
    config = config_lib.override(clips.get_config(), running.SMALL | rotary | size)
    make_mesh, found = sharding.make_mesh, []
    for count in (8, 1):
        here = functools.partial(make_mesh, devices=jax.devices()[:count])
        monkeypatch.setattr(sharding, "make_mesh", here)
        run = experiment.assemble(config)
        arrays = next(run.loader.iterate(0, 1))
        assert arrays["rows"]["index"].shape[0] == count and arrays["rows"]["segment"].max() == 3
        batch = sharding.put_batch(run.mesh, arrays)
        found.append(run.step(run.init(batch), batch)[1])
    for name in ("loss", "loss/prediction", "loss/causal", "grad_norm"):
        assert float(found[0][name]) == pytest.approx(float(found[1][name]), rel=1e-5), name
