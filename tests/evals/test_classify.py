"""Classifiers against loops, and the protocol on scenes whose class is known."""

import dataclasses

import jax
import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import base, classify
from tests.evals import benches

RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Tinted(Balls):
    """The class is the tint of the whole frame."""

    def __getitem__(self, i):
        scene = super().__getitem__(i)
        tint = i % 3
        video = scene["video"] // 2
        video[..., tint] += 100
        return scene | {"video": video, "class": np.int64(tint)}


def make(source=Tinted, fit=30, test=12):
    return benches.bench(lambda split, count: source(split=split, size=32, count=count), 32, 4, fit, test)


def test_votes_of_neighbours_are_those_of_a_loop():
    train, y, test = RNG.normal(size=(20, 4)), RNG.integers(0, 3, 20), RNG.normal(size=(7, 4))
    votes = classify.nearest(train, y, test, 5, 3, rows=3)
    for row, x in enumerate(test):
        cosine = train @ x / np.linalg.norm(train, axis=1) / np.linalg.norm(x)
        expected = np.zeros(3)
        for i in np.argsort(-cosine)[:5]:
            expected[y[i]] += np.exp(cosine[i] / 0.07)
        np.testing.assert_allclose(votes[row] / votes[row].sum(), expected / expected.sum(), rtol=1e-9)
    assert classify.nearest(train, y, test, 99, 3).shape == (7, 3)  # no more neighbours than rows


