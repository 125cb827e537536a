"""Graphs of influence: judges whose answers are known, geometry by hand, and the simulator's effects."""

import dataclasses
import functools

import numpy as np
import pytest

from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import influence
from cjepa_jax.evals.base import RANDOM, TRAINED
from cjepa_jax.evals.influence import Influence
from cjepa_jax.evals.surprise import auroc
from tests.evals.test_rollout import OPTIONS, make_bench

SOURCE = TrueSlots("test", count=12, frames=8, of_options=OPTIONS, width=16, slots=5)


def bench(answer):
    """A bench whose model answers with graphs for the scenes that it is shown, known by their first frame."""
    made = make_bench(lambda hidden: None, SOURCE)
    first = [SOURCE[i]["video"][0] for i in range(len(SOURCE))]

    def graphs(hidden):
        rows = [next(i for i, frame in enumerate(first) if np.array_equal(frame, video[0])) for video in hidden.video]
        assert not hidden.removed.any() and hidden.context.reshape(len(rows), 8, 5)[:, :3].any()
        assert not hidden.context.reshape(len(rows), 8, 5)[:, 3:].any()
        return {"graph": np.stack([answer(i) for i in rows])}

    rng = np.random.default_rng(0)
    random = dataclasses.replace(made.randoms[0], influence=lambda h: {"graph": rng.random((len(h.video), 5, 5))})
    model = dataclasses.replace(made.model, influence=graphs)
    return dataclasses.replace(made, model=model, randoms=(random,), test=len(SOURCE))


@functools.cache
def result(truth):
    """Of a model that says the effects, and of one that says the opposite."""
    return Influence(3, 5, strata=2).run(bench(lambda i: (1 if truth else -1) * SOURCE.influence(i, 2)[0]))


def test_who_knows_the_effects_is_perfect_and_who_says_the_opposite_does_not_beat_geometry():
    scores = {(score.metric, score.row): score for score in result(True).scores}
    assert {row for _, row in scores} == {TRAINED, RANDOM, *influence.GEOMETRY, influence.STATES, influence.BASE}
    assert scores["auroc/effect/graph", TRAINED].value == 1 == scores["ap/effect/graph", TRAINED].value
    assert scores["auroc/effect/graph", TRAINED].interval < 1e-9
    effects, contacts = map(np.stack, zip(*(SOURCE.influence(i, 2) for i in range(12)), strict=True))
    there = np.stack([SOURCE[i]["present"] for i in range(12)])
    pairs = there[:, :, None] & there[:, None] & ~np.eye(5, dtype=bool)
    base = scores["ap/effect/graph", influence.BASE].value
    assert base == pytest.approx((effects[pairs] > 0.01).mean()) and 0 < base < 1
    wanted = auroc(effects[pairs & ~contacts], effects[pairs & contacts])
    assert scores["auroc/contact/graph", influence.STATES].value == pytest.approx(wanted)
    assert scores["auroc/contact/graph", TRAINED].value == pytest.approx(wanted)
    wrong = {(score.metric, score.row): score for score in result(False).scores}
    assert wrong["auroc/effect/graph", TRAINED].value == 0
    lines = [line for line in result(False).notes if line.startswith("effect: ")]
    assert len(lines) == 1 and "graph does not beat geometry: AUROC 0.000, extrapolated" in lines[0]
    assert "graph beats geometry: AUROC 1.000" in result(True).notes[1]
    distance, values = result(True).curves["auroc of effect by distance"]["graph"]
    assert (values == 1).all() and (np.diff(distance) > 0).all()


