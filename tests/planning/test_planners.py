"""What all planners promise: they find a known minimum, alone or in a batch, and the batch changes nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.cem import CEM, ICEM
from cjepa_jax.planning.costs import absolute_error, squared_error, to_goal, unroll
from cjepa_jax.planning.gradient import Gradient
from cjepa_jax.planning.mppi import MPPI
from cjepa_jax.planning.solve import solve

PLANNERS = {
    "cem": CEM(samples=96, elites=12, iterations=10),
    "icem": ICEM(samples=64, iterations=12),
    "mppi": MPPI(samples=96, elites=12, iterations=12, temperature=0.05),
    "gradient": Gradient(samples=4, iterations=60),
}
EACH = pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS)
KEY, H = jax.random.key(0), 4


def step(place, action):
    return place + 0.5 * jnp.clip(action, -1, 1)


COST = to_goal(unroll(step), over="sum")
STARTS = jnp.array([[0.0, 0.0], [1.0, 0.5], [0.3, -0.4], [-1.0, 0.2], [0.1, 0.1]])
GOALS = STARTS + jnp.array([[0.5, 0.0], [0.4, -0.3], [-0.2, 0.2], [0.5, 0.5], [0.0, 0.0]])
MEANS = jnp.zeros((5, H, 2))


@functools.cache
def compiled(planner, batch):
    return jax.jit(lambda *arrays: solve(planner, COST, KEY, *arrays, batch=batch))


def plans(planner, rows, batch=0, starts=STARTS, goals=GOALS):
    rows = jnp.asarray(rows)
    return compiled(planner, batch)(rows, starts[rows], goals[rows], MEANS[rows])


@EACH
def test_it_reaches_the_goal_at_once(planner):
    """The sum over steps is 0 if the first action reaches the goal and the others are 0."""
    found = plans(planner, range(5)).actions
    costs = jax.vmap(COST)(STARTS, GOALS, found[:, None])[:, 0]
    assert (costs < 0.02).all(), costs
    still = jax.vmap(COST)(STARTS, GOALS, MEANS[:, None])[:, 0]
    assert (still[:4] > 0.1).all()


@EACH
def test_results_do_not_depend_on_the_batch(planner):
    """Five environments at once, and three of them, two at a time and the last alone, in another order."""
    rows, whole = [4, 2, 0], plans(planner, range(5))
    for ours, other in zip(plans(planner, rows, batch=2), whole, strict=True):
        np.testing.assert_allclose(ours, np.asarray(other)[rows], atol=1e-6)


@EACH
def test_environments_have_draws_of_their_own(planner):
    found = plans(planner, range(5), starts=0 * STARTS, goals=0 * GOALS + 0.3)
    assert len(np.unique(np.asarray(found.mean).reshape(5, -1).round(6), axis=0)) == 5


def test_costs_of_the_last_state_and_of_all():
    actions = jax.random.normal(KEY, (7, H, 2))
    places = STARTS[1] + 0.5 * jnp.cumsum(jnp.clip(actions, -1, 1), 1)
    np.testing.assert_allclose(unroll(step)(STARTS[1], actions), places, atol=1e-6)
    each = jnp.square(places - GOALS[1]).mean(-1)
    np.testing.assert_allclose(COST(STARTS[1], GOALS[1], actions), each.sum(1), rtol=1e-5)
    last = to_goal(unroll(step), absolute_error)
    np.testing.assert_allclose(
        last(STARTS[1], GOALS[1], actions), jnp.abs(places[:, -1] - GOALS[1]).mean(-1), rtol=1e-5
    )
    with pytest.raises(ConfigError, match="over 'mean': must be last or sum"):
        to_goal(unroll(step), over="mean")


def test_distances_are_means_over_the_latents_axes():
    predicted, goal = np.random.default_rng(0).normal(size=(2, 3, 4, 5)), np.zeros((4, 5))
    np.testing.assert_allclose(squared_error(predicted, goal), (predicted**2).mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(absolute_error(predicted, goal), np.abs(predicted).mean((2, 3)), rtol=1e-5)


def test_a_rollout_may_carry_more_than_is_compared():
    predict = unroll(lambda state, action: (state[0] + action, state[1] + 1), read=lambda state: state[0])
    assert predict((jnp.zeros(2), jnp.zeros(())), jnp.ones((3, H, 2))).shape == (3, H, 2)


def test_mppi_weighs_candidates_by_their_costs():
    candidates, costs = jnp.array([0.0, 1.0, 5.0]).reshape(3, 1, 1), jnp.array([0.0, 1.0, 3.0])
    weights = np.exp(-np.array([0.0, 1.0]) / 0.5)
    mean = weights[1] / weights.sum()
    found = MPPI(elites=2, samples=3, temperature=0.5, least_std=0.0).fit(jnp.ones((1, 1)), candidates, costs)
    np.testing.assert_allclose(jnp.ravel(jnp.stack(found)), [mean, (mean * (1 - mean)) ** 0.5], rtol=1e-5)
    every = MPPI(elites=0, samples=3, temperature=1e4, adapt=False).fit(jnp.full((1, 1), 7.0), candidates, costs)
    np.testing.assert_allclose(jnp.ravel(jnp.stack(every)), [2.0, 7.0], atol=1e-3)


@pytest.mark.parametrize("kind", [MPPI, Gradient, ICEM])
def test_bad_options_are_refused(kind):
    with pytest.raises(ConfigError, match="planner.iterations is 0: must be an integer of at least 1"):
        kind(iterations=0)
    for name, value in {"temperature": 0.0, "kept": 1.5, "rate": -1.0}.items():
        if name in {field.name for field in dataclasses.fields(kind)}:
            with pytest.raises(ConfigError, match=f"planner.{name} is {value}"):
                kind(**{name: value})