def test_poolings_are_those_of_a_loop():
    tokens = RNG.normal(size=(3, 5, 2)).astype(np.float32)
    for i, one in enumerate(tokens):
        mean, most = sum(one) / 5, [max(column) for column in one.T]
        np.testing.assert_allclose(base.whole(tokens)[i], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(base.whole(tokens, "max")[i], most)
        np.testing.assert_allclose(base.whole(tokens, "mean+max")[i], [*mean, *most], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(base.whole(tokens), tokens.mean(1))
    for other in ("cls", "first"):  # an encoder with a class token gives the others alone
        with pytest.raises(ConfigError, match=f"Classify.pooling = '{other}': must be one of mean, max, mean.max$"):
            classify.Classify(pooling=other)


def test_the_maximum_shows_what_one_token_says(monkeypatch):
    """One token of 64 says the class, in either direction of its own column."""

    def encode(video):
        tint = np.asarray(video).mean((1, 2, 3)).argmax(-1)
        tokens = np.random.default_rng(0).normal(size=(len(video), 64, 3)).astype(np.float32)
        tokens[np.arange(len(video)), 7, tint] = 6.0
        return tokens

    made = make(fit=90, test=30)
    made = dataclasses.replace(made, model=dataclasses.replace(made.model, encode=encode), randoms=())
    accuracy = {}
    for pooling in ("mean", "max", "mean+max"):
        protocol = classify.Classify(pooling=pooling, low_shot=0.0, neighbours=0, attentive=False, steps=300)
        accuracy[pooling] = protocol.run(made).scores[0].value
    assert accuracy["max"] == accuracy["mean+max"] == 1.0 > accuracy["mean"] + 0.1, accuracy


def test_a_share_of_every_class():
    y = np.repeat([0, 1, 3], [200, 100, 4])
    few = classify.stratified(y, 0.02, np.random.default_rng(0))
    assert np.bincount(y[few]).tolist() == [4, 2, 0, 1] and len(set(few)) == 7
    np.testing.assert_array_equal(few, classify.stratified(y, 0.02, np.random.default_rng(0)))
    assert (np.diff(y[few]) < 0).any()  # not class by class


def test_attention_is_a_weighted_mean_of_values():
    params = classify.attention_init(jax.random.key(0), 16, 5)
    one = {name: np.asarray(leaf[0], np.float64) for name, leaf in params.items()}
    one["head"] = RNG.normal(size=(16, 5))
    x = RNG.normal(size=(2, 7, 16)).astype(np.float32)
    attend = jax.jit(classify.attend)
    out = np.asarray(attend(jax.tree.map(np.float32, one), x))

    def norm(a):
        return (a - a.mean(-1, keepdims=True)) / a.std(-1, keepdims=True)

    for b in range(2):
        tokens = norm(x[b].astype(float))
        pooled = []
        for head in range(8):
            score = np.exp(tokens @ one["score"][:, head])
            pooled.append(score / score.sum() @ (tokens @ one["value"][:, 2 * head : 2 * head + 2]))
        np.testing.assert_allclose(out[b], norm(np.concatenate(pooled)) @ one["head"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.asarray(attend(jax.tree.map(np.float32, one), x[:, ::-1])), out, atol=1e-4)


@pytest.mark.slow
def test_tints_are_told_by_colours_and_not_by_a_blind_encoder(monkeypatch):
    protocol = classify.Classify(steps=60, neighbours=5)
    result = protocol.run(make())
    metrics = ("accuracy/linear", "accuracy/linear, few", "accuracy/k-NN", "accuracy/attentive")
    for metric in metrics:
        rows = benches.by_row(result, metric)
        assert rows["trained"] > 0.9, metric
        assert rows["random init"] == pytest.approx(1 / 3) == rows["majority class"], metric  # 12 scenes, 4 of each
        assert ("pixel PCA" in rows) == (metric != "accuracy/attentive")
    assert benches.by_row(result, "accuracy/k-NN")["pixel PCA"] > 0.9
    monkeypatch.setattr(classify, "CACHED", 0)  # as for a split too large to keep
    assert protocol.run(make()).scores == result.scores


@pytest.mark.slow
def test_a_label_may_be_the_class():
    protocol = classify.Classify(label="count", attentive=False, low_shot=0, neighbours=0, steps=20)
    result = protocol.run(make(Balls))
    assert {score.metric for score in result.scores} == {"accuracy/linear"} and "classes" in result.notes[0]
    same = classify.Classify(label=0, attentive=False, low_shot=0, neighbours=0, steps=20)
    assert same.run(make(Balls)).scores == result.scores


def test_classes_are_the_sources_or_a_rounded_label():
    arrays = {"labels": np.array([[0.2, 3.9], [1.1, 2.0]], np.float32), "class": np.array([7, 8], np.int32)}
    names = ("kind", "count")
    for label, expected in (("class", [7, 8]), ("count", [4, 2]), (0, [0, 1])):
        assert classify.classes_of(arrays, names, label, "Any").tolist() == expected
    with pytest.raises(ConfigError, match="^evals.protocols: Any.label = True needs a label of that name"):
        classify.classes_of(arrays, names, True, "Any")
    with pytest.raises(ConfigError, match="^evals.protocols: Any needs a class of every scene, 0 or more"):
        classify.classes_of({"class": np.array([-1, 0])}, names, "class", "Any")


@pytest.mark.slow
def test_tokens_beyond_the_limit_leave_a_note_instead_of_the_attentive_probe():
    protocol = classify.Classify(limit=1, low_shot=0, neighbours=0, steps=2)
    result = protocol.run(make(fit=6, test=6))
    assert {score.metric for score in result.scores} == {"accuracy/linear"}
    assert result.notes[-1] == "No attentive probe: a batch of tokens takes more than Classify.limit = 1 bytes."


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "Classify needs a class of each scene, or Classify.label = one of"),
        ({"label": "kind"}, "Classify.label = 'kind' needs a label of that name"),
        ({"label": 99}, "Classify.label = 99 needs a label"),
        ({"label": "count", "classes": 2}, "Classify.classes = 2: the fitting set has class"),
    ],
)
def test_data_without_such_classes_are_refused(options, words):
    with pytest.raises(ConfigError, match=f"^evals.protocols: {words}"):
        classify.Classify(**options).run(make(Balls))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"neighbours": -1}, {"low_shot": 1.0}, {"classes": -1}, {"limit": 0},
                                   {"steps": "x"}, {"classes": True}, {"low_shot": "x"}])  # fmt: skip
def test_options_out_of_their_limits_are_named(wrong):
    with pytest.raises(ConfigError, match=f"Classify.{next(iter(wrong))} = .*must be .*at least"):
        classify.Classify(**wrong)
