"""Effective ranks against closed forms: collapsed, isotropic and in between."""

import dataclasses

import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import collapse
from cjepa_jax.evals.base import Model, Scenes
from tests.evals import benches

RNG = np.random.default_rng(0)
ROTATION = np.linalg.qr(RNG.normal(size=(6, 6)))[0]


def crosses(sizes):
    """Points at +-size on every axis: [2 D, D], mean 0, covariance diag(size^2) / D."""
    return np.concatenate([np.diag(sizes), -np.diag(sizes)])


def in_views(between, within):
    """Scenes at the crosses of `between`, the views of each at those of `within` around it: [2 D, 2 D, D]."""
    return crosses(between)[:, None] + crosses(within)


def entropy_rank(values):
    shares = np.asarray(values, float) / np.sum(values)
    return np.exp(-np.sum(shares * np.log(shares)))


def test_rankme_of_known_spectra():
    assert collapse.rankme(np.tile(RNG.normal(size=6), (9, 1))) == pytest.approx(1)  # collapsed
    assert collapse.rankme(crosses(np.ones(6))) == pytest.approx(6)  # isotropic
    assert collapse.rankme(crosses(np.arange(1, 7))) == pytest.approx(entropy_rank(range(1, 7)))  # not their squares
    assert collapse.rankme(np.zeros((9, 6))) == 1
    x = RNG.normal(size=(50, 6)) @ np.diag([9, 5, 3, 1, 0.5, 0.1]) + 4
    known = entropy_rank(np.sqrt(np.linalg.eigvalsh(x.T @ x)))
    for same in (x, -7 * x, x @ ROTATION, x[::-1]):
        assert collapse.rankme(same) == pytest.approx(known)
    assert collapse.rankme(x + 1000) < 1.1  # a common mean is one more direction


def test_lidar_of_known_covariances():
    ones, sizes = np.ones(6), np.arange(1.0, 7)
    assert collapse.lidar(in_views(ones, ones)) == pytest.approx(6)
    assert collapse.lidar(in_views(sizes, ones)) == pytest.approx(entropy_rank(sizes**2), rel=1e-3)
    assert collapse.lidar(in_views(sizes, sizes)) == pytest.approx(6, rel=1e-3)  # what counts is the ratio
    assert collapse.lidar(in_views(ones, sizes)) == pytest.approx(entropy_rank(sizes**-2), rel=1e-3)
    assert collapse.lidar(in_views([5, 0, 0, 0, 0, 0], ones)) == pytest.approx(1)


def test_lidar_of_collapsed_features_is_1():
    assert collapse.lidar(np.full((9, 4, 6), 0.3)) == 1
    assert collapse.lidar(np.tile(RNG.normal(size=(4, 6)), (9, 1, 1))) == 1  # scenes alike, only the views differ
    line = RNG.normal(size=(9, 1, 1)) * RNG.normal(size=6) + 1e-3 * RNG.normal(size=(9, 4, 1)) * np.ones(6)
    assert collapse.lidar(line) < 1.5


def test_lidar_does_not_follow_scale_rotation_offset_or_order():
    x = RNG.normal(size=(40, 1, 6)) @ np.diag([4, 3, 2, 1, 1, 0.2]) + RNG.normal(size=(40, 5, 6))
    known = collapse.lidar(x)
    assert 1.5 < known < 6
    for same in (100 * x, x / 100, x @ ROTATION, x + 7, x[::-1], x[:, ::-1]):
        assert collapse.lidar(same) == pytest.approx(known, rel=1e-6)


def test_a_blind_encoder_has_collapsed_and_one_that_sees_colours_has_not():
    bench = benches.bench(lambda split, count: Balls(split=split, size=32, count=count), 32, 4, test=16)
    protocol = collapse.Collapse(scenes=12, views=3)
    result = protocol.run(bench)
    for metric in ("rankme", "rankme/centred", "lidar"):
        rows = benches.by_row(result, metric)
        assert rows["random init"] == pytest.approx(1) and 1.2 < rows["trained"] <= rows["full rank"] == 3, metric
    assert benches.by_row(result, "feature std")["random init"] == 0
    assert {score.count for score in result.scores} == {12}
    assert protocol.run(bench).scores == result.scores
    video = bench.testing.arrays["video"]
    one, two = protocol.view(video, 7, 0), protocol.view(video, 7, 1)
    assert one.shape == video.shape and (one != two).any((1, 2, 3, 4)).all()
    np.testing.assert_array_equal(collapse.Collapse(crop=(1, 1), brightness=(1, 1)).view(video, 7, 0), video)


def test_a_common_mean_lowers_the_rank_only_where_it_is_not_subtracted():
    near = benches.colours()
    far = dataclasses.replace(near, encode=lambda video: near.encode(video) + np.float32(1000))
    plain, shifted = (
        collapse.Collapse(scenes=12, views=2).run(
            benches.bench(lambda split, count: Balls(split=split, size=32, count=count), 32, 4, test=16, model=model)
        )
        for model in (near, far)
    )
    ranks = {name: benches.by_row(shifted, name)["trained"] for name in ("rankme", "rankme/centred")}
    assert ranks["rankme"] < 1.01 < 1.2 < ranks["rankme/centred"]
    assert ranks["rankme/centred"] == pytest.approx(benches.by_row(plain, "rankme/centred")["trained"], rel=1e-2)


def test_points_have_ranks_and_no_views():
    class Points:
        kind = "points"

    values = RNG.normal(size=(20, 1, 4, 2, 3)).astype(np.float32)
    tokens = Model("trained", lambda video: video[:, 0, :, 0], None)
    made = benches.bench(None, 32, 4, test=20, model=tokens)
    made = dataclasses.replace(made, randoms=())
    made.__dict__["testing"] = Scenes(Points(), None, {"video": values})
    result = collapse.Collapse(scenes=20, views=0).run(made)
    assert {score.metric for score in result.scores} == {"rankme", "rankme/centred", "feature std"}
    known = collapse.rankme(values[:, 0, :, 0].mean(1))
    assert benches.by_row(result, "rankme")["trained"] == pytest.approx(known, rel=1e-5)
    assert not any("LiDAR" in note for note in result.notes)
    with pytest.raises(
        ConfigError, match=r"^data.source: Points gives .*Collapse.views = 4 \(0: no LiDAR\) takes video"
    ):
        collapse.Collapse(scenes=20, views=4).run(made)


@pytest.mark.parametrize("test", [0, 100])
def test_of_a_split_with_fewer_scenes_all_are_taken(test):
    """Stored data refuse to give more than they have."""

    def source(split, count):
        if count > 5:
            raise DataError(f"{count} scenes are asked for, the split has 5")
        return Balls(split=split, size=32, count=count or 5)

    bench = benches.bench(source, 32, 4, test=test)
    result = collapse.Collapse(scenes=12, views=2).run(bench)
    assert {score.count for score in result.scores} == {5}


@pytest.mark.parametrize("wrong", [{"scenes": 3}, {"views": 1}, {"views": -1}, {"crop": (0, 1)}, {"crop": (0.9, 0.8)},
                                   {"brightness": (1, 20)}, {"scenes": "x"}, {"views": 2.0}, {"crop": "x"},
                                   {"crop": 0.5}, {"brightness": (1, 1, 1)}, {"crop": ("x", 1)}])  # fmt: skip
def test_options_out_of_their_limits_are_named(wrong):
    with pytest.raises(ConfigError, match=rf"^evals.protocols: Collapse.{next(iter(wrong))} = .*must"):
        collapse.Collapse(**wrong)
