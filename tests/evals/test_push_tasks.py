"""The published tasks of Push-T: recorded frames of training's episodes, and one physics step at the start."""

import dataclasses

import numpy as np
import pytest

from cjepa_jax.data.worlds.acting import Push, Rooms
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import push_tasks
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.mpc import MPC

WORLD = Push(frames=4, count=5, seed=3, size=32)


def test_tasks_are_frames_of_training_episodes_and_their_goals_24_frames_later():
    tasks = push_tasks.drawn(dataclasses.replace(WORLD, split="test"), 7, 12, 24)
    found, places = 0, set()
    for i in range(5):
        world = dataclasses.replace(WORLD, frames=50)
        states, _ = world.trajectory(world.setup(i))
        short, _ = WORLD.trajectory(WORLD.setup(i))
        np.testing.assert_array_equal(states[:4], short)  # the episode that was trained on, continued
        for start, goal in zip(tasks.starts, tasks.goals, strict=True):
            for at in range(26):
                if (states[at + 24] == goal).all():
                    found, places = found + 1, places | {(i, at)}
                    np.testing.assert_allclose(start[:2], states[at, :2] + 0.01 * states[at, 5:], atol=1e-9)
                    np.testing.assert_array_equal(start[5:], states[at, 5:])
    assert found == len(places) == len(tasks.number) == 12
    again, other = push_tasks.drawn(WORLD, 7, 12, 24), push_tasks.drawn(WORLD, 8, 12, 24)
    np.testing.assert_array_equal(again.goals, tasks.goals)
    assert (other.goals != tasks.goals).any()
    later = push_tasks.drawn(WORLD, 7, 12, ahead=25)
    assert later.goals.shape == (12, 7)
    message = "^--episodes=131: must be at most 130, the pairs of frames of 5 training episodes$"
    with pytest.raises(ConfigError, match=message):
        push_tasks.drawn(WORLD, 7, 131, 24)
    assert len(np.unique(push_tasks.drawn(WORLD, 7, 130, 24).goals, axis=0)) == 130


def test_a_start_that_rests_is_loaded_unchanged():
    state = np.array([100.0, 120, 300, 300, 1.0, 0, 0])
    np.testing.assert_allclose(push_tasks.loaded(state), state, atol=1e-9)


def test_candidates_spread_as_recorded_actions_and_other_worlds_are_refused():
    mpc = push_tasks.scaled(MPC(CEM(), horizon=5), WORLD)
    whole = dataclasses.replace(WORLD, frames=50)
    actions = np.concatenate([whole.trajectory(whole.setup(i))[1] for i in range(5)])
    np.testing.assert_allclose(mpc.planner.std, actions.std(0, ddof=1), rtol=1e-12)
    half = push_tasks.scaled(MPC(CEM(std=0.5), horizon=5), WORLD)
    np.testing.assert_allclose(half.planner.std, 0.5 * actions.std(0, ddof=1), rtol=1e-12)
    assert mpc.horizon == 5 and len(mpc.planner.std) == 2
    blocks = push_tasks.scaled(MPC(CEM(), horizon=5, block=3), WORLD)
    np.testing.assert_allclose(blocks.planner.std, np.tile(actions.std(0, ddof=1), 3), rtol=1e-12)
    with pytest.raises(ConfigError, match="^--protocol=published: is for Push, not Rooms$"):
        push_tasks.scaled(MPC(CEM(), horizon=5), Rooms(size=32))
