"""What two trees of arrays differ in: every array, under the key of the config that decides it."""

import re

import jax
import jax.numpy as jnp
import pytest

from cjepa_jax.configuration import build
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.runtime import trees
from cjepa_jax.types import Batch, Rows
from configs import clips


def shapes(**values):
    """The arrays of tiny's model by name, with other values in its config. Twice, as with an optimiser's."""
    config = config_lib.override(clips.get_config(), {key.replace("__", "."): value for key, value in values.items()})
    objective = build.build(config.objective, steps=10, dtype="float32")
    video = jnp.zeros((1, config.data.frames, config.data.size, config.data.size, 3), jnp.uint8)
    count = config.data.frames // objective.tubelet * (config.data.size // objective.patch) ** 2
    objects, flags = jnp.zeros((1, 8, count), bool), jnp.zeros((1, 8), bool)
    rows = Rows(jnp.zeros((1, 1, count), jnp.int32), jnp.ones((1, 1, count), jnp.int32))
    batch = Batch(None, None, video, objects, flags, flags, jnp.ones((1, count), bool), rows, jnp.ones(1, bool), video)
    params, *_ = jax.eval_shape(lambda: objective.init(jax.random.key(0), batch))
    state = {"params": params, "opt_state": ({}, {"mu": params})}
    return {trees.name_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}


@pytest.fixture(scope="module")
def usual():
    return shapes()


def by_key(saved, wanted):
    """The differences by key. Every array that differs must be named, and none that does not."""
    lines = trees.differences(saved, wanted)
    assert not any("\n" in line for line in lines)
    for name in saved.keys() | wanted.keys():
        short = re.sub("^(params|opt_state/1/mu)/", "", name)
        named = any(re.search(rf"[ /]{short}([ ,]|$)", line) for line in lines)
        assert named == (saved.get(name) != wanted.get(name)), name
    return dict(line.split(": ", 1) for line in lines)


def test_sizes_are_named_by_their_keys(usual):
    sizes = {"encoder__depth": 2, "encoder__tubelet": 1, "predictor__max_objects": 5, "predictor__depth": 3}
    found = by_key(usual, shapes(**{f"objective__{key}": value for key, value in sizes.items()}))
    assert found.keys() == {
        "objective.encoder.depth",
        "objective.encoder.tubelet, objective.encoder.variant's patch",
        "objective.predictor.max_objects",
        "objective.predictor.depth",
    }
    depth = found["objective.encoder.depth"]
    assert "/encoder/stack/blocks/attention/out/bias is float32[4, 96], the model has float32[2, 96]" in depth
    assert "and so on in 24 arrays" in depth


def test_widths_take_the_ends_of_their_neighbours_along(usual):
    wider = {"encoder__variant": "Ti/8", "predictor__width": 64, "predictor__attention": "cross"}
    found = by_key(usual, shapes(**{f"objective__{key}": value for key, value in wider.items()}))
    assert found.keys() == {
        "objective.encoder.depth, objective.encoder.variant",
        "objective.encoder.variant",
        "objective.encoder.variant, objective.predictor.width",
        "objective.predictor.width",
        "objective.predictor.attention",
    }
    both = found["objective.encoder.variant, objective.predictor.width"]
    assert "/predictor/embed/kernel is float32[96, 48], the model has float32[192, 64]" in both
    assert "cross/kv/kernel is missing" in found["objective.predictor.attention"]


def test_equal_trees_differ_in_nothing_and_numbers_are_never_cast(usual):
    assert trees.differences(usual, dict(usual)) == []
    name = "params/encoder/stack/norm/scale"
    (line,) = trees.differences(usual, usual | {name: jax.ShapeDtypeStruct((96,), jnp.bfloat16)})
    assert line.endswith(f"never cast: {name} is float32[96], the model has bfloat16[96]")
