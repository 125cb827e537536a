"""Subspaces of a planted world: what is used is told apart from what is only readable, and from chance."""

import numpy as np
import pytest
from scipy import special

from cjepa_jax.evals import ridge, subspaces
from tests.evals import planted

DRAWS = 12


class Case:
    """A planted world of 400 clips, half of them fitted, and the effects of its subspaces on the other half."""

    def __init__(self, seed, shuffled=False):
        self.world = world = planted.draw(400, seed)
        self.rng = np.random.default_rng(seed + 100)
        self.y = self.rng.permutation(world.y) if shuffled else world.y
        self.fit, self.test = slice(200), slice(200, None)
        self.pooled, features = world.tokens.mean(1), world.features(world.tokens)
        self.x, self.of = self.pooled[self.fit], self.y[self.fit]
        self.head = subspaces.readout(features[self.fit], self.of, planted.CLASSES)
        self.clean = self.head.log_p(features[self.test], self.y[self.test])
        self.accuracy = (self.head.logits(features[self.test]).argmax(1) == self.y[self.test]).mean()
        self.slopes = world.slopes(world.tokens[self.fit], self.head.pull(features[self.fit], self.of))

    def effect(self, u):
        tokens = subspaces.interchange(self.world.tokens[self.test], self.x.mean(0), u)
        return self.clean - self.head.log_p(self.world.features(tokens), self.y[self.test])

    def controls(self, u):
        """Effects of the four controls of a subspace of means, [draws, n] each."""
        rank, rng, covariance = u.shape[1], self.rng, np.cov(self.x.T)
        share, bins = subspaces.share_of_variance(u, covariance), subspaces.bins(self.world.nuisance[self.fit], 8)
        rows = rng.integers(0, 200, (DRAWS, 200))
        drawn = {
            "random": [subspaces.random_basis(rng, planted.WIDTH, rank) for _ in rows],
            "variance": [subspaces.matched_basis(rng, covariance, rank, share) for _ in rows],
            "shuffled": [subspaces.means(self.x, rng.permutation(self.of), rank) for _ in rows],
            "nuisance": [subspaces.means(self.x[row], bins[row], rank) for row in rows],
        }
        assert np.allclose([subspaces.share_of_variance(u, covariance) for u in drawn["variance"]], share, rtol=0.01)
        return {name: np.stack([self.effect(u) for u in draws]) for name, draws in drawn.items()}


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_used_is_told_apart_from_what_is_only_readable_and_from_four_controls(seed):
    case = Case(seed)
    world, u = case.world, subspaces.means(case.x, case.of, 7)
    assert u.shape == (96, 7) and case.accuracy > 0.9
    assert np.abs(case.effect(world.copy)).max() < 1e-6  # nothing reads it
    assert case.effect(world.used).mean() > 1
    assert abs(subspaces.sas(u, world.used) - subspaces.sas(u, world.copy)) < 0.05  # means cannot tell
    g = subspaces.gradient(case.slopes, 7)
    assert subspaces.sas(g, world.used) > 0.95 and subspaces.sas(g, world.copy) < 0.05
    controls = case.controls(u)
    found = subspaces.ratio(case.effect(u), controls, case.rng)
    assert found.ratio_low > 2 and found.difference_low > 0
    to_random = subspaces.ratio(case.effect(u), {"random": controls["random"]}, case.rng)
    assert to_random.ratio > 5 * found.ratio  # the weakest control
    retained = subspaces.rce(case.effect(u), case.effect(u), controls, case.rng)
    assert retained == pytest.approx((1, 1, 1))
    unused, low, high = subspaces.rce(case.effect(u), case.effect(world.copy), controls, case.rng)
    assert low < unused < high < 0  # less than a control


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffled_labels_find_nothing(seed):
    case = Case(seed, shuffled=True)
    u = subspaces.means(case.x, case.of, 7)
    controls, effect = case.controls(u), case.effect(u)
    found = subspaces.ratio(effect, controls, case.rng)
    assert found.effect < 0.05 or found.ratio_low <= 1 <= found.ratio_high
    assert subspaces.rce(effect, effect, controls, case.rng) is None  # not defined