def test_geometry_by_hand():
    names = ("position/x", "position/y", "layer")
    states = np.zeros((1, 3, 4, 3))
    states[0, :, 0, :2] = (0, 0), (0.1, 0), (0.2, 0)  # moves to the right
    states[0, :, 1, :2] = 0.5, 0.1  # lies 0.3 further and 0.1 lower
    states[0, :, 2, :2] = 0.5, 0.1
    states[0, :, 2, 2] = 1  # in another layer
    states[0, :, 3, :2] = (0, 0), (-0.1, 0), (-0.2, 0)  # moves away
    found = {name: graph[0] for name, graph in influence.geometry(names, states, 2, 5).items()}
    np.testing.assert_allclose(found[influence.DISTANCE][0, 1], -np.hypot(0.3, 0.1))
    np.testing.assert_allclose(found[influence.EXTRAPOLATED][0, 1:], [-0.1, -0.1, -0.4], rtol=1e-6)
    np.testing.assert_allclose(found[influence.LAYER][0, 1], -0.1, rtol=1e-6)
    assert found[influence.LAYER][0, 2] == influence.APART == found[influence.LAYER][2, 0]
    near = influence.geometry(names, states, 2, 1)[influence.EXTRAPOLATED][0]
    np.testing.assert_allclose(near[0, 1], -np.hypot(0.2, 0.1), rtol=1e-6)  # one frame is too short to arrive
    np.testing.assert_array_equal(near, near.T)


def test_area_and_precision_are_those_of_their_definitions_with_ties_and_the_interval_that_of_resampled_scenes():
    rng = np.random.default_rng(0)
    scene, truth = np.repeat(np.arange(60), 12), rng.random(720) < 0.3
    scores = np.round(truth * 0.7 + rng.normal(size=720) + rng.normal(size=60)[scene], 1)
    value, derivative = influence.area(truth, scores, scene)
    assert value == pytest.approx(auroc(scores[~truth], scores[truth])) and abs(derivative.sum()) < 1e-9
    rows = np.arange(720).reshape(60, 12)[rng.integers(0, 60, (400, 60))].reshape(400, -1)
    spread = np.std([auroc(scores[r][~truth[r]], scores[r][truth[r]]) for r in rows])
    assert influence.half(derivative) == pytest.approx(1.96 * spread, rel=0.15)
    steps = [(truth[scores >= limit].sum() / truth.sum(), truth[scores >= limit].mean()) for limit in np.unique(scores)]
    recall, precision = np.array(steps[::-1]).T
    wanted = (np.diff(recall, prepend=0) * precision).sum()
    assert influence.average_precision(truth, scores) == pytest.approx(wanted)
    assert influence.average_precision(truth, np.zeros(720)) == pytest.approx(truth.mean())
    value, half = influence.precise(truth, scores, scene, 0)
    spread = np.std([influence.average_precision(truth[r], scores[r]) for r in rows])
    assert value == pytest.approx(wanted) and half == pytest.approx(1.96 * spread, rel=0.15)


def test_effects_from_the_first_frame_are_those_of_the_simulation_without_the_object():
    world = SOURCE.source
    for i in range(3):
        effects, contacts = world.influence(i, 0)
        whole = world.rollout(i)
        np.testing.assert_array_equal(contacts, whole["graph"])
        for k in range(len(effects)):
            removed = np.arange(len(effects)) == k
            gap = np.linalg.norm((world.rollout(i, removed)["states"] - whole["states"])[..., 1:3], axis=-1).max(0)
            np.testing.assert_allclose(effects[~removed, k], gap[~removed], atol=1e-6)
            assert effects[k, k] == 0


def test_effects_of_slots_follow_their_order_and_only_what_touches_something_has_any():
    found = False
    for i in range(12):
        effects, contacts = SOURCE.influence(i, 2)
        holds = SOURCE._holds(i, len(SOURCE.source.setup(i).colour))[0]
        object_effects = SOURCE.source.influence(i, 2)[0]
        np.testing.assert_array_equal(effects, holds @ object_effects @ holds.T)
        assert not effects[:, ~contacts.any(0)].any()
        found |= bool(contacts.any())
    assert found
    with pytest.raises(ConfigError, match=r"^data.options.shuffle = 'frame': slots that change places have no graph$"):
        dataclasses.replace(SOURCE, shuffle="frame").influence(0, 2)


def test_wrong_options_and_models_without_graphs_are_refused():
    for name, value, text in (
        ("history", 1, "an integer of at least 2"),
        ("strata", 0, "an integer of at least 1"),
        ("least", 0, "a number above 0"),
    ):
        with pytest.raises(ConfigError, match=rf"influence.{name} = {value}: must be {text}$"):
            Influence(**{name: value})
    with pytest.raises(ConfigError, match="Influence needs a model of slots that says what its prediction depends on"):
        Influence(3, 5).run(make_bench(lambda hidden: None, SOURCE))
