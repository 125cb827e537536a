"""Nudge: pushes, collisions, and do(remove) with the same actions."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import promises
from cjepa_jax.data.worlds.acting import Nudge
from cjepa_jax.data.worlds.acting.nudge import COLUMNS, FASTEST, MASS, PUSH, VELOCITY
from cjepa_jax.errors import ConfigError

WORLD = Nudge(size=32, frames=12)


def test_nudge():
    promises.check(Nudge)


def test_a_push_changes_the_agents_velocity_alone():
    first = WORLD.setup(0).first
    still, pushed = (WORLD.advance(first, np.array(action)).reshape(3, COLUMNS) for action in ([0, 0], [0.5, -1]))
    assert np.array_equal(still.ravel(), first)
    np.testing.assert_allclose(pushed[0, VELOCITY], [0.5 * PUSH, -PUSH])
    assert np.array_equal(pushed[1:], still[1:])
    assert np.array_equal(WORLD.advance(first, np.array([0.5, -7])), pushed.ravel())


def test_speed_is_limited_and_discs_stay_between_the_walls():
    state = WORLD.setup(1).first
    for _ in range(60):
        state = WORLD.advance(state, np.ones(2))
        rows = state.reshape(3, COLUMNS)
        assert np.linalg.norm(rows[0, VELOCITY]) <= FASTEST + 1e-9
        assert (rows[:, :2] > 0.05).all() and (rows[:, :2] < 0.95).all()


def test_a_collision_keeps_the_momentum():
    """Two discs, one at rest, far from walls."""
    world, hit = Nudge(balls=2, size=32), False
    state = world.first(np.random.default_rng(0)).reshape(2, COLUMNS)
    state[:, :2], state[0, VELOCITY] = [[0.3, 0.5], [0.55, 0.52]], [1.5, 0]
    for _ in range(2):
        new = world.advance(state.ravel(), np.zeros(2)).reshape(2, COLUMNS)
        before, after = ((rows[:, MASS, None] * rows[:, VELOCITY]).sum(0) for rows in (state, new))
        np.testing.assert_allclose(before, after, atol=1e-6)
        hit, state = hit or new[1, 3] > 0.1, new
    assert hit


def test_aiming_moves_object_1_and_doing_nothing_does_not():
    tasks = [WORLD.task(i) for i in range(10)]
    assert not any(WORLD.reached(task.start, task.goal) for task in tasks)
    assert all(np.linalg.norm((task.goal - task.start)[COLUMNS : COLUMNS + 2]) > 0.1 for task in tasks)


def test_without_the_agent_nothing_moves_and_without_another_the_rest_is_simulated():
    changed = 0
    for i in range(6):
        scene = WORLD[i]
        alone = WORLD.rollout(i, np.array([True, False, False]))
        assert (alone["states"] == alone["states"][0]).all() and np.array_equal(alone["actions"], scene["actions"])
        other = WORLD.rollout(i, np.array([False, True, False]))
        changed += not np.array_equal(other["states"][:, 0], scene["states"][:, 0])
    assert changed


@pytest.mark.parametrize(
    "options",
    [{"balls": 1}, {"balls": 9}, {"size_range": (0.01, 0.1)}, {"dt": 0.6}, {"dt": 0.5, "size_range": (0.03, 0.03)}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=f"data.options.{next(iter(options))} is"):
        Nudge(**options)
