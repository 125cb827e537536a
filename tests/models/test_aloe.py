"""ALOE against numbers of the published code, and what its answers must not depend on."""

import dataclasses
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.models.aloe import Aloe
from cjepa_jax.objectives import aloe as training
from cjepa_jax.weights import aloe as weights

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden" / "slots" / "aloe.npz"))
STATE = {name[2:]: array for name, array in GOLDEN.items() if name.startswith("p/")}
QUESTION = 6  # words of the golden's multiple-choice questions, then 5 of an option


def inputs():
    """(open questions, options): slots, words and `choice` of each."""
    clips = GOLDEN["in/mc_video_emb"][GOLDEN["in/mc_flag"]]
    rows = ("cls", GOLDEN["in/cls_video_emb"], False), ("mc", clips, True)
    found = []
    for name, slots, choice in rows:
        words = np.where(GOLDEN[f"in/{name}_q_pad_mask"], 0, GOLDEN[f"in/{name}_q_tokens"]).astype(np.int32)
        found.append((slots, words, np.full(len(words), choice)))
    return found


@pytest.fixture(scope="module")
def compiled():
    """(parameters, the golden's model, a compiled function of parameters, slots, words, choice and seen)."""
    found = weights.from_state({f"transformer_model.{name}": array for name, array in STATE.items()})
    model = Aloe(**found.sizes, heads=2, head_width=found.width // 2)
    return found, model, jax.jit(lambda params, *given: model.apply({"params": params}, *given[:3], QUESTION, given[3]))


def apply(compiled, slots, words, choice, seen=None):
    found, _, run = compiled
    return run(found.params, slots, words, choice, np.full(len(words), True) if seen is None else seen)


def test_logits_losses_and_every_gradient_are_those_of_the_published_code(compiled):
    (asked, options), (found, model, _) = inputs(), compiled
    np.testing.assert_allclose(apply(compiled, *asked)[0], GOLDEN["cls_logits"], atol=5e-6)
    np.testing.assert_allclose(apply(compiled, *options)[1], GOLDEN["mc_logits"], atol=5e-6)

    @jax.jit
    def losses(params):
        answers = model.apply({"params": params}, *asked, QUESTION)[0]
        right = model.apply({"params": params}, *options, QUESTION)[1]
        cross = optax.softmax_cross_entropy_with_integer_labels(answers, jnp.asarray(GOLDEN["in/cls_label"])).mean()
        return cross, optax.sigmoid_binary_cross_entropy(right, jnp.asarray(GOLDEN["in/mc_label"], float)).mean()

    np.testing.assert_allclose(losses(found.params), [GOLDEN["cls_loss"], GOLDEN["mc_loss"]], rtol=1e-6)
    slopes = weights.state_dict(jax.grad(lambda params: sum(losses(params)))(found.params))
    for name in (name for name in GOLDEN if name.startswith("g/")):
        slope = slopes[name[2:]]
        if name == "g/q_embedding.weight":
            slope = slope[1:]  # PyTorch gives the padding word no gradient. No token attends to it here
        np.testing.assert_allclose(np.linalg.norm(slope), GOLDEN[name], rtol=2e-5, atol=1e-7, err_msg=name)


def test_the_training_s_loss_is_the_published_one_of_a_mixed_batch_and_dropout_needs_a_key(compiled):
    (asked, options), (found, model, _) = inputs(), compiled
    length = max(asked[1].shape[1], options[1].shape[1])
    slots, choice = (np.concatenate([asked[n], options[n]]) for n in (0, 2))
    words = np.concatenate([np.pad(w, ((0, 0), (0, length - w.shape[1]))) for w in (asked[1], options[1])])
    answer = np.concatenate([GOLDEN["in/cls_label"], GOLDEN["in/mc_label"]]).astype(np.int32)
    batch = training.Asked(slots, words, choice, answer, np.full(len(words), True))
    dropping, keeping = (
        training.Reader(dataclasses.replace(model, dropout=dropout), QUESTION, 100, 1e-3) for dropout in (0.5, 0.0)
    )
    wanted = GOLDEN["cls_loss"] + GOLDEN["mc_loss"]
    np.testing.assert_allclose(training.loss(dropping, found.params, batch), wanted, rtol=2e-6)
    one, other = (float(training.loss(dropping, found.params, batch, jax.random.key(n))) for n in (0, 1))
    assert len({one, other, float(wanted)}) == 3
    np.testing.assert_allclose(training.loss(keeping, found.params, batch, jax.random.key(0)), wanted, rtol=2e-6)


def test_dropout_acts_on_attention_weights_its_output_and_both_layers_of_the_mlp(compiled, monkeypatch):
    """PyTorch's encoder layer has these four places."""
    (slots, words, choice), (found, model, _) = inputs()[0], compiled
    places = []

    def drop(module, x, *given, **named):
        places.append((module.rate, x.shape))
        return x

    monkeypatch.setattr(nn.Dropout, "__call__", drop)
    dataclasses.replace(model, dropout=0.3).apply({"params": found.params}, slots, words, choice, QUESTION, None, True)
    tokens = 1 + slots.shape[1] * slots.shape[2] + words.shape[1]
    width, units = model.heads * model.head_width, model.units
    shapes = [(3, model.heads, tokens, tokens), (3, tokens, width), (3, tokens, units), (3, tokens, width)]
    assert places == [(0.3, shape) for shape in shapes] * model.depth


def test_the_rate_warms_up_for_a_tenth_and_ends_at_a_hundredth():
    """SlotFormer's schedule: linear from 0, then a cosine."""
    rate = training.schedule(training.Reader(Aloe(), QUESTION, 200, 1e-3))
    found = [float(rate(step)) for step in (0, 10, 20, 110, 200)]
    np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 0.505e-3, 1e-5], rtol=1e-5, atol=1e-12)
    assert training.schedule(training.Reader(Aloe(), QUESTION, 1, 1e-3))(1) == pytest.approx(1e-3)


