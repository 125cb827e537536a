"""What protocols with questions share, against closed forms and cases counted by hand."""

import types

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import RANDOM, TRAINED, Model, Scenes
from cjepa_jax.evals.benchmarks import language_head
from cjepa_jax.evals.benchmarks.clevrer import Clevrer
from cjepa_jax.evals.benchmarks.craft import Craft
from cjepa_jax.evals.benchmarks.language_head import Items, Judged, Reader, Row


def items(texts, answer, kind="cause", source=()):
    count = np.arange(len(texts))
    return Items(count, [(text,) for text in texts], np.full(len(texts), kind), np.array(answer), list(source), count)


def test_the_interval_is_that_of_the_scenes_means_where_all_have_as_many_questions():
    right = np.random.default_rng(0).random((30, 4)) < np.linspace(0.1, 0.9, 30)[:, None]
    scene = np.repeat(np.arange(30), 4)
    value, half = language_head.share(right.ravel(), scene)
    assert value == pytest.approx(right.mean())
    assert half == pytest.approx(1.96 * right.mean(1).std(ddof=1) / np.sqrt(30))
    assert np.isnan(language_head.share(right[0], np.zeros(4, int))[1])


def test_groups_weigh_the_same_however_many_questions_they_have():
    right = np.array([1, 1, 1, 0, 0], bool)
    assert language_head.share(right, np.arange(5))[0] == pytest.approx(0.6)
    value, half = language_head.share(right, np.arange(5), np.array(["a", "a", "a", "a", "b"]))
    assert value == pytest.approx((0.75 + 0) / 2)
    off = np.array([0.25, 0.25, 0.25, -0.75, 0]) / 4 / 2
    assert half == pytest.approx(1.96 * np.sqrt(5 / 4 * (off**2).sum()))


def test_random_initialisations_are_one_row_after_the_first():
    rows = [(TRAINED, "result", 3), (RANDOM, "floor", 1), (RANDOM, "floor", 2), ("question only", "floor", 0)]
    judged = [Judged(name, kind, np.arange(4) < count) for name, kind, count in rows]
    found = language_head.scores("linear/cause", judged, np.arange(4), np.arange(4) < 4)
    assert [(s.row, s.value, s.of) for s in found] == [
        (TRAINED, 0.75, "items"), (RANDOM, 0.375, "inits"), ("question only", 0.0, "items"),
    ]  # fmt: skip
    assert [s.kind for s in found] == ["result", "floor", "floor"] and {s.count for s in found} == {4}


@pytest.mark.parametrize("width", [6, 60])
def test_main_components_are_those_of_the_standardised_features(width):
    rng = np.random.default_rng(1)
    fit, test = rng.normal(size=(40, width)) * np.arange(1, width + 1) + 5, rng.normal(size=(9, width))
    fit[:, 0] += fit[:, 1]
    got, other = language_head.main_components(fit, test, 3)
    standard = (fit - fit.mean(0)) / fit.std(0)
    u, sigma, vt = np.linalg.svd(standard, full_matrices=False)
    sign = np.sign((got * u[:, :3]).sum(0))
    assert got == pytest.approx(sign * u[:, :3] * np.sqrt(40), abs=1e-4)
    projected = (test - fit.mean(0)) / fit.std(0) @ vt[:3].T
    assert other == pytest.approx(sign * projected / sigma[:3] * np.sqrt(40), abs=1e-3)
    assert language_head.main_components(fit[:, :0], test[:, :0], 3)[1].shape == (9, 0)
    assert language_head.main_components(np.ones((5, 2)), np.ones((3, 2)), 2)[0].shape == (5, 0)


@pytest.fixture(scope="module")
def two_squares():
    """Scenes with the colours of a left and a right square. Each question is about one of them."""
    rng = np.random.default_rng(2)
    colours, side = rng.integers(0, 2, (300, 2)), rng.integers(0, 2, 300)
    texts = [f"What colour is the {('left', 'right')[s]} square?" for s in side]
    answer = np.array(["blue", "red"])[colours[np.arange(300), side]]
    features = (colours + 0.1 * rng.normal(size=colours.shape)).astype(np.float32)
    return items(texts[:200], answer[:200]), items(texts[200:], answer[200:]), features[:200], features[200:]


def right(two_squares, head, components, known=True):
    fit, test, x, z = two_squares
    width = 2 if known else 0
    judged = Reader(fit, test, components, 300, 0)(head, Row(TRAINED, "result", x[:, :width], z[:, :width]))
    return judged.right.mean()


def test_only_products_let_a_linear_answer_depend_on_what_is_asked(two_squares):
    assert right(two_squares, "linear", 4) > 0.98
    assert right(two_squares, "linear", 0) < 0.85
    assert 0.35 < right(two_squares, "linear", 4, known=False) < 0.65


