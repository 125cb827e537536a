"""R^2 of states by group, against sums written out."""

import dataclasses

import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import ridge, states
from tests.evals import benches


def make(source=Balls, **options):
    return benches.bench(lambda split, count: source(split=split, size=32, count=count), 32, 4, 24, 16, **options)


@pytest.fixture(scope="module")
def bench():
    return make()


@pytest.fixture(scope="module")
def result(bench):
    return states.States().run(bench)


def test_labels_of_scenes_are_those_of_ridge(bench, result):
    pooled = [benches.patch_colours(part.arrays["video"]).mean(1) for part in (bench.fitting, bench.testing)]
    labels = [part.arrays["labels"] for part in (bench.fitting, bench.testing)]
    r2 = ridge.r2(pooled[0], labels[0], pooled[1], labels[1])
    names = [name.partition("/")[0] for name in Balls.label_names]
    for group in set(names):
        expected = np.mean([value for value, name in zip(r2, names, strict=True) if name == group])
        rows = benches.by_row(result, f"scene/{group}")
        assert rows["trained"] == pytest.approx(expected, rel=1e-5)
        assert rows.keys() == {"trained", "random init", "pixel PCA"}
        assert rows["random init"] <= 1e-9  # it sees nothing: at best the fitting set's mean


def test_objects_are_pooled_over_their_patches_at_the_middle(bench, result):
    tables = []
    for part in (bench.fitting, bench.testing):
        arrays, x, y = part.arrays, [], []
        for tokens, where, truth, present in zip(
            benches.patch_colours(arrays["video"]), arrays["object_patches"], arrays["states"], arrays["objects"],
            strict=True,
        ):  # fmt: skip
            for k in range(len(where)):
                if present[k] >= 0 and where[k, 16:].any():  # 2 tubelets of 16 patches. Frame 2 is of the second
                    x.append(tokens[16:][where[k, 16:]].mean(0))
                    y.append(truth[2, k])
        tables.append((np.array(x), np.array(y, float)))
    (x, y), (test_x, test_y) = tables
    r2 = ridge.r2(x, y, test_x, test_y)
    columns = [i for i, name in enumerate(Balls.state_names) if name.startswith("position/")]
    rows = benches.by_row(result, "object/position")
    assert rows["trained"] == pytest.approx(np.mean(r2[columns]), rel=1e-4)
    assert rows["place"] > 0.9 > rows["trained"] and rows["place and colour"] > 0.9
    score = next(s for s in result.scores if s.metric == "object/position" and s.row == "trained")
    assert score.count == len(test_y) and score.interval > 0
    assert not benches.by_row(result, "object/present")  # all are: nothing to explain


def test_intervals_are_over_scenes_not_over_their_rows():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 2))
    guess, mean, scene = truth + rng.normal(size=(200, 2)) * [0.5, 0], np.zeros(2), np.arange(200)
    once = states.explained(guess, truth, mean, scene, ["a", "b"], 0)
    assert once["a"][0] == pytest.approx(1 - np.square(guess - truth)[:, 0].sum() / np.square(truth[:, 0]).sum())
    assert once["b"] == pytest.approx((1, 0)) and 0.02 < once["a"][1] < 0.2
    twice = states.explained(*(np.repeat(a, 2, 0) for a in (guess, truth)), mean, np.repeat(scene, 2), ["a", "b"], 0)
    assert twice["a"] == pytest.approx(once["a"])
    both = states.explained(guess, truth, mean, scene, ["c", "c"], 0)
    assert both["c"][0] == pytest.approx((once["a"][0] + 1) / 2)
    assert states.explained(guess, np.ones_like(truth), mean, scene, ["a", "b"], 0) == {}


@dataclasses.dataclass(frozen=True)
class Bare(Balls):
    """Neither labels nor states."""

    label_names = ()

    def __getitem__(self, i):
        return {"video": super().__getitem__(i)["video"], "masks": np.zeros((0, 4, 32, 32), bool), "labels": []}


def test_without_objects_or_anything_at_all(bench):
    assert {s.metric.partition("/")[0] for s in states.States(objects=False).run(bench).scores} == {"scene"}
    with pytest.raises(ConfigError, match="^evals.protocols: States needs labels or states, which Bare has not$"):
        states.States().run(make(Bare))
    with pytest.raises(ConfigError, match="States.objects = 1: must be"):
        states.States(objects=1)
