"""The objective on slots: which tokens count, auxiliary tokens, slices of a batch, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import microbatch
from cjepa_jax.data import batching
from cjepa_jax.data.kinds.slots import SlotMap
from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import slots as masks
from cjepa_jax.objectives import dagma, graphs
from cjepa_jax.objectives.slots import Slots, losses_of
from cjepa_jax.types import Batch, Rows

PREDICTOR = dict(depth=1, heads=2, units=16, norm_attention=True)
OBJECTIVE = Slots(PREDICTOR, history=3, future=2, steps=10)
SOURCE = TrueSlots(count=8, frames=5, of_options=dict(objects=(2, 3), dt=0.04), slots=4, width=16)


@functools.cache
def batch(most=2):
    mask = functools.partial(masks.draw, history=3, most=most)
    scenes = SlotMap(SOURCE, mask, 1, 1, size=8, max_objects=5, intervened="none", seed=0, frames=5)
    arrays = batching.collate([scenes(i, 0) for i in range(8)], shards=2)
    return jax.tree.map(jnp.asarray, Batch(**(arrays | {"rows": Rows(**arrays["rows"])})))


@functools.cache
def params():
    return OBJECTIVE.init(jax.random.key(0), batch())[0]


LOSS = jax.jit(lambda params, batch: OBJECTIVE.loss(params, {}, {}, batch, jax.random.key(0), 0))


def test_absent_slots_and_padded_scenes_do_not_count():
    loss, (metrics, _) = LOSS(params(), batch())
    np.testing.assert_allclose(loss, metrics["loss/history"] + metrics["loss/future"], rtol=1e-6)
    absent = ~np.asarray(batch().object_patches.any(1)).reshape(8, 5, 1, 4)
    assert absent.any()
    other = dataclasses.replace(batch(), video=jnp.where(absent[..., None], 9.0, batch().video))
    np.testing.assert_allclose(LOSS(params(), other)[0], loss, rtol=1e-6)
    valid = np.arange(8) < 6
    padded = dataclasses.replace(
        batch(), valid=jnp.asarray(valid), video=jnp.where(valid[:, None, None, None, None], batch().video, 5.0)
    )
    alone = np.asarray(LOSS(params(), batch())[1][0]["per_scene"])
    shown = LOSS(params(), padded)[1][0]
    np.testing.assert_allclose(np.asarray(shown["per_scene"])[:6], alone[:6], rtol=1e-5)


def test_each_term_is_a_mean_over_its_own_tokens():
    rng = np.random.default_rng(0)
    tokens, prediction = rng.normal(size=(2, 2, 5, 3, 4)).astype(np.float32)
    visible, present = np.ones((2, 5, 3), bool), np.ones((2, 5, 3), bool)
    visible[:, 3:] = visible[0, 1:3, 1] = visible[0, 2, 0] = False
    present[1, :, 2] = False
    error = np.square(prediction - tokens).mean(-1)
    found = losses_of(prediction, tokens, visible, present, history=3, objects=3)
    np.testing.assert_allclose(found["history"], [(error[0, 1, 1] + error[0, 2, 1] + error[0, 2, 0]) / 3, 0], rtol=1e-5)
    np.testing.assert_allclose(found["future"], [error[0, 3:].mean(), error[1, 3:, :2].mean()], rtol=1e-5)
    anchored = losses_of(prediction, tokens, visible, present, history=3, objects=3, anchor_in_loss=True)
    np.testing.assert_allclose(anchored["history"], [error[0, :3, :2].mean(), 0], rtol=1e-5)
    two = losses_of(prediction, tokens, visible, present, history=3, objects=2)
    np.testing.assert_allclose(two["proprio"], error[:, 3:, 2].mean(1), rtol=1e-5)
    assert "proprio" not in losses_of(prediction, tokens, visible, present, history=3, objects=2, proprio=False)


def test_slices_give_the_loss_and_the_gradient_of_the_whole_batch():
    whole = microbatch.loss_and_grad(OBJECTIVE, 1, None)
    sliced = microbatch.loss_and_grad(OBJECTIVE, 2, None)
    key = jax.random.key(0)
    (one, _), gradient = jax.jit(functools.partial(whole, key=key, step=0))(params(), {}, {}, batch())
    (two, _), other = jax.jit(functools.partial(sliced, key=key, step=0))(params(), {}, {}, batch())
    np.testing.assert_allclose(one, two, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, other)


def test_auxiliary_tokens_are_seen_in_the_history_only():
    objective = dataclasses.replace(OBJECTIVE, auxiliary=("action", "proprio"))
    rng = np.random.default_rng(1)
    actions, proprio = rng.normal(size=(8, 5, 6)), rng.normal(size=(8, 5, 3))
    given = dataclasses.replace(batch(), actions=jnp.asarray(actions), proprio=jnp.asarray(proprio))
    fresh = jax.jit(objective.init)(jax.random.key(0), given)[0]
    assert set(fresh) == {"predictor", "action", "proprio"}

    @jax.jit
    def predict(actions, proprio):
        both = dataclasses.replace(given, actions=actions, proprio=proprio)
        return objective.predict(fresh, objective.encode_context(fresh, both), both)[0]

    base, later = predict(actions, proprio), (np.arange(5) >= 3)[:, None]
    np.testing.assert_array_equal(predict(np.where(later, 9.0, actions), np.where(later, 9.0, proprio)), base)
    for changed in ((actions + 1, proprio), (actions, proprio + 1)):
        assert np.abs(predict(*changed) - base).max() > 1e-3
    loss = jax.jit(lambda p: objective.loss(p, {}, {}, given, jax.random.key(0), 0)[1][0])(fresh)
    assert set(loss) >= {"loss/history", "loss/future", "loss/proprio"}
    with pytest.raises(ConfigError, match=r"^objective.auxiliary has 'action': the scenes have no actions$"):
        objective.init(jax.random.key(0), dataclasses.replace(given, actions=None))


def test_encode_and_encode_context():
    flat = np.asarray(batch().video).reshape(8, 20, 16)
    np.testing.assert_array_equal(OBJECTIVE.encode({}, batch().video), flat)
    seen = np.asarray(OBJECTIVE.encode_context({}, batch()))
    context = np.asarray(batch().context)
    np.testing.assert_array_equal(seen[context], flat[context])
    assert not seen[~context].any() and OBJECTIVE.targets({}, batch())[1] is None


@pytest.mark.parametrize(
    "options, text",
    [
        ({"history": 0}, "objective.history = 0: must be a whole number, at least 1"),
        ({"auxiliary": ("x",)}, "objective.auxiliary = ('x',): must be of proprio, action"),
        ({"slot_predictor": {"dropout": 1.0}}, "objective.slot_predictor.dropout = 1.0: must be in [0, 1)"),
        (
            {"slot_predictor": {"norm_attention": "no"}},
            "objective.slot_predictor.norm_attention = 'no': must be True or False",
        ),
        (
            {"slot_predictor": {"unit": 8}},
            "objective.slot_predictor.unit = 8: there is no such option, but depth, heads, "
            "units, norm_attention, dropout",
        ),
        ({"slot_predictor": {"units": 0}}, "objective.slot_predictor.units = 0: must be a whole number, at least 1"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(OBJECTIVE, **options)
    assert str(error.value) == text


def test_the_jacobian_is_estimated_without_bias_and_drawn_from_its_key():
    rng = np.random.default_rng(0)
    weights, tokens = rng.normal(size=(3, 4, 3, 4)).astype(np.float32), rng.normal(size=(2, 2, 3, 4))
    predict = functools.partial(jnp.einsum, "kdje,btje->btkd", weights)
    squared = np.square(weights).sum((1, 3))  # [K, K]: frame t of slot i depends on frame t of slot j

    def estimate(seed, probes):
        key = jax.random.key(seed)
        return np.asarray(graphs.jacobian(predict, jnp.asarray(tokens, jnp.float32), key, history=1, probes=probes))

    np.testing.assert_allclose(estimate(0, 4096), np.broadcast_to(squared, (2, 3, 3)), rtol=0.1)
    np.testing.assert_array_equal(estimate(0, 2), estimate(0, 2))
    assert np.abs(estimate(0, 2) - estimate(1, 2)).max() > 0.1


def test_a_batch_of_another_length_is_refused():
    with pytest.raises(ConfigError, match=r"^objective.history \+ objective.future = 5: must be data.frames = 4$"):
        OBJECTIVE.loss(params(), {}, {}, dataclasses.replace(batch(), video=batch().video[:, :4]), jax.random.key(0), 0)


def test_the_learned_dag_is_that_of_the_given_history_and_the_predicted_future(monkeypatch):
    """The graph's data, by their correlations: the direction of an edge itself may turn with a rounding error."""

    def correlations(slots, present):
        return jnp.einsum("btkd,btjd->bkj", slots, slots) * present[:, :, None] * present[:, None]

    seen = dataclasses.replace(batch(), context=batch().object_patches.any(1) & (jnp.arange(20) < 12))
    there = np.asarray(batch().object_patches.any(1)).reshape(8, 5, 4)[:, 0]
    prediction = np.asarray(OBJECTIVE.predict(params(), OBJECTIVE.encode({}, seen.video), seen)[0]).reshape(8, 5, 4, 16)
    whole = np.concatenate([np.asarray(seen.video)[:, :3, 0], prediction[:, 3:]], 1)
    monkeypatch.setattr(dagma, "static_graph", correlations)
    found = np.asarray(jax.jit(OBJECTIVE.influence)(params(), seen, jax.random.key(0)))
    wanted = np.asarray(correlations(whole, there))
    np.testing.assert_allclose(found[:, Slots.graph_names.index("learned DAG")], wanted, rtol=1e-4, atol=1e-4)
