"""CoPhy's score by hand, and its task on fixtures in the published layout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.sources.cophy import CoPhy as Videos
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Seen
from cjepa_jax.evals.benchmarks import cophy
from tests.data.sources import test_cophy as published

PAIRS, SIZE, PATCH, WIDTH = 8, 32, 16, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs that differ in where their objects are: all of AB and CD is shifted by the pair's number."""
    root = tmp_path_factory.mktemp("CoPhy_224")
    (root / "splits").mkdir()
    for scenario, home in (("ballsCF", "ballsCF/4"), ("blocktowerCF", "blocktowerCF/3")):
        published.write_pair(root / home / "0", scenario)
        for i in range(1, PAIRS):
            for file in (root / home / "0").rglob("*.*"):
                target = root / home / str(i) / file.relative_to(root / home / "0")
                target.parent.mkdir(parents=True, exist_ok=True)
                if file.name == "states.npy":
                    states = np.load(file)
                    states[:, :3, 0] += 0.1 * i * (states[:, :3, 2] > 0)
                    np.save(target, states)
                else:
                    target.symlink_to(file)
    for split in ("train", "test"):
        for name in ("ballsCF_{}_4", "blocktowerCF_{}_3_normal"):
            (root / "splits" / f"{name.format(split)}.txt").write_text("\n".join(map(str, range(PAIRS))))
    return root


def whole(rng, patches, valid, grid):
    return np.zeros(patches.shape[1], bool), np.zeros(len(patches), bool)


