"""Violation of expectation: the clips, the measures, and judges whose answers are known."""

import dataclasses
import functools

import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import surprise
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Hidden, Model, Seen
from cjepa_jax.evals.surprise import CLIPS, Surprise
from cjepa_jax.masks import objects

PATCH, TUBELET = 8, 2


def patches(video):
    """The pixels of each token: uint8 [B, T, H, W, 3] -> float32 [B, N, D]."""
    b, t, h, w, _ = video.shape
    cut = video.reshape(b, t // TUBELET, TUBELET, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    return cut.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, -1, TUBELET * PATCH * PATCH * 3).astype(np.float32) / 255


def noise(hidden: Hidden) -> Seen:
    shape = patches(hidden.video).shape
    return Seen(None, np.random.default_rng(0).normal(size=shape).astype(np.float32), None)


def make_bench(hide, frames=8, source=None, randoms=1):
    source = source or Balls("test", size=32, frames=frames, count=8)
    mask = functools.partial(objects.draw, area=(0.001, 0.9))
    scenes = pipeline.SceneMap(source, mask, PATCH, TUBELET, 32, 8, "none", 0, frames=frames, with_objects=True)
    fake = tuple(Model(f"{RANDOM} {index}", patches, noise, patches) for index in range(randoms))
    model = Model(TRAINED, patches, hide, patches)
    return Bench(
        model, fake, lambda split, count: source, lambda source: scenes, "train", 8, "test", 8, batch=5, seed=3, rate=1
    )  # fmt: skip


def expecting(possible):
    """Predicts that a clip continues like the possible one with the same beginning."""
    known = {clip[:TUBELET].tobytes(): clip for half in possible for clip in half}

    def hide(hidden: Hidden) -> Seen:
        clips = np.stack([known[clip[:TUBELET].tobytes()] for clip in hidden.video])
        return Seen(None, patches(clips), None)

    return hide


@pytest.mark.parametrize("curtain", [0, 1])
def test_who_expects_what_is_possible_is_always_surprised_by_the_rest(curtain):
    protocol = Surprise(curtain=curtain, target_norm="none")
    bench = make_bench(noise)
    possible = protocol.pairs(bench, *((2, 4) if curtain else (4, 4)))
    assert len(possible[0]) >= 6 and (possible[0] != possible[1]).any((1, 2, 3, 4)).all()
    result = protocol.run(dataclasses.replace(bench, model=Model(TRAINED, patches, expecting(possible), patches)))
    rows = {(score.metric.partition("/")[2] or "auroc", score.row): score for score in result.scores}
    assert {row for _, row in rows} == {TRAINED, RANDOM, "last features", "last frame", "chance"}
    for metric in ("vanishes", "appears", "sets", "auroc"):
        score = rows[metric, TRAINED]
        assert score.value == 1 and score.kind == "result" and score.count == len(possible[0])
        assert rows[metric, "chance"].value == 0.5 and rows[metric, RANDOM].kind == "floor"
    # With a curtain, that nothing changes is as wrong of the possible clips as of the impossible ones.
    for row in ("last frame", "last features"):
        assert rows["sets", row].value == 0.5 if curtain else rows["sets", row].value > 0.8
    curve = result.curves[f"surprise per tubelet, {TRAINED}"]
    assert curve["possible"][0].tolist() == ([2, 3] if curtain else [1, 2, 3]) and (curve["possible"][1] == 0).all()
    assert (curve["impossible"][1] > 0).tolist() == ([True, True] if curtain else [False, True, True])
    assert all(image.shape == (2 * 36, 4 * 36, 3) for image in result.images.values()) and len(result.images) == 2


def test_possible_and_impossible_clips_are_made_of_the_same_frames():
    full, without = np.zeros((2, 3, 6, 4, 4, 3), np.uint8)
    full += np.arange(6, dtype=np.uint8)[:, None, None, None]
    without += np.arange(10, 16, dtype=np.uint8)[:, None, None, None]
    clips = surprise.spliced(full, without, first=1, curtain=0, times=3)
    shown = {name: clip[0, :, 0, 0, 0].tolist() for name, clip in clips.items()}
    assert shown["vanishes"] == [0, 1, 12, 13, 14, 15] and shown["appears"] == [10, 11, 2, 3, 4, 5]
    assert sorted(shown["with"] + shown["without"]) == sorted(shown["vanishes"] + shown["appears"])
    clips = surprise.spliced(full, without, first=1, curtain=1, times=3)
    assert [clips[name][2, :, 3, 3, 2].tolist() for name in CLIPS] == [
        [0, 1, 128, 128, 4, 5], [10, 11, 128, 128, 14, 15], [0, 1, 128, 128, 14, 15], [10, 11, 128, 128, 4, 5],
    ]  # fmt: skip


@pytest.mark.parametrize("norm", ["layer_norm", "none"])
def test_surprise_is_the_distance_of_what_is_predicted_from_the_past(norm):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (2, 6, 16, 16, 3), np.uint8)  # 3 tubelets of 4 patches
    guess = rng.normal(size=(2, 12, 384)).astype(np.float32)
    asked = []

    def hide(hidden):
        assert not hidden.removed.any() and hidden.object_patches.shape == (2, 5, 12)
        assert (hidden.context == (np.arange(12) < hidden.context[0].sum())).all()
        asked.append(int(hidden.context[0].sum()))
        return Seen(None, guess * len(asked), None)

    found = surprise.predicted(Model("", None, hide, patches), video, 3, 5, norm)
    assert asked == [4, 8] and (found[:, 0] == 0).all()
    tokens = patches(video).astype(np.float64)
    if norm == "layer_norm":
        tokens = np.array([[(x - x.mean()) / np.sqrt(x.var() + 1e-6) for x in clip] for clip in tokens])
    for t in (1, 2):
        error = np.abs(guess * t - tokens)[:, 4 * t : 4 * t + 4].mean((1, 2))
        np.testing.assert_allclose(found[:, t], error, rtol=1e-5)
    copy = surprise.copied(Model("", patches, hide), video, 3, norm)
    np.testing.assert_allclose(copy[:, 2], np.abs(tokens[:, 8:] - tokens[:, 4:8]).mean((1, 2)), rtol=1e-5)
    last = surprise.pixels(video, 3)
    expected = np.abs(video[:, 2:4] / 255 - video[:, 1:2] / 255).mean((1, 2, 3, 4))
    np.testing.assert_allclose(last[:, 1], expected, rtol=1e-5)


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(1)
    for size in (1, 7, 40):
        negative, positive = rng.integers(0, 9, size).astype(float), rng.integers(2, 12, 2 * size).astype(float)
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        assert surprise.auroc(negative, positive) == pytest.approx(np.mean(pairs))