def test_alignment_of_known_subspaces_and_of_chance():
    axes = np.eye(40)
    assert subspaces.sas(axes[:, :5], axes[:, :5]) == 1 and subspaces.sas(axes[:, :5], axes[:, 5:8]) == 0
    assert subspaces.sas(axes[:, :5], axes[:, 3:12]) == pytest.approx(2 / 5)
    tilted = axes[:, :1] * np.cos(0.4) + axes[:, 1:2] * np.sin(0.4)
    assert subspaces.angles(axes[:, :1], tilted) == pytest.approx(np.degrees(0.4))
    assert subspaces.sas(axes[:, :1], tilted) == pytest.approx(np.cos(0.4) ** 2)
    rng = np.random.default_rng(0)
    drawn = [subspaces.sas(subspaces.random_basis(rng, 40, 3), subspaces.random_basis(rng, 40, 8)) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(subspaces.sas_chance(axes[:, :3], axes[:, :8]), abs=0.01)


def test_interventions_change_their_subspace_only():
    rng = np.random.default_rng(0)
    x, other, centre = rng.normal(size=(2, 3, 4, 10))[0], rng.normal(size=(3, 4, 10)), rng.normal(size=10)
    u, rest = np.split(np.linalg.qr(rng.normal(size=(10, 10)))[0], [3], axis=1)
    for new, inside in (
        (subspaces.interchange(x, centre, u), np.broadcast_to(centre @ u, (3, 4, 3))),
        (subspaces.interchange(x, other, u), other @ u),
        (subspaces.interchange(x, x + centre, u), (x + centre) @ u),
    ):
        np.testing.assert_allclose(new @ u, inside, atol=1e-12)
        np.testing.assert_allclose(new @ rest, x @ rest, atol=1e-12)


def test_the_readout_is_the_minimum_and_its_gradient_that_of_differences():
    case = Case(0)
    x = np.random.default_rng(0).normal(size=(5, 24))
    y, along = np.arange(5), np.random.default_rng(1).normal(size=24)
    numbers = (case.head.log_p(x + 1e-5 * along, y) - case.head.log_p(x - 1e-5 * along, y)) / 2e-5
    np.testing.assert_allclose(case.head.pull(x, y) @ along, numbers, rtol=1e-5)
    features = case.world.features(case.world.tokens)
    shift, up = 1e-4 * case.slopes[0], features[:1]
    moved = case.world.features(case.world.tokens[:1] + shift)
    rise = case.head.log_p(moved, case.of[:1]) - case.head.log_p(up, case.of[:1])
    assert rise[0] == pytest.approx(1e-4 * (case.slopes[0] ** 2).sum(), rel=1e-2)


def test_the_sparse_probe_fulfils_the_conditions_of_its_optimum():
    case = Case(1)
    w = subspaces.sparse_probe(case.x, case.of)
    centre, scale = ridge.moments(case.x)
    z, wanted = (case.x - centre) / scale, np.eye(8)[case.of]
    slope = z.T @ (special.softmax(z @ w + np.log(wanted.mean(0)), -1) - wanted) / len(z)
    off = w == 0
    assert 0.1 < off.mean() < 0.9
    assert np.abs(slope[off]).max() < subspaces.L1 * 1.02
    np.testing.assert_allclose(slope[~off], -subspaces.L1 * np.sign(w[~off]), atol=2e-3)
    assert subspaces.l1(case.x, case.of, 7).shape == (96, 7)
    assert subspaces.class_pca(case.x, case.of, 7).shape == (96, 14)


def test_canonical_correlations_of_noise_and_of_a_shared_signal():
    rng = np.random.default_rng(0)
    one, other, shared = rng.normal(size=(400, 96)), rng.normal(size=(400, 300)), rng.normal(size=(400, 7))
    noise = subspaces.cca(one, other, 200, rng)
    assert abs(noise.held_out) < 0.1 and abs(noise.permuted) < 0.1 and noise.fitted > 0.3 and noise.kept == (20, 20)
    one[:, :7], other[:, :7] = 5 * shared, 5 * shared @ np.linalg.qr(rng.normal(size=(7, 7)))[0]
    found = subspaces.cca(one, other, 200, rng)
    assert found.held_out > 0.9 > 0.1 > abs(found.permuted)


def test_intervals_are_those_of_known_means():
    """Effects of 100 clips with mean 3 and deviation 1 against controls of mean 1: the error of the mean is 0.1."""
    clips = np.random.default_rng(0).normal(size=100)
    clips = (clips - clips.mean()) / clips.std()
    controls = {"a": np.full((12, 100), 1.0), "b": np.full((12, 100), 0.5)}
    found = subspaces.ratio(3 + clips, controls, np.random.default_rng(1))
    assert (found.worst, found.ratio, found.control) == ("a", pytest.approx(3), 1)
    assert found.low == pytest.approx(3 - 0.196, abs=0.02) and found.high == pytest.approx(3 + 0.196, abs=0.02)
    assert found.ratio_low == pytest.approx(found.low, abs=1e-3)
    assert found.difference_high == pytest.approx(found.high - 1, abs=1e-3)
    spread = {"a": 1 + np.repeat(np.arange(-5.5, 6), 100).reshape(12, 100) / 10}  # draws that differ, too
    wider = subspaces.ratio(3 + clips, spread, np.random.default_rng(1))
    assert wider.ratio_high - wider.ratio_low > 1.5 * (found.ratio_high - found.ratio_low)
    nothing = subspaces.ratio(3 + clips, {"a": np.zeros((12, 100))}, np.random.default_rng(1))
    assert nothing.ratio == nothing.ratio_low == np.inf
    assert subspaces.ratio(0 * clips, {"a": np.zeros((12, 100))}, np.random.default_rng(1)).ratio == 0


def test_a_ratio_of_rounding_errors_is_no_ratio():
    def found(effect, control):
        return subspaces.ratio(np.full(50, effect), {"a": np.full((12, 50), control)}, np.random.default_rng(1))

    assert found(1e-8, 1e-9)[5:8] == found(-1e-8, -1e-9)[5:8] == found(1e-8, 0)[5:8] == (0, 0, 0)
    assert found(1.0, 1e-9)[5:8] == (np.inf,) * 3
    assert found(-1.0, 1e-9)[5:8] == (0, 0, 0) and found(-1.0, 0.5).ratio == pytest.approx(-2)


def test_the_bootstrap_keeps_every_class():
    y, rng = np.array([0] * 30 + [1] + [2] * 3), np.random.default_rng(0)
    drawn = np.stack([subspaces.bootstrap(rng, y) for _ in range(300)])
    assert (np.sort(y[drawn], 1) == y).all()
    assert len(np.unique(drawn)) == len(y) and len(np.unique(drawn[:, :30], axis=0)) == 300
    assert drawn[:, 31:].mean() == pytest.approx(32, abs=0.15)


def test_bins_are_classes_of_equal_frequency():
    values = np.random.default_rng(0).exponential(size=400)
    assert np.bincount(subspaces.bins(values, 8)).tolist() == [50] * 8
    assert subspaces.bins([3.0, 7, 3, 9], 8).tolist() == [0, 1, 0, 2]
