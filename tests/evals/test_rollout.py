"""Rollouts against the published code's, and judges whose answers are known."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest

from cjepa_jax.data import kinds
from cjepa_jax.data.kinds.slots import SlotMap
from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import rollout
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Seen
from cjepa_jax.evals.rollout import Rollout
from cjepa_jax.loading import slot_model
from cjepa_jax.loading.model import in_batches
from cjepa_jax.masks import slots
from cjepa_jax.models.slot_predictor import SlotPredictor
from cjepa_jax.weights import slots as weights
from tests.planning import test_slots as acting

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "slots"
OPTIONS = dict(objects=(3, 4), dt=0.04)


@pytest.mark.parametrize("history, future, skip", [(6, 10, 2), (3, 1, 5)])
def test_the_published_rollouts(history, future, skip):
    numbers = dict(np.load(GOLDEN / f"rollout_{history}_{future}_{skip}.npz"))
    found = weights.from_state({name[2:]: array for name, array in numbers.items() if name.startswith("p/")})
    model = SlotPredictor(found.frames, found.depth, 2, units=found.units)

    @jax.jit
    def forward(known):
        x = np.zeros((known.shape[0], future, *known.shape[2:]), np.float32)
        x = jax.numpy.concatenate([known, x], 1)
        visible = np.broadcast_to(np.arange(x.shape[1])[:, None] < history, x.shape[:3])
        return model.apply({"params": found.params["predictor"]}, x, visible)[0][:, history:]

    made = rollout.rolled(forward, numbers["history_tail"], 32, history, skip)
    np.testing.assert_allclose(made, numbers["rollout"], atol=2e-5)


def make_bench(answer, source=None):
    source = source or TrueSlots("test", count=6, frames=8, of_options=OPTIONS, width=16, slots=5)
    mask = functools.partial(slots.draw, history=3)

    def prepare(of):
        return SlotMap(of, mask, 1, 1, size=64, max_objects=6, intervened="none", seed=0, frames=of.frames)

    def model(name, answer):
        return Model(name, lambda video: video, lambda hidden: Seen(None, answer(hidden), None))

    return Bench(
        model(TRAINED, answer), (model(f"{RANDOM} 0", lambda h: np.zeros((len(h.video), h.context.shape[1], 16))),),
        lambda split, count: source, prepare, "train", 6, "test", 6, batch=4, seed=3, rate=1,
    )  # fmt: skip


def truth_of(source, frames):
    """Answers with what follows, known by the first frame."""
    scenes = [dataclasses.replace(source, frames=frames)[i]["video"] for i in range(len(source))]

    def answer(hidden):
        clips = []
        for video in hidden.video:
            (clip,) = [scene for scene in scenes if np.array_equal(scene[0], video[0])]
            clips.append(clip[: len(video)])
        return np.stack(clips).reshape(len(clips), -1, clips[0].shape[-1])

    return answer


def test_who_knows_the_future_makes_no_error_and_the_floors_are_what_they_say():
    source = TrueSlots("test", count=6, frames=8, of_options=OPTIONS, width=16, slots=5)
    result = Rollout(3, 5).run(make_bench(truth_of(source, 8), source))
    scores = {(score.metric, score.row): score for score in result.scores}
    assert {row for _, row in scores} == {TRAINED, RANDOM, "copy", "constant velocity"}
    clips = np.stack([source[i]["video"][:, 0] for i in range(6)])
    there = np.stack([source[i]["present"] for i in range(6)])[:, None]
    places = source.places(clips)
    last, step = places[:, 2:3], places[:, 2:3] - places[:, 1:2]
    moved = last + np.arange(1, 6)[:, None, None] * step
    for row, guess in (("copy", np.repeat(last, 5, 1)), ("constant velocity", moved)):
        square = np.square(guess - places[:, 3:]).mean(-1)
        wanted = np.sqrt((square * there).sum() / (5 * there.sum()))
        np.testing.assert_allclose(scores["rmse/position", row].value, wanted, rtol=1e-5)
    for metric in ("slots", "position", "position touching", "position free"):
        assert scores[f"rmse/{metric}", TRAINED].value < 1e-6 < scores[f"rmse/{metric}", "copy"].value
        frames, values = result.curves[f"rmse of {metric} by frame"]["copy"]
        assert frames.tolist() == [1, 2, 3, 4, 5] and (np.diff(values) > 0).all()
    assert scores["rmse/slots", TRAINED].count == 6 and scores["rmse/slots", RANDOM].of == "inits"


def test_objects_that_touched_before_the_last_given_frame_alone_are_free():
    source = TrueSlots("test", count=40, frames=8, of_options=OPTIONS, width=16, slots=5)
    result = Rollout(3, 5).run(dataclasses.replace(make_bench(truth_of(source, 8), source), test=40))
    later = np.stack([source.influence(i, 2)[1].any(1) for i in range(40)])
    ever = np.stack([source[i]["graph"].any(1) for i in range(40)])
    assert (ever & ~later).any() and later.any(), "some touch in the history alone"
    places = source.places(np.stack([source[i]["video"][:, 0] for i in range(40)]))
    square = np.square(places[:, 3:] - places[:, 2:3]).mean(-1)
    (copied,) = (s.value for s in result.scores if (s.metric, s.row) == ("rmse/position touching", "copy"))
    np.testing.assert_allclose(copied, np.sqrt(square.mean(1)[later].mean()), rtol=1e-5)


def test_a_longer_horizon_takes_predictions_as_history():
    seen = []

    def last(hidden):
        """Says that each frame is the last given one plus 1."""
        given = hidden.video[:, :3, 0]
        seen.append(given)
        said = np.zeros(hidden.video[:, :, 0].shape, np.float32)
        said[:, 3:] = given[:, -1:] + 1
        return said.reshape(len(said), -1, said.shape[-1])

    result = Rollout(3, 2, horizon=5).run(make_bench(last))
    assert len(seen) == 3 and len(result.curves["rmse of slots by frame"][TRAINED][0]) == 5
    np.testing.assert_array_equal(seen[1][:, 0], seen[0][:, 2])  # one frame of 3 stays
    np.testing.assert_array_equal(seen[1][:, 1:], np.repeat(seen[0][:, 2:] + 1, 2, 1))
    np.testing.assert_allclose(seen[2][:, -1], seen[0][:, 2] + 2, rtol=1e-6)


@pytest.mark.parametrize("auxiliary", [("action",), ("proprio", "action")])
def test_a_model_with_actions_is_scored_by_its_training_error_and_rolled_out_with_the_true_actions(auxiliary):
    """One frame further: the root of loss/future. Three: by hand, the window moved on over the predictions."""
    objective, params, batch = acting.model(auxiliary)
    ahead = slot_model.ahead(objective, params, functools.partial(in_batches, 3))
    bench = make_bench(None, acting.SOURCE)
    bench = dataclasses.replace(bench, model=Model(TRAINED, None, None, ahead=ahead), randoms=(), test=4)
    scores = {(s.metric, s.row): s.value for s in Rollout(3, 1).run(bench).scores}
    loss = objective.per_example_terms(params, {}, {}, batch, jax.random.key(1))[0]["future"]
    assert scores["rmse/slots", TRAINED] ** 2 == pytest.approx(float(loss.mean()), rel=1e-5)
    long = dataclasses.replace(acting.SOURCE, frames=6)
    scenes = [long[i] for i in range(4)]
    clips, actions, proprio = (np.stack([s[name] for s in scenes]) for name in ("video", "actions", "proprio"))
    there, tokens = np.asarray(batch.object_valid), objective.embedded(params, clips[:, :3, 0], proprio[:, :3])
    for n in range(3):
        new = objective.advance(params, tokens[:, n:], actions[:, n : n + 3], there)
        tokens = jax.numpy.concatenate([tokens, new[:, None]], 1)
    found = ahead(clips[:, :3, 0], actions[:, :5], proprio[:, :3])
    np.testing.assert_allclose(found, tokens[:, 3:, :3], atol=1e-5)
    with pytest.raises(ConfigError, match="future = 1 for a model with actions"):
        Rollout(3, 2).run(bench)


def test_the_interval_is_that_of_resampled_scenes():
    rng = np.random.default_rng(0)
    squares, counts = (
        rng.exponential(size=(300, 4, 3)) * rng.exponential(size=(300, 1, 1)),
        rng.random((300, 4, 3)) < 0.7,
    )
    value, half = rollout.measured(squares, counts)
    assert value == pytest.approx(np.sqrt(squares[counts].mean()))
    rows = rng.integers(0, 300, (400, 300))
    spread = np.std([rollout.measured(squares[r], counts[r])[0] for r in rows])
    assert half == pytest.approx(1.96 * spread, rel=0.15)
    thrice = rollout.measured(*(np.repeat(x, 3, 0) for x in (squares, counts)), videos=np.repeat(np.arange(300), 3))
    assert thrice == pytest.approx((value, half))  # windows of one video are no more scenes
    assert rollout.measured(np.repeat(squares, 3, 0), np.repeat(counts, 3, 0))[1] == pytest.approx(
        half / 3**0.5, rel=0.01
    )


def test_wrong_options_and_sources_are_refused():
    for name, value, least in (("history", 1, 2), ("future", 0, 1), ("horizon", -1, 0)):
        with pytest.raises(ConfigError, match=rf"rollout.{name} = {value}: must be an integer of at least {least}$"):
            Rollout(**{name: value})
    with pytest.raises(ConfigError, match="needs a model that predicts hidden slots"):
        Rollout(3, 5).run(make_bench(lambda hidden: None))
    assert set(Rollout.kinds) == {"slots"} and "slots" not in kinds.FILMED
