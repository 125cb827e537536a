"""Interventional probing on models whose answers are known."""

import dataclasses
import functools

import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.worlds import Shadows
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Seen
from cjepa_jax.evals.counterfactual import questions as do_questions
from cjepa_jax.evals.counterfactual import readouts
from cjepa_jax.evals.counterfactual.judge import Judge, explained
from cjepa_jax.evals.interventional import Interventional
from cjepa_jax.masks import objects

SIZE, FRAMES, PATCH, TUBELET = 32, 4, 8, 2
FIT, TEST = 60, 40
OPTIONS = dict(questions_fit=FIT, questions_test=TEST, heads=("linear",), response=16)


def source(split, count, frames=FRAMES):
    return Shadows(split=split, size=SIZE, frames=frames, count=count, seed=7)


def prepare(source, frames=FRAMES):
    mask = functools.partial(objects.draw, max_objects=1, area=(0.01, 0.9))
    scenes = pipeline.SceneMap(source, mask, PATCH, TUBELET, SIZE, 6, "none", 0, frames=frames)
    return dataclasses.replace(scenes, with_objects=True)


def bench(model, randoms=(), source=source, prepare=prepare):
    return Bench(model, tuple(randoms), source, prepare, "train", FIT, "test", TEST, 16, 7, 1e-3)


@functools.cache
def asked():
    """The fitting and the test questions that the protocol asks."""
    return tuple(
        do_questions.prepare(dataclasses.replace(prepare(source(split, 5000)), with_masks=True), count, 7, 0)
        for split, count in (("train", FIT), ("test", TEST))
    )


@functools.cache
def known():
    """By video: what happens in its scene, and which of the scene's objects the rows are."""
    found = {}
    for split, questions in zip(("train", "test"), asked(), strict=True):
        world = source(split, 5000)
        for video, number in zip(questions.video, questions.scene.tolist(), strict=True):
            found[video.tobytes()] = world.outcomes(number), prepare(world)(number, 0)["objects"]
    return found


def knower():
    """Its tokens say of the objects that touch them what will happen to them, without what is removed."""

    def tell(video, patches, removed):
        outcomes, rows = known()[video.tobytes()]
        case = int(rows[removed.argmax()]) + 1 if removed.any() else 0
        tokens = np.zeros((patches.shape[1], 3), np.float32)
        gone = patches[removed].any(0)
        for row in range(len(rows)):
            if rows[row] >= 0 and not removed[row]:
                tokens[patches[row] & ~gone] = [outcomes.happens[case, rows[row]], *outcomes.final[case, rows[row]]]
        return tokens

    def hide(hidden):
        context = np.stack(
            [tell(*row) for row in zip(hidden.video, hidden.object_patches, hidden.removed, strict=True)]
        )
        return Seen(context, None, None)

    return Model(TRAINED, blind().encode, hide)


def blind(name=TRAINED):
    """The same tokens for every scene."""

    def same(video):
        return np.zeros((len(video), 32, 3), np.float32)

    return Model(name, same, lambda hidden: Seen(same(hidden.video), same(hidden.video), None))