def test_padding_and_slots_that_are_not_seen_have_no_influence_and_rows_are_independent(compiled):
    (slots, words, choice), _ = inputs()
    answers, right = apply(compiled, slots, words, choice)
    blind = np.array([True, False, True])
    other = np.where(blind[:, None, None, None], slots, slots + 7)
    a, b = apply(compiled, other, words, choice, blind), apply(compiled, slots, words, choice, blind)
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_allclose(a[0][0], answers[0], atol=1e-6)
    assert np.abs(a[0][1] - answers[1]).max() > 1e-3
    found, _, run = compiled
    table = found.params["words"].copy()
    table[0] += 5
    changed = run(found.params | {"words": table}, slots, words, choice, np.full(len(words), True))
    np.testing.assert_allclose(changed[0], answers, atol=1e-6)
    np.testing.assert_allclose(changed[1], right, atol=1e-6)
    assert np.abs(apply(compiled, slots, words, ~choice)[0] - answers).max() > 1e-3


def test_the_published_size_has_the_published_number_of_parameters_and_weights_come_back_to_the_bit(compiled):
    shape = jax.ShapeDtypeStruct
    given = shape((2, 25, 7, 128), jnp.float32), shape((2, 32), jnp.int32), shape((2,), bool)
    params = jax.eval_shape(lambda key, *given: Aloe().init(key, *given, 20)["params"], jax.random.key(0), *given)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2_879_427
    back = weights.state_dict(compiled[0].params)
    assert back.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(back[name].view(np.uint32), array.view(np.uint32), err_msg=name)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("CLS"), "has no CLS"),
        (lambda s: s.pop("q_embedding.weight"), "has no q_embedding.weight"),
        (lambda s: s.update(other=np.zeros(2)), "'other' is not an array of ALOE"),
        (lambda s: s.update(vision_token=np.ones(2)), r"vision_token = \[1.0, 1.0\]: must be \[0.0, 1.0\]"),
        (lambda s: s.update({"module.CLS": s["CLS"]}), "two arrays have the same name"),
        (
            lambda s: s.update({"vision_in_proj.weight": np.zeros(3)}),
            "vision_in_proj.weight has shape .*must have 2 axes",
        ),
        (lambda s: s.update({"transformer_encoder.layers.1.norm1.bias": np.zeros(3)}), "norm1.bias' has shape"),
    ],
)
def test_a_missing_or_foreign_array_is_named_in_one_line(change, message):
    state = dict(STATE)
    change(state)
    with pytest.raises(CheckpointError, match=message) as caught:
        weights.from_state(state, "file")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("file: ")