@pytest.mark.slow
def test_a_hidden_layer_needs_no_products(two_squares):
    assert right(two_squares, "mlp", 0) > 0.98


def test_answers_that_are_never_fitted_count_as_wrong(two_squares):
    fit, test, x, z = two_squares
    strange = test._replace(answer=np.where(test.answer == "red", "crimson", "blue"))
    judged = Reader(fit, strange, 4, 300, 0)("linear", Row("a row", "floor", x, z))
    assert not judged.right[strange.answer == "crimson"].any() and judged.right[strange.answer == "blue"].all()
    assert judged[:2] == ("a row", "floor")


def test_the_most_frequent_answer_is_that_of_the_type():
    fit = items(["a"] * 5, ["yes", "yes", "no", "2", "2"])
    fit = fit._replace(kind=np.array(["cause", "cause", "cause", "count", "count"]))
    test = items(["b"] * 4, ["no", "yes", "2", "2"])._replace(kind=np.array(["cause", "cause", "count", "new"]))
    assert language_head.most_frequent(fit, test).right.tolist() == [False, True, True, True]  # of all, "2" comes first


def test_taking_some_items_keeps_what_belongs_to_them():
    one = items(["a", "b", "c"], ["1", "2", "3"], source=[{"n": 0}, {"n": 1}, {"n": 2}])
    two = one.take(np.array([False, True, True]))
    assert two.texts == [("b",), ("c",)] and two.source == [{"n": 1}, {"n": 2}]
    assert two.row.tolist() == two.number.tolist() == [1, 2] and two.answer.tolist() == ["2", "3"]


def test_stretches_of_time_are_averaged_apart():
    tokens = np.arange(2 * 5 * 3 * 2, dtype=np.float32).reshape(2, 15, 2)  # 5 times of 3 tokens
    model = Model("m", lambda video: tokens[video[:, 0, 0, 0, 0]], None)
    video = np.array([1, 0], np.uint8).reshape(2, 1, 1, 1, 1)
    scenes = Scenes(None, types.SimpleNamespace(grid=(5, 1, 3)), {"video": video})
    assert np.array_equal(language_head.over_time(model, scenes, 1, 1), tokens[::-1].mean(1))
    wanted = np.concatenate([tokens[::-1, :9].mean(1), tokens[::-1, 9:].mean(1)], 1)
    assert np.array_equal(language_head.over_time(model, scenes, 2, 2), wanted)
    assert language_head.over_time(model, scenes, 9, 2).shape == (2, 10)  # no more than there are times


def test_states_of_named_objects_come_first_then_all_in_the_sources_order():
    states = np.random.default_rng(3).normal(size=(2, 10, 3, 2)).astype(np.float32)
    arrays = {"states": states, "objects": np.array([[2, 0, -1], [1, 0, 2]])}
    asked = items(["a", "b"], ["1", "2"], source=[{"objects": (2, 1)}, {"objects": ()}])
    found = language_head.true_states(arrays, asked)
    when = [0, 3, 6, 9]
    named, every = found[:, : 3 * 4 * 2].reshape(2, 3, 4, 2), found[:, 3 * 4 * 2 :].reshape(2, 4, 3, 2)
    assert np.array_equal(named[0, 0], states[0, when, 0]) and not named[0, 1:].any() and not named[1].any()
    assert np.array_equal(every[0], states[0][when][:, [1, 0, 2]])
    assert np.array_equal(every[1], states[1][when][:, [1, 0, 2]])
    assert language_head.true_states(arrays, items("ab", "12", source=[{}, {}])).shape == (2, 4 * 3 * 2)


@pytest.mark.parametrize("protocol", [Craft, Clevrer])
@pytest.mark.parametrize(
    "option, named",
    [
        ({"heads": ("linear", "knn")}, r"heads = \('linear', 'knn'\): must name some of linear, mlp"),
        ({"heads": ()}, "heads"),
        ({"components": -1}, "components = -1: must be a whole number, at least 0"),
        ({"parts": 0}, "parts = 0"),
        ({"steps": True}, "steps = True"),
    ],
)
def test_options_out_of_their_limits_are_refused(protocol, option, named):
    with pytest.raises(ConfigError, match=f"evals.protocols: {protocol.__name__}.{named}"):
        protocol(**option)


@pytest.mark.parametrize("source, said", [({"per_clip": 3}, "a clip gives 3 scenes"), ({"per_clip": 1}, ""), ({}, "")])
def test_clips_that_are_cut_up_are_remarked_on(source, said):
    scenes = types.SimpleNamespace(source=types.SimpleNamespace(**source))
    notes = language_head.about_windows(types.SimpleNamespace(fitting=scenes))
    assert len(notes) == bool(said) and all(said in note for note in notes)
