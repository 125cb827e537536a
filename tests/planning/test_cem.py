"""CEM against published solvers, and iCEM's noise.

tests/golden/cem.npz: stable-worldmodel 0.1.1 (MIT), CEMSolver, 2 environments, 20 samples, 5 elites, 4 iterations.
tests/golden/cem_momenta.npz: V-JEPA 2-AC's CEM (facebookresearch/vjepa2, MIT) with its noise [iteration x step,
samples, axes], in a linear world: frame' = frame + action @ m. Both hold outputs only."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.cem import CEM, ICEM, coloured

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SMALL = CEM(samples=64, elites=8, iterations=6)
ZERO = jnp.zeros((3, 2))
TARGET = jnp.array([[0.5, -0.5], [0.2, 0.1], [-0.3, 0.4]])


@functools.cache
def golden(name):
    return dict(np.load(GOLDEN / name))


def distance(actions):
    return jnp.square(actions - TARGET).sum((1, 2))


def test_the_published_solver_to_1e_6():
    """Its noise follows from its candidates and from the distributions that NumPy fits to its elites."""
    data, planner = golden("cem.npz"), CEM(samples=20, elites=5, iterations=4)
    for target, candidates, costs, last, spread in zip(
        *(data[name] for name in ("target", "candidates", "costs", "mean", "std")), strict=True
    ):
        mean, std = jnp.zeros((3, 4)), jnp.ones((3, 4))
        centre, scale = np.zeros((3, 4)), np.ones((3, 4))
        for drawn, cost in zip(candidates, costs, strict=True):
            noise = jnp.asarray((drawn - centre) / scale, jnp.float32).at[0].set(9)  # the first candidate is the mean
            ours = planner.candidates(mean, std, noise)
            np.testing.assert_allclose(ours, drawn, atol=1e-6)
            own = jnp.square(ours - target).sum((1, 2))
            np.testing.assert_allclose(own, cost, rtol=1e-6, atol=1e-5)
            mean, std, elites = planner.fit(mean, std, ours, own)
            best = drawn[np.argsort(cost)[:5]].astype(float)
            np.testing.assert_allclose(elites, best, atol=1e-6)
            centre, scale = best.mean(0), best.std(0, ddof=1)
        np.testing.assert_allclose(mean, last, atol=1e-6)
        np.testing.assert_allclose(std, spread, atol=1e-6)


def test_momenta_limits_and_first_std_as_in_v_jepa_2_ac():
    data, box = golden("cem_momenta.npz"), (0.05, 0.05, 0.05, 0.75)
    planner = CEM(
        samples=16, elites=4, iterations=3, std=(0.05, 0.05, 0.05, 1.0), momentum=0.15, std_momentum=0.15,
        low=tuple(-limit for limit in box), high=box, keep_mean=False,
    )  # fmt: skip
    noise = data["noise"].reshape(3, 2, 16, 4).swapaxes(1, 2)

    def cost(actions):
        moves = jnp.concatenate([actions[..., :3], jnp.zeros((16, 2, 3)), actions[..., 3:]], -1)
        return jnp.abs(data["context"].ravel() + moves.sum(1) @ data["m"] - data["goal"].ravel()).mean(-1)

    mean, std = jnp.zeros((2, 4)), jnp.broadcast_to(jnp.array(planner.std), (2, 4))
    for drawn in noise:
        candidates = planner.candidates(mean, std, drawn)
        mean, std, _ = planner.fit(mean, std, candidates, cost(candidates))
    np.testing.assert_allclose(mean[:, :3], data["action"][0, :, :3], atol=1e-7)
    gripper = jnp.where(jnp.abs(mean[:, 3]) < 0.25, 0, mean[:, 3])  # the published code rounds small ones to 0
    np.testing.assert_allclose(gripper, data["action"][0, :, 6], atol=1e-7)


def test_a_plan_is_its_steps_with_the_keys_of_the_iterations():
    key, mean, std = jax.random.key(3), ZERO, jnp.ones_like(ZERO)
    plan = SMALL.plan(distance, key, ZERO)
    for step in range(6):
        candidates = SMALL.candidates(mean, std, SMALL.noise(jax.random.fold_in(key, step), (64, 3, 2)))
        assert (candidates[0] == mean).all()
        assert abs(plan.costs[step] - distance(candidates).min()) < 1e-5
        mean, std, _ = SMALL.fit(mean, std, candidates, distance(candidates))
    np.testing.assert_allclose(plan.actions, mean, atol=1e-5)
    np.testing.assert_allclose(plan.std, std, atol=1e-5)
    assert distance(plan.actions[None]) < 0.02 < distance(ZERO[None])


def test_the_best_candidate_has_the_lowest_cost_of_all_iterations():
    plan = CEM(samples=32, elites=32, iterations=5, answer="best").plan(distance, jax.random.key(0), ZERO)
    assert abs(distance(plan.actions[None])[0] - plan.costs.min()) < 1e-6 and plan.costs.min() < plan.costs[-1]


def test_candidates_with_a_cost_that_is_not_a_number_are_not_chosen():
    def broken(actions):
        return jnp.where(actions[:, 0, 0] > 0, jnp.nan, distance(actions))

    plan = SMALL.plan(broken, jax.random.key(0), ZERO)
    assert jnp.isfinite(plan.actions).all() and plan.actions[0, 0] <= 0 and jnp.isfinite(plan.costs).all()


@pytest.mark.parametrize("planner", [SMALL, ICEM()])
def test_limits_hold_per_axis(planner):
    limited = dataclasses.replace(planner, low=(-0.1, -1.0), high=(0.1, 0.05), keep_mean=False)
    plan = limited.plan(distance, jax.random.key(1), ZERO)
    assert (jnp.abs(plan.actions[:, 0]) <= 0.1 + 1e-6).all() and (plan.actions[:, 1] <= 0.05 + 1e-6).all()
    np.testing.assert_allclose(plan.actions, jnp.clip(TARGET, jnp.array([-0.1, -1]), jnp.array([0.1, 0.05])), atol=0.1)


@pytest.mark.parametrize(("steps", "colour"), [(8, 2.0), (7, 1.0), (1, 2.0)])
def test_coloured_noise_has_variance_1_and_its_spectrum(steps, colour):
    noise = np.asarray(coloured(jax.random.key(0), (4000, steps, 2), colour))
    assert noise.shape == (4000, steps, 2) and abs(noise.var(0).mean() - 1) < 0.05
    if steps >= 7:
        power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean((0, 2))[1:]
        power = power[: (steps - 1) // 2]
        expected = np.arange(1, len(power) + 1.0) ** -colour
        np.testing.assert_allclose(power / power[0], expected, rtol=0.1)


def test_icem_keeps_its_elites():
    """The lowest cost never rises, and the answer has it. Without kept elites the distribution is fitted again."""
    plan = ICEM(samples=8, elites=4, iterations=8).plan(distance, jax.random.key(0), ZERO)
    assert (np.diff(plan.costs) <= 0).all() and abs(distance(plan.actions[None])[0] - plan.costs[-1]) < 1e-6
    fresh = ICEM(samples=8, elites=4, iterations=8, kept=0.0).plan(distance, jax.random.key(0), ZERO)
    assert (plan.mean != fresh.mean).any() and (np.diff(fresh.costs) <= 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"samples": 1}, "samples is 1: must be an integer of at least 2"), ({"elites": 301}, "elites is 301"),
     ({"iterations": 2.5}, "iterations is 2.5"), ({"momentum": -0.1}, "momentum is -0.1"),
     ({"answer": "all"}, "answer")],
)  # fmt: skip
def test_bad_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=f"planner.{words}"):
        CEM(**options)