def colours(name=TRAINED, scale=1.0):
    """Mean colours of patches, and a change that is right where nothing changes."""

    def encode(video):
        b = len(video)
        tokens = video.reshape(b, 2, 2, 4, 8, 4, 8, 3).mean((2, 4, 6)).reshape(b, 32, 3) / 255.0
        return (scale * tokens).astype(np.float32)

    def hide(hidden):
        tokens = encode(hidden.video)
        return Seen(tokens * hidden.context[..., None], tokens, np.zeros_like(tokens))

    return Model(name, encode, hide, lambda video: encode(video))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Keeps questions and baselines from test to test."""
    return str(tmp_path_factory.mktemp("cache"))


def table(result):
    return {(score.metric, score.row): score for score in result.scores}


def test_who_knows_the_world_without_k_is_right_and_falls_when_another_object_is_removed(cache):
    scores = table(Interventional(**OPTIONS, cache=cache).run(bench(knower())))
    accuracy = scores["accuracy/context/linear", TRAINED]
    wrong = scores["accuracy/context/linear", "wrong object"]
    assert accuracy.value >= 0.85 and wrong.value < accuracy.value - 0.2 and wrong.kind == "floor"
    assert scores["final/context", TRAINED].value > 0.6
    assert not any("masked" in metric or "counterfactual" in metric for metric, _ in scores)  # it predicts nothing


def test_who_is_blind_gets_half_and_beside_it_stand_floors_and_ceilings(cache):
    options = OPTIONS | {"readouts": ("factual", "masked")}
    result = Interventional(**options, cache=cache).run(
        bench(blind(), [blind("random init 0"), blind("random init 1")])
    )
    scores = table(result)
    rows = {row: score for (metric, row), score in scores.items() if metric == "accuracy/masked/linear"}
    assert rows[TRAINED].value == rows[RANDOM].value == rows["true removal"].value == 0.5
    assert rows["copy-factual"].value == 0.5 and rows[RANDOM].of == "inits"
    assert {row: score.kind for row, score in rows.items()} == {TRAINED: "result", RANDOM: "floor"} | {
        "wrong object": "floor",
        "copy-factual": "floor",
        "query only": "floor",
        "query + position": "floor",
        "pixels + query": "floor",
        "true removal": "ceiling",
        "true states": "ceiling",
        "true states of j and k": "ceiling",
    }
    assert all(score.count == TEST for score in rows.values())
    assert scores["response", TRAINED].value == 0
    (picture,) = result.images.values()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and "60 fitting questions. 0 left out" in result.notes[0]


def test_the_explained_share_by_hand():
    """Sums over questions, 2 of 8, and for the second target 0 of 4. Then the mean of the targets."""
    assert explained(np.array([1, 1]), np.array([2, 6]), 0)[0] == pytest.approx(0.75)
    assert explained(np.array([[1, 0], [1, 0]]), np.array([[2, 1], [6, 3]]), 0)[0] == pytest.approx(0.875)


def test_the_mlp_answers_what_is_no_sum_of_features():
    fit, test = asked()
    judge = Judge(fit, test, ("linear", "mlp"), 200, 0)
    rng = np.random.default_rng(0)

    def features(answer):  # their signs agree where the answer is yes
        sign = rng.choice([-1.0, 1.0], len(answer))
        return np.stack([sign, sign * np.where(answer, 1, -1)], 1) + 0.1 * rng.normal(size=(len(answer), 2))

    found = judge.judge(features(fit.answer), features(test.answer))
    assert found["mlp"].mean() > 0.95 and found["linear"].mean() < 0.9 and found["final"].shape == (len(test.final), 2)


def test_readouts_are_means_over_the_tokens_that_they_name():
    (_, test), plain = asked(), colours()

    def hide(hidden):  # its predicted change is once the tokens, its target encoder's tokens are three times as large
        return plain.hide(hidden)._replace(change=plain.encode(hidden.video))

    model = dataclasses.replace(plain, hide=hide, target=lambda video: 3 * plain.encode(video))
    part = test.part(slice(8))
    found = readouts.features(model, part, 2, 0, 3, (*readouts.READOUTS, readouts.REMOVAL), True)
    full, without = model.encode(part.video), model.encode(part.without)
    for i in range(8):
        k, j = (part.object_patches[i, row[i]] for row in (part.removed, part.asked))
        own, others = full[i, j & ~k].mean(0), full[i, ~k].mean(0)
        assert (j & ~k).any()
        expected = {
            "factual": [full[i].mean(0), own, full[i, k].mean(0)],
            "context": [others, own],
            "masked": [full[i, k].mean(0), own],
            "counterfactual": [2 * others, 2 * own],
            "both": [full[i, k].mean(0), own, 2 * others, 2 * own],
            "true change": [without[i, ~k].mean(0), without[i, j & ~k].mean(0)],
            "true removal": [without[i].mean(0), without[i, part.asked_without[i]].mean(0)],
        }
        for name, parts in expected.items():
            assert found[name][i] == pytest.approx(np.concatenate(parts), abs=1e-6), name
        if part.other[i] >= 0:
            other = part.object_patches[i, part.other[i]]
            assert found["wrong object: context"][i, :3] == pytest.approx(full[i, ~other].mean(0), abs=1e-6)
    assert not any(name.startswith("wrong object: blanked") for name in found)  # an encoding less
    dark = part.blanked()
    masks = np.stack([_masks(number)[row] for number, row in zip(part.scene, part.removed, strict=True)])
    assert masks.any() and (dark[masks] == 0).all() and (dark[~masks] == part.video[~masks]).all()


def _masks(number):
    return dataclasses.replace(prepare(source("test", 5000)), with_masks=True)(int(number), 0)["masks"]


def test_an_anchor_leaves_the_beginning_visible():
    (_, test) = asked()
    gone = ~readouts.hide(test, test.removed, 2, 1).context
    patches = test.object_patches[np.arange(len(test.removed)), test.removed]
    assert not gone[:, :16].any() and (gone[:, 16:] == patches[:, 16:]).all() and gone.any()


def test_questions_keep_their_balance_and_their_films_are_the_worlds():
    for split, asked_of in zip(("train", "test"), asked(), strict=True):
        assert (asked_of.factual == asked_of.answer).mean() == asked_of.answer.mean() == 0.5
        world = source(split, 5000)
        number, k = int(asked_of.scene[0]), int(asked_of.removed[0])
        rows = prepare(world)(number, 0)["objects"]
        played = world.rollout(number, np.arange(len(world.outcomes(number).asked)) == rows[k])
        assert np.array_equal(asked_of.without[0], played["video"])
        seen = played["masks"][rows[int(asked_of.asked[0])]]  # of j, [T, H, W]
        where = asked_of.asked_without[0].reshape(2, 4, 4)
        assert [
            seen[:, y : y + 8, x : x + 8].any((1, 2)).reshape(2, -1).any(1).tolist() for y, x in ((0, 0), (8, 16))
        ] == [where[:, y // 8, x // 8].tolist() for y, x in ((0, 0), (8, 16))]


def test_response_is_the_change_of_untouched_tokens_over_the_variance():
    (_, test), model = asked(), colours()
    part = test.part(slice(16))
    response, (error, spread) = readouts.responses(model, part, 2, 0, 5)
    full, without = (model.encode(v).astype(np.float64) for v in (part.video, part.without))
    variance = np.square(full - full.mean(0)).sum(-1).mean()
    rest = ~part.object_patches[np.arange(16), part.removed]
    each = [np.square(f - w)[r].sum(-1).mean() for f, w, r in zip(full, without, rest, strict=True)]
    assert response == pytest.approx(np.array(each) / variance, rel=1e-4) and response.mean() > 0
    assert error.sum() == pytest.approx(np.square(full - without)[rest].sum(), rel=1e-4)  # it says "no change"
    assert 0 < spread.sum() <= error.sum()


def test_the_wrong_object_answers_for_k_where_neither_of_them_is():
    (_, test), plain = asked(), colours()
    part = test.part(slice(12))

    def hide(hidden):  # it says how large the removed object is, of every token
        size = (hidden.object_patches & hidden.removed[..., None]).sum((1, 2)) / 100
        return Seen(None, None, np.broadcast_to(size[:, None, None], (len(size), 32, 3)).astype(np.float32))

    found = readouts.wrong_object(dataclasses.replace(plain, hide=hide), part, 2, 0, 5)
    real = plain.encode(part.video) - plain.encode(part.without)
    there = part.other >= 0
    k, o = (part.object_patches[np.arange(12), row] & there[:, None] for row in (part.removed, part.other))
    rest = ~(part.object_patches[np.arange(12), part.removed] | o)
    for name, patches in (("own", k), ("wrong", o)):
        error = (np.square(patches.sum(1)[:, None, None] / 100 - real).sum(-1) * rest).sum(1)[there]
        assert found[name] == pytest.approx(error, rel=1e-4)
    assert found["size"] == pytest.approx((np.square(real).sum(-1) * rest).sum(1)[there], rel=1e-4) and there.any()
    assert readouts.wrong_object(blind(), part, 2, 0, 5) == {}


def test_the_wrong_object_has_its_row_and_minus_1_is_the_anchor_of_the_training(cache):
    options = OPTIONS | {"readouts": ("context",), "random_readouts": ("context",), "wrong": False}
    made = dataclasses.replace(bench(colours(), [colours()]), anchor=1)
    scores = [table(Interventional(**options, anchor=anchor, cache=cache).run(made)) for anchor in (-1, 1)]
    assert repr(scores[0]) == repr(scores[1])
    rows = {row: score for (metric, row), score in scores[0].items() if metric == "explained/neither object"}
    assert rows[TRAINED].value == rows["wrong object"].value == 0 and rows["wrong object"].kind == "floor"
    assert set(rows) == {TRAINED, "wrong object", RANDOM}


def _all_at_once(model, asked):
    """The same by its formula, with everything in memory."""
    full, without = (model.encode(video) for video in (asked.video, asked.without))
    rest = ~asked.object_patches[np.arange(len(asked.video)), asked.removed]
    change = (np.square(full - without).sum(-1) * rest).sum(1) / np.maximum(rest.sum(1), 1)
    response = change / max(float(full.var(0).sum(-1).mean()), 1e-12)
    seen = model.hide(readouts.hide(asked, asked.removed, 2, 0))
    real = model.target(asked.video) - model.target(asked.without)
    error, spread = np.square(seen.change - real), np.square(real - real[rest].mean(0))
    return response, [(value.sum(-1) * rest).sum(1) for value in (error, spread)]


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_response_by_batches_is_that_of_all_at_once(batch):
    plain, (_, test) = colours(), asked()

    def encode(video):
        return plain.encode(video) + np.float32(30)  # far from 0: the variance is a small difference of large sums

    def hide(hidden):
        assert len(hidden.video) <= batch
        return Seen(None, None, plain.encode(hidden.video) ** 2)

    model = Model(TRAINED, encode, hide, lambda video: 2 * plain.encode(video))
    whole = dataclasses.replace(model, hide=lambda hidden: Seen(None, None, plain.encode(hidden.video) ** 2))
    response, foreseen = readouts.responses(model, test, 2, 0, batch)
    expected, others = _all_at_once(whole, test)
    assert response == pytest.approx(expected, rel=1e-3)  # of float32, at 30
    for value, other in zip(foreseen, others, strict=True):
        assert value == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_other_code_asks_other_questions(tmp_path, monkeypatch):
    scenes = prepare(source("test", 100))
    same = do_questions.fingerprint(scenes, count=4)
    assert same == do_questions.fingerprint(scenes, count=4) != do_questions.fingerprint(scenes, count=8)
    names = []
    for number, text in enumerate(("gravity = 1", "gravity = 1", "gravity = 2")):
        (tmp_path / f"{number}/worlds").mkdir(parents=True)
        (tmp_path / f"{number}/worlds/balls.py").write_text(text)
        (tmp_path / f"{number}/worlds/notes.txt").write_text(str(number))
        (tmp_path / f"{number}/questions.py").write_text("draw = 1")
        monkeypatch.setattr(do_questions, "CODE", (tmp_path / f"{number}/worlds", tmp_path / f"{number}/questions.py"))
        names.append(do_questions.fingerprint(scenes, count=4))
    assert names[0] == names[1] != names[2] and same not in names
    monkeypatch.undo()
    assert all(place.is_dir() or place.is_file() for place in do_questions.CODE)


def test_a_model_without_the_readouts_is_refused_before_all_is_encoded(cache):
    seen = []

    def encode(video):
        seen.append(len(video))
        return blind().encode(video)

    model = Model(TRAINED, encode, lambda hidden: Seen(None, None, None))
    with pytest.raises(ConfigError, match="interventional needs a model with one of the readouts masked, both"):
        Interventional(**OPTIONS, readouts=("masked", "both"), cache=cache).run(bench(model))
    assert sum(seen) <= 16  # a batch


def test_every_readout_has_its_random_row():
    assert Interventional().random_readouts == readouts.READOUTS


def test_a_cache_gives_the_same_numbers_and_tells_models_apart(tmp_path):
    options = OPTIONS | {"readouts": ("context",), "random_readouts": ("context",), "wrong": False}
    options |= {"questions_fit": 20, "questions_test": 8}
    protocol = Interventional(**options, cache=str(tmp_path))
    plain = Interventional(**options).run(bench(colours(), [blind()]))
    first = protocol.run(bench(colours(), [blind()]))
    names = {file.name for file in tmp_path.iterdir()}
    again = protocol.run(bench(colours(), [blind()]))
    assert repr(plain.scores) == repr(first.scores) == repr(again.scores) and names == {
        file.name for file in tmp_path.iterdir()
    }
    protocol.run(bench(colours(), [colours(scale=2.0)]))
    assert len({file.name for file in tmp_path.iterdir()} - names) == 1
    for file in tmp_path.glob("questions-*"):
        file.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="cannot be read, delete it"):
        protocol.run(bench(colours()))


class NoWorld(Shadows):
    can_rerender = False


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(source=lambda split, count: NoWorld(split=split, size=SIZE, frames=FRAMES)), "needs counterfactuals"),
        (
            dict(source=lambda *a: source(*a, frames=1), prepare=lambda world: prepare(world, 1)),
            "needs clips: data.frames is 1",
        ),
    ],
)
def test_data_that_cannot_serve_are_refused_in_a_line(change, says):
    with pytest.raises(ConfigError, match=f"evals.protocols: interventional {says}"):
        Interventional(**OPTIONS).run(bench(blind(), **change))


@pytest.mark.parametrize(
    "option",
    [
        {"questions_fit": 30}, {"questions_test": 4}, {"heads": ("forest",)}, {"readouts": ()}, {"anchor": -2},
        {"wrong": 1}, {"anchor": 2},
    ],
)  # fmt: skip
def test_options_out_of_their_limits_are_refused(option):
    with pytest.raises(ConfigError, match=f"interventional.{next(iter(option))} = "):
        Interventional(**OPTIONS | option).run(bench(blind()))


def test_tokens_that_cover_the_scene_hide_nothing():
    patches = np.array([[True, True, True, True], [True, False, True, False], [False, False, True, True]])
    assert do_questions.hidden(patches, 2, 0).tolist() == [
        [False] * 4,
        [True, False, True, False],
        [False, False, True, True],
    ]
    assert do_questions.hidden(patches, 2, 1).tolist() == [[False, False, True, True], [False, False, True, False]] + [
        [False, False, True, True]
    ]
