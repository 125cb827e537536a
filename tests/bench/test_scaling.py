"""The plan on paper is that of the real step: its parameters, its products, its bytes."""

import dataclasses
import functools
import math
import types

import jax
import optax
import pytest

from cjepa_jax import train_step
from cjepa_jax.bench import flops, scaling
from cjepa_jax.configuration.check import override
from cjepa_jax.errors import ConfigError
from configs import vitl
from configs.baselines import mae, supervised
from tests import scenes
from tests.objectives import test_jepa

MODEL = scaling.Model(scaling.Stack(96, 2, 384), scaling.Stack(24, 2, 96), 16, 16, 192, 3)  # test_parity's, two blocks


def traced(objective, batch):
    init = functools.partial(train_step.init_state, objective, optax.scale_by_adam(), 0)
    return jax.eval_shape(init, batch)


def elements(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_a_small_model_by_formula_and_by_tracing():
    objective = test_jepa.make({"depth": 2}, {"depth": 2, "heads": 3, "width": 24})
    batch = test_jepa.as_batch(scenes.batch(range(2)))
    state = traced(objective, batch)
    assert MODEL.params == (elements(state.params["encoder"]), elements(state.params["predictor"]))
    assert MODEL.state_bytes == 4 * (elements(state) - 3)  # three counters
    assert 2 * MODEL.flops == pytest.approx(flops.step_flops(objective, state, batch), rel=0.01)


def test_stored_tables_count_as_state_but_send_no_gradients():
    grid = {"positions": "table", "position_grid": (1, 3, 5)}
    objective = test_jepa.make({"depth": 2} | grid, {"depth": 2, "heads": 3, "width": 24} | grid)
    state = traced(objective, test_jepa.as_batch(scenes.batch(range(2))))
    model = dataclasses.replace(MODEL, tables=(15 * 96, 15 * 24))
    assert model.params == (elements(state.params["encoder"]), elements(state.params["predictor"]))
    assert scaling.payload(model, 64, 1) == scaling.payload(MODEL, 64, 1)
    config = override(vitl.get_config(), {f"objective.encoder.{key}": value for key, value in grid.items()})
    assert scaling.Model.of(config).tables == (15 * 1024, 0)


def test_bytes_sent_by_rings():
    amounts = scaling.payload(MODEL, 64, 1)
    small = amounts["SIGReg"] * 7 / 8
    assert scaling.sent(MODEL, 64, 8, 1) == amounts["gradients"] * 2 * 7 / 8 + small
    amounts = scaling.payload(MODEL, 64, 8)
    assert scaling.sent(MODEL, 64, 1, 8) == (amounts["parameters"] + amounts["gradients"]) * 7 / 8 + small
    assert scaling.sent(MODEL, 64, 1, 1) == 0
    many, width = 64 * MODEL.encoder.width, MODEL.encoder.width  # scenes, reduced to `width` rows on each chip
    assert scaling.payload(MODEL, many, 1, chips=8)["SIGReg"] == 4 * 8 * width * width < 4 * many * width


def test_a_program_is_read_loops_multiplied_out():
    text = """
%body.1 (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %a = bf16[2,4]{1,0} all-gather(%x), dimensions={0}
  ROOT %t = (s32[], f32[4]) tuple(%i, %a)
}

%other (arg: f32[4]) -> f32[4] {
  %n = f32[100]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%p), condition=%c, body=%body.1, backend_config={"known_trip_count":{"n":"24"}}
  %r = (f32[], /*index=1*/f32[3,5]{1,0}) all-reduce(%a, %b), to_apply=%add
  ROOT %s = f32[4]{0} all-reduce-start(%r), to_apply=%add
}
"""
    assert scaling.collectives(text) == {"all-gather": (24, 24 * 16), "all-reduce": (2, 4 * 16 + 16)}


def test_slices_send_the_gradients_once_each():
    once, twice = (scaling.payload(MODEL, 64, 8, slices) for slices in (1, 2))
    assert twice["gradients"] == 2 * once["gradients"] and twice["SIGReg"] == 2 * once["SIGReg"]
    assert 2 * once["parameters"] < twice["parameters"] < 3 * once["parameters"]
    small = twice["SIGReg"] * 7 / 8
    assert scaling.sent(MODEL, 64, 8, 1, 2) == 2 * once["gradients"] * 2 * 7 / 8 + small


def planned(**values):
    return {name: types.SimpleNamespace(value=value) for name, value in values.items()}


@pytest.mark.parametrize("name, value", [("peak", 0.0), ("share", 0.0), ("link", -1.0), ("context", math.nan)])
def test_numbers_that_are_none(name, value):
    given = planned(**dict(context=1.0, share=0.5, peak=1.0, link=1.0) | {name: value})
    with pytest.raises(ConfigError, match=f"--{name}={value}: must be a number above 0"):
        scaling.on_paper(vitl.get_config(), given)


@pytest.mark.parametrize("config, key", [(supervised, "encoder.variant"), (mae, "predictor.width")])
def test_other_networks_are_refused(config, key):
    with pytest.raises(ConfigError, match=f"objective.{key} is missing"):
        scaling.Model.of(config.get_config())


def test_the_program_of_pmap_is_not_read():
    with pytest.raises(ConfigError, match="sharding.mode = 'pmap': must be 'jit' with --hlo"):
        scaling.compiled(override(vitl.get_config(), {"sharding.mode": "pmap"}))


@pytest.mark.parametrize("size", ["1408", "a,b,c", "1,2,3,4", "0,0,0"])
def test_a_size_that_is_none(size):
    with pytest.raises(ConfigError, match=f"--size={size}: must be three numbers"):
        scaling.Model.of(vitl.get_config(), size)


def test_published_sizes():
    """ViT-L, H and g without head, class token and learned positions (arXiv 2010.11929, 2106.04560), with patch 16."""
    sizes = {"L/16": "", "H/16": "", "g": "1408,40,6144"}
    found = []
    for variant, size in sizes.items():
        values = {} if size else {"objective.encoder.variant": variant}
        found.append(round(scaling.Model.of(override(vitl.get_config(), values), size).params[0] / 1e6))
    assert found == [303, 631, 1011]