def test_measures_of_surprise_are_counts():
    clips = np.array([[1.0, 1, 1, 2], [1, 3, 1, 2], [2, 2, 1, 1], [0, 2, 1, 9]])  # of CLIPS, four scenes
    values = {name: value for name, (value, _) in surprise.measured(clips, 0).items()}
    assert values["relative accuracy/vanishes"] == pytest.approx(np.mean([1, 0.5, 0.5, 0]))
    assert values["relative accuracy/appears"] == pytest.approx(np.mean([0, 0.5, 0.5, 1]))
    assert values["relative accuracy/sets"] == pytest.approx(np.mean([0.5, 0.5, 0.5, 1]))
    pairs = [(p > n) + 0.5 * (p == n) for p in clips[2:].ravel() for n in clips[:2].ravel()]
    assert values["auroc"] == pytest.approx(np.mean(pairs))
    assert surprise.greater(np.array([0.1 + 0.2]), np.array([0.3])) == [0.5]  # rounding decides nothing


@dataclasses.dataclass(frozen=True)
class Fixed(Balls):
    can_rerender = False


@pytest.mark.parametrize(
    "bench, options, text",
    [
        (dict(hide=noise, frames=4), {}, "needs clips of at least 3 tubelets, not 2"),
        (dict(hide=noise, frames=6), {"curtain": 1}, "needs clips of at least 4 tubelets, not 3"),
        (dict(hide=lambda hidden: Seen(None, None, None)), {}, "needs a model that predicts hidden tokens"),
        (dict(hide=noise, source=Fixed("test", size=32, frames=8, count=8)), {}, "needs a source that removes objects"),
        (
            dict(hide=noise, source=Balls("test", size=32, frames=8, do="swap")),
            {},
            "needs a source that removes objects",
        ),
        (dict(hide=noise), {"scenes": 3}, "needs 4 test scenes with an object"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(bench, options, text):
    with pytest.raises(ConfigError, match=f"evals.protocols: Surprise {text}") as error:
        Surprise(**options).run(make_bench(**bench))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "options, text",
    [
        ({"scenes": -1}, "scenes = -1"),
        ({"curtain": 1.5}, "curtain = 1.5"),
        ({"target_norm": "l2"}, "target_norm = 'l2'"),
    ],
)
def test_options_out_of_their_limits_are_named(options, text):
    with pytest.raises(ConfigError, match=f"surprise.{text}"):
        Surprise(**options)