def encode(params, video):
    """Tokens of 2 frames and 16 pixels, as a linear map of each one's mean colour."""
    b, t, h, w, _ = video.shape
    x = jnp.asarray(video, jnp.float32).reshape(b, t // 2, 2, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    return x.mean((2, 4, 6)).reshape(b, -1, 3) / 255 @ params["kernel"]


def make_model(name, seed, predicts=True):
    params = {"kernel": jax.random.normal(jax.random.key(seed), (3, WIDTH))}

    def run(video):
        return np.asarray(encode(params, video))

    def hide(hidden):
        assert (hidden.removed.sum(1) <= 1).all() and hidden.context.any(1).all()
        tokens = run(hidden.video)
        return Seen(tokens, tokens + 1, tokens * 2) if predicts else Seen(tokens, None, None)

    return Model(name, run, hide, None, params, encode)


def make_bench(root, predicts=True, frames=4, stride=4, count=0, **options):
    def source(split, count):
        fields = dict(scenario="ballsCF", objects=4, video="cd", stride=stride) | options
        return Videos(split, str(root), SIZE, frames, count, **fields)

    def prepare(source):
        return pipeline.SceneMap(source, whole, PATCH, 2, SIZE, 9, "none", 0, frames, with_objects=True)

    models = [make_model(name, i, predicts) for i, name in enumerate((TRAINED, f"{RANDOM} 0", f"{RANDOM} 1"))]
    return Bench(models[0], tuple(models[1:]), source, prepare, "train", count, "test", count, 4, 0, 0.01)


def test_the_score_by_hand():
    """Two frames, two objects of which one is there: errors (1 + 4 + 9) / 3 and (0 + 0 + 3) / 3, over 1 x 2."""
    truth, guess = np.zeros((2, 2, 2, 3)), np.zeros((2, 2, 2, 3))
    guess[0, 0, 0], guess[0, 1, 0] = [1, 2, 3], [0, 0, np.sqrt(3)]
    guess[0, :, 1] = 100  # an object that is not there
    guess[1] = 2  # two objects, two frames, all off by 2: 4
    errors = cophy.mse(guess, truth, np.array([[True, False], [True, True]]))
    assert errors.tolist() == pytest.approx([(14 / 3 + 1) / 2, 4])
    assert cophy.mse(guess, guess, np.ones((2, 2), bool)).tolist() == [0, 0]
    assert cophy.mse(guess, truth, np.zeros((2, 2), bool)).tolist() == [0, 0]


def test_pairs_hold_the_task_and_only_the_first_frame_of_c(folder):
    pairs = cophy.load(make_bench(folder), "train", 5, "fit")
    raw = Videos("train", str(folder), SIZE, 4, stride=4, video="both")
    first, second = raw.pair(0), raw.pair(2)
    assert pairs["ab"].shape == (5, 4, SIZE, SIZE, 3) and pairs["c"].shape == (5, 1, SIZE, SIZE, 3)
    assert (pairs["ab"][0] == raw[0]["video"]).all() and (pairs["c"][0] == raw[1]["video"][:1]).all()
    assert pairs["truth"].shape == (5, 29, 9, 2)  # balls: x and y
    assert (pairs["truth"][1] == second["states_cd"][1:, :, :2]).all()
    assert (pairs["factual"][1] == second["states_ab"][1:, :, :2]).all()
    assert (pairs["start"][0] == first["states_cd"][0, :, :2]).all()
    assert pairs["present"].sum(1).tolist() == [3] * 5
    times = pairs["c_objects"].reshape(5, 9, 2, -1)
    assert (times[:, :, 0] == times[:, :, 1]).all() and times.any()  # D moves: masks of later frames would differ
    own = np.concatenate([first["states_ab"][:16:4, 2], first["states_cd"][:1, 2]]).ravel()
    assert (pairs["states"][0, 2, :65] == own).all() and pairs["states"].shape == (5, 9, 65 + 9 * 65 + 9)
    assert pairs["changed"].tolist() == [-1] * 5  # this CD begins as AB does


def test_the_changed_object(folder, monkeypatch):
    tower = cophy.load(make_bench(folder, scenario="blocktowerCF", objects=3, setting="normal"), "test", 4, "test")
    assert tower["changed"].tolist() == [2] * 4 and tower["truth"].shape == (4, 29, 4, 3)
    assert tower["present"].tolist() == [[True, True, False, False]] * 4
    model = make_model("model", 0)
    tokens = model.encode(tower["ab"])
    gone = tower["ab_objects"][:, 2]
    masked = np.stack([t[g].mean(0) + 1 for t, g in zip(tokens, gone, strict=True)])
    rest = np.stack([-t[~g].mean(0) for t, g in zip(tokens, gone, strict=True)])  # s_full - 2 s_full
    found = cophy.readouts(model, tower, 3)
    assert found.shape == (4, 4, 2 * WIDTH) and (found[:, 0] == found[:, 3]).all()
    np.testing.assert_allclose(found[:, 0], np.concatenate([masked, rest], -1), rtol=1e-5)
    assert cophy.readouts(make_model("mute", 0, predicts=False), tower, 4) is None
    own = Videos.pair

    def thrown(source, i):  # of two changed objects, the absent one counts, however far the other one is moved
        pair = own(source, i)
        pair["states_cd"][0, 0, :3] += 100
        return pair

    monkeypatch.setattr(Videos, "pair", thrown)
    bench = make_bench(folder, scenario="blocktowerCF", objects=3, setting="normal")
    assert cophy.load(bench, "test", 4, "test")["changed"].tolist() == [2] * 4


def test_what_the_head_is_given(folder):
    pairs = cophy.load(make_bench(folder), "train", 4, "fit")
    model = make_model("model", 0)
    x = cophy.features(model, pairs, 3)
    ab, c = model.encode(pairs["ab"]), model.encode(np.repeat(pairs["c"], 4, 1))
    where = pairs["c_objects"][1, 2]
    expected = [
        ab[1].mean(0),
        c[1].mean(0),
        ab[1][pairs["ab_objects"][1, 2]].mean(0),
        c[1][where].mean(0),
        np.eye(9)[2],
    ]
    np.testing.assert_allclose(x[1, 2], np.concatenate(expected), rtol=1e-4, atol=1e-6)
    assert (x[:, 5, 2 * WIDTH : 4 * WIDTH] == 0).all()  # an empty slot


@pytest.fixture(scope="module")
def result(folder):
    return cophy.CoPhy(hidden=8, steps=40, batch=4, stop=False).run(make_bench(folder))


@pytest.mark.slow
def test_every_metric_has_its_floors_and_its_ceiling(result, folder):
    pairs = cophy.load(make_bench(folder), "test", 0, "test")
    rows = {(score.metric, score.row): score for score in result.scores}
    metrics = ["mse/fine-tuned", "mse/frozen", "mse/interventional"]
    names = [TRAINED, RANDOM, "copy C", "copy B", "mean position", "true states"]
    assert sorted(rows) == sorted((metric, name) for metric in metrics for name in names)
    moves = pairs["truth"] - pairs["start"][:, None]
    by_hand = np.mean(np.square(moves[:, :, :3], dtype=np.float64))  # three balls in each pair
    assert rows["mse/frozen", "copy C"].value == pytest.approx(by_hand, rel=1e-5)
    fall = np.mean((0.02 * np.arange(1, 30)) ** 2) / 3 / 2  # one ball of three, in y alone, is 0.02 a frame from AB's
    assert rows["mse/frozen", "copy B"].value == pytest.approx(fall, rel=1e-4)
    spread = pairs["truth"][:, :, :3].var((0, 2)).mean()
    assert rows["mse/frozen", "mean position"].value == pytest.approx(spread, rel=1e-4)
    assert rows["mse/frozen", "true states"].value < rows["mse/frozen", "copy C"].value
    for metric in metrics:
        assert 0 < rows[metric, TRAINED].value < rows[metric, "mean position"].value
        assert rows[metric, TRAINED].count == PAIRS and rows[metric, RANDOM].of == "inits"
    curve = result.curves["mean squared error by frame"]["copy C"]
    assert curve[0].tolist() == list(range(1, 30)) and curve[1].mean() == pytest.approx(by_hand, rel=1e-5)
    assert "8 test pairs in which no object of AB was moved" in result.notes[0]


@pytest.mark.slow
def test_heads_alone_do_not_follow_the_models_rate(folder):
    """A rate at which what is fine-tuned would diverge leaves floors, ceilings and the frozen MLP alone."""
    protocol = cophy.CoPhy(finetune=False, interventional=False, hidden=4, steps=3, batch=4, stop=False)
    slow, fast = (protocol.run(dataclasses.replace(make_bench(folder), rate=rate)) for rate in (1e-4, 1e30))
    assert slow.scores == fast.scores and "(alone 0.002)" in slow.notes[0]


@pytest.mark.slow
def test_a_model_that_predicts_nothing_says_so(folder):
    protocol = cophy.CoPhy(finetune=False, hidden=8, steps=2, batch=4, stop=False)
    found = protocol.run(make_bench(folder, predicts=False))
    assert {score.metric for score in found.scores} == {"mse/frozen"}
    assert found.notes[1] == "no interventional readout: the model predicts nothing that is hidden"


def test_data_that_cannot_serve_it(folder, tmp_path):
    protocol, bench = cophy.CoPhy(), make_bench(folder)
    refused = [
        (dataclasses.replace(bench, source=lambda split, count: Balls(split)), ConfigError, "cophy needs pairs: data"),
        (make_bench(folder, frames=1), ConfigError, "cophy needs clips, not data.frames = 1"),
        (make_bench(folder, frames=2), ConfigError, "stride = 2 x 4 makes 3 of 30 frames"),
        (make_bench(folder, count=9), DataError, "evals.fit = 9: the split 'train' has 8 pairs"),
        (make_bench(folder, count=3), DataError, "has 3 readable pairs, at least 4 are needed"),
    ]
    for wrong, error, named in refused:
        with pytest.raises(error, match=named) as caught:
            protocol.run(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad, named",
    [
        (dict(hidden=0), "cophy.hidden = 0"),
        (dict(steps=0), "cophy.steps = 0"),
        (dict(share=2), "cophy.share = 2"),
        (dict(steps="x"), "cophy.steps = 'x'"),
    ],  # fmt: skip
)
def test_bad_options(bad, named):
    with pytest.raises(ConfigError, match=f"evals.protocols: {named}: must be"):
        cophy.CoPhy(**bad)


def test_an_unreadable_pair_is_left_out(folder):
    lost = folder / "blocktowerCF/3/1/gravity.txt"
    lost.unlink()
    tower = dict(scenario="blocktowerCF", objects=3, setting="normal")
    pairs = cophy.load(make_bench(folder, **tower), "train", 0, "fit")
    lost.symlink_to(folder / "blocktowerCF/3/0/gravity.txt")
    assert len(pairs["ab"]) == PAIRS - 1
