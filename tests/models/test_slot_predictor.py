"""The masked slot predictor against numbers of the published code, and what it must not depend on."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.masks import slots
from cjepa_jax.models.slot_predictor import SlotPredictor
from cjepa_jax.objectives.slots import losses_of
from cjepa_jax.weights import slots as weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "slots"
CASES = {"predictor": (4, 4, 5), "predictor_ap": (3, 4, 4)}  # history, heads, slots that are objects


def golden(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


def of(case, **options):
    """(numbers, model, parameters, history, objects) of a published run."""
    numbers, (history, heads, objects) = golden(case), CASES[case]
    state = {name[2:]: array for name, array in numbers.items() if name.startswith("p/")}
    found = weights.from_state(state)
    model = SlotPredictor(found.frames, found.depth, heads, units=found.units, **options)
    return numbers, model, found.params["predictor"], history, objects


def visible_of(x, history, masked):
    visible = np.zeros(x.shape[:3], bool)
    visible[:, :history] = True
    visible[:, 1:history, masked] = False
    return visible


APPLY = {}


def apply(case, params, slots, visible):
    """Compiled once for each case and shape."""
    if case not in APPLY:
        model = of(case)[1]
        APPLY[case] = jax.jit(lambda p, x, v: model.apply({"params": p}, x, v))
    return APPLY[case](params, slots, visible)


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_published_code(case):
    numbers, _, params, history, _ = of(case)
    x, frames = numbers["x"], numbers["x"].shape[1]
    output, more = apply(case, params, x, visible_of(x, history, numbers["masked"]))
    np.testing.assert_allclose(output, numbers["output"], atol=5e-6)
    seen = visible_of(x, history, [])
    np.testing.assert_allclose(apply(case, params, x, seen)[0][:, history:], numbers["inference"], atol=5e-6)
    short = "inference_two_frames" if case == "predictor" else "inference_one"
    start = 2 if case == "predictor" else 1  # the published code takes the first frames, and the last time codes
    few = np.concatenate([x[:, :start], np.zeros_like(x[:, history:])], 1)
    found = apply(case, params, few, visible_of(few, start, []))[0]
    np.testing.assert_allclose(found[:, start:], numbers[short], atol=5e-6)
    if case == "predictor":
        np.testing.assert_allclose(more["tokens"], numbers["prepared"], atol=5e-6)
        np.testing.assert_allclose(apply(case, params, x, seen)[0], numbers["output_unmasked"], atol=5e-6)
        weight = more["attention"][-1].reshape(3, frames, 5, frames, 5)
        np.testing.assert_allclose(weight[:, 2, 4], numbers["attention/masked_slot_4_t2"], atol=5e-6)
        np.testing.assert_allclose(weight[:, 4, 3], numbers["attention/future_t4_slot_3"], atol=5e-6)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_every_gradient_are_those_of_the_published_code(case):
    numbers, model, params, history, objects = of(case)
    x = numbers["x"]
    visible = visible_of(x, history, numbers["masked"])

    def total(params, anchored=True):
        output = model.apply({"params": params}, x, visible)[0]
        shown = np.ones(x.shape[:3], bool)
        found = losses_of(output, x, visible, shown, history=history, objects=objects, anchor_in_loss=anchored)
        means = {name: value.mean() for name, value in found.items()}
        return sum(means.values()), means

    (_, means), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    for name, value in means.items():
        np.testing.assert_allclose(value, numbers[f"loss_{name}"], atol=1e-6)
    found = weights.state_dict({"predictor": gradient})
    for name, array in found.items():
        np.testing.assert_allclose(np.linalg.norm(array), numbers[f"g/{name}"], rtol=1e-5)
    assert set(means) == ({"history", "future"} | ({"proprio"} if case == "predictor_ap" else set()))
    if case == "predictor":  # the first frame is visible: its error is not one of a prediction
        np.testing.assert_allclose(total(params, False)[1]["history"], 2.0881261825561523, atol=1e-6)


def test_state_dicts_come_back_to_the_bit():
    state = {name[2:]: array for name, array in golden("predictor").items() if name.startswith("p/")}
    one = np.ones((32, 10, 1), np.float32)
    more = {f"{name}_encoder.patch_embed.weight": one for name in ("action", "proprio")}
    more |= {f"{name}_encoder.patch_embed.bias": one[:, 0, 0] for name in ("action", "proprio")}
    whole = {f"predictor.{name}": array for name, array in state.items()} | more
    found = weights.from_state(whole)
    assert (found.frames, found.depth, found.width, found.units) == (7, 2, 32, 48)
    back = weights.state_dict(found.params)
    assert set(back) == state.keys() | more.keys()
    for name, array in (state | more).items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].shape == array.shape and back[name].dtype == np.float32


def test_a_missing_or_foreign_array_is_named():
    state = {name[2:]: array for name, array in golden("predictor").items() if name.startswith("p/")}
    without = {name: array for name, array in state.items() if name != "to_out.bias"}
    with pytest.raises(CheckpointError, match=r"^state dict: has no to_out.bias$"):
        weights.from_state(without)
    with pytest.raises(
        CheckpointError, match=r"^state dict: 'encoder.x' is not an array of the masked slot predictor$"
    ):
        weights.from_state(state | {"encoder.x": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'to_out.bias' has shape \[3\]: must be \[32\]$"):
        weights.from_state(state | {"to_out.bias": np.zeros(3)})
    with pytest.raises(CheckpointError, match="it is not a masked slot predictor$"):
        weights.from_state(without | {"time_pos_embed": np.zeros(3)})


def test_parts_that_the_published_model_lacks_are_not_left_out_silently():
    _, _, params, *_ = of("predictor")
    with pytest.raises(CheckpointError, match="^gates: the published model has no such part$"):
        weights.state_dict({"predictor": params, "gates": {}})


def test_the_published_size_has_the_published_number_of_parameters():
    model, shape = SlotPredictor(frames=16), jax.ShapeDtypeStruct((1, 16, 7, 128), jnp.float32)
    visible = jax.ShapeDtypeStruct(shape.shape[:3], bool)
    tree = jax.eval_shape(model.init, jax.random.key(0), shape, visible)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == 3_592_064
    pre = jax.eval_shape(model.clone(norm_attention=True).init, jax.random.key(0), shape, visible)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(pre)) == 3_592_064 + 6 * 2 * 128
    with pytest.raises(CheckpointError, match="no norm before its attention"):
        weights.state_dict({"predictor": jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), pre)})


def test_hidden_and_absent_slots_have_no_influence_and_order_does_not_matter():
    numbers, model, params, history, _ = of("predictor")
    x, visible = numbers["x"], visible_of(numbers["x"], history, numbers["masked"])
    present = np.ones(visible.shape, bool)
    present[1, :, 2] = False
    call = jax.jit(lambda x, v, p: model.apply({"params": params}, x, v, p)[0])
    base = call(x, visible, present)
    np.testing.assert_array_equal(call(np.where(visible[..., None], x, 7.0), visible, present), base)
    other = np.where(present[..., None], x, 7.0)
    np.testing.assert_array_equal(call(other, visible, present)[1][:, [0, 1, 3, 4]], base[1][:, [0, 1, 3, 4]])
    order = [3, 0, 4, 2, 1]
    found = call(x[:, :, order], visible[:, :, order], present[:, :, order])
    np.testing.assert_allclose(found, base[:, :, order], atol=5e-6)


def test_dropout_acts_in_training_only_and_wrong_sizes_are_refused():
    numbers, model, params, history, _ = of("predictor", dropout=0.1)
    x, visible = numbers["x"], visible_of(numbers["x"], history, numbers["masked"])
    call = jax.jit(lambda key: model.apply({"params": params}, x, visible, None, True, rngs={"dropout": key})[0])
    assert np.abs(call(jax.random.key(0)) - call(jax.random.key(1))).max() > 0.01
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x, visible)[0], numbers["output"], atol=5e-6)
    with pytest.raises(
        ConfigError, match=r"^objective.slot_predictor.heads = 5: must divide the width of the slots, 32"
    ):
        model.clone(heads=5).apply({"params": params}, x, visible)
    with pytest.raises(ConfigError, match=r"^objective.history \+ objective.future = 7: must be at least 14 frames"):
        model.apply({"params": params}, np.concatenate([x, x], 1), np.concatenate([visible, visible], 1))


def test_the_published_mask_indices():
    for name, wanted in json.loads((GOLDEN / "mask_indices.json").read_text()).items():
        count, most = map(int, name.split("/"))
        patches = np.tile(np.eye(count, dtype=bool), 4)
        section = dict(history=3, most=most, constant=42, grid=(4, 1, count))
        more = np.concatenate([patches, np.zeros((3, 4 * count), bool)])  # padding does not change the set
        masked, removed, _ = slots.draw(np.random.default_rng(0), more, more.any(1), **section)
        assert np.flatnonzero(removed).tolist() == sorted(wanted)
        rows = masked.reshape(4, count)
        assert not rows[0].any() and rows[3].all() and (rows[1:3] == removed[:count]).all()
