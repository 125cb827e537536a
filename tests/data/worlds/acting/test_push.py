"""Push against the published Push-T environment: tests/golden/push.npz, outputs of stable-worldmodel 0.1.1 (MIT) with
pymunk 7.3.1. Three open-loop episodes of 60 steps, and 200 pairs of states with their success flags."""

import functools
import pathlib
import time

import numpy as np
import pytest

from cjepa_jax.data.worlds import promises
from cjepa_jax.data.worlds.acting import Push, push_expert
from cjepa_jax.data.worlds.acting.push import AGENT, STRIDE, Table, clearance
from cjepa_jax.errors import DataError

PUSH = Push(size=64, frames=26)


@functools.cache
def golden():
    return dict(np.load(pathlib.Path(__file__).parents[3] / "golden/push.npz"))


def test_push():
    promises.check(Push)


@pytest.mark.parametrize("episode", range(3))
def test_open_loop_equals_the_published_environment(episode):
    expected = golden()["states"][episode]
    states = PUSH.open_loop(expected[0].astype(float), golden()["actions"][episode])
    assert np.abs(states - expected)[:31].max() < 2e-4 and np.abs(states - expected).max() < 2e-3
    assert np.linalg.norm(expected[-1, 2:4] - expected[0, 2:4]) > 20  # it did push the block


@pytest.mark.needs("gym_pusht")
def test_gym_pusht_is_the_same_simulation():
    """Equal to the bit, and so is the success that Push's rule sees in it. gym-pusht needs pymunk below 7."""
    import gymnasium

    env = gymnasium.make("gym_pusht:gym_pusht/PushT-v0").unwrapped
    for states, actions in zip(golden()["states"].astype(float), golden()["actions"], strict=True):
        env._setup()  # a reset would simulate a step
        env.agent.position, env.agent.velocity = states[0, :2].tolist(), states[0, 5:].tolist()
        env.block.angle = float(states[0, 4])
        env.block.position, trace = states[0, 2:4].tolist(), [states[0]]
        for action in actions:
            env.step(np.array(env.agent.position) + STRIDE * np.clip(action.astype(float), -1, 1))
            body = (*env.agent.position, *env.block.position, env.block.angle % (2 * np.pi))
            trace.append(np.array([*body, *env.agent.velocity]))
        push = PUSH.open_loop(states[0], actions)
        np.testing.assert_array_equal(np.stack(trace), push)
        for found in (push, states):
            np.testing.assert_array_equal(PUSH.reached(np.stack(trace), states[30]), PUSH.reached(found, states[30]))


def test_a_simulation_that_starts_anew_differs_by_the_solvers_memory_alone():
    """Chipmunk starts from a pair's last impulses, which no state holds. Without a touching pair it is exact."""
    states, actions = golden()["states"].astype(float), golden()["actions"].astype(float)
    error = np.abs(PUSH.advance(states[:, :-1], actions) - states[:, 1:]).max(-1)
    assert np.median(error) < 1e-4 and np.quantile(error, 0.9) < 0.5 and error.max() < 8


def test_all_published_success_flags():
    flags = PUSH.reached(golden()["reached"], golden()["goal"])
    assert np.array_equal(flags, golden()["success"]) and 0 < flags.sum() < 200


def test_angles_are_compared_around_the_circle():
    goal = np.array([100.0, 100, 200, 200, 0.1, 0, 0])
    for turn, reached in ((-0.3, True), (0.3, True), (0.4, False), (2 * np.pi - 0.4, False), (2 * np.pi, True)):
        assert PUSH.reached(goal + [0, 0, 0, 0, turn, 0, 0], goal) == reached


def test_the_agent_is_moved_by_the_action_and_actions_are_clipped():
    state = np.array([100.0, 100, 300, 300, 0, 0, 0])
    one, more = (PUSH.advance(state, np.array([scale, 0])) for scale in (1.0, 5.0))
    assert np.array_equal(one, more) and 25 < one[0] - 100 < STRIDE and np.array_equal(one[2:5], state[2:5])


def test_starts_have_no_overlap():
    """Nothing moves if the agent rests where it starts."""
    for i in range(50):
        first = PUSH.setup(i).first
        assert clearance(first[:2] - first[2:4], first[4]) > AGENT
        assert np.allclose(Table(first).step(np.zeros(2)), first, atol=1e-9)


def test_the_weak_policy_pushes_and_doing_nothing_is_no_solution():
    moved, still = [], []
    for i in range(60):
        task = PUSH.task(i)
        moved.append(np.linalg.norm((task.goal - task.start)[2:4]) > 20)
        still.append(PUSH.reached(task.start, task.goal))
    assert np.mean(moved) > 0.4 and np.mean(still) < 0.2
    assert np.array_equal(PUSH.task(3).goal, Push(split="train", frames=2).task(3).goal)
    with pytest.raises(DataError, match="'any'; Push has episode"):
        PUSH.task(0, "any")


def test_held_actions_are_held():
    world = Push(policy="held", frames=12)
    actions = world[0]["actions"]
    assert (actions[:5] == actions[0]).all() and (actions[5:10] == actions[5]).all()
    assert (actions[4] != actions[5]).any() and len(
        np.unique(Push(policy="weak", frames=12)[0]["actions"], axis=0)
    ) == 12


def test_the_expert_pushes_the_block_to_its_goal():
    """It reaches most goals that the weak policy reaches in 25 frames, and a start that is the goal is left alone."""
    tasks = [Push(split="eval").task(i) for i in range(15)]
    starts, goals = (np.stack(states) for states in zip(*tasks, strict=True))
    step, states, reached = PUSH.stepper(starts), starts, np.zeros(15, bool)
    for _ in range(60):
        states = step(PUSH.expert(states, goals))
        reached |= PUSH.reached(states, goals)
    assert reached.mean() > 0.7
    assert np.allclose(PUSH.expert(starts, starts), 0)


def test_the_expert_knows_the_shape_and_the_mass_of_the_block():
    assert np.isclose(push_expert.TURN**2, Table(np.zeros(7)).block.moment / Table(np.zeros(7)).block.mass)
    assert np.allclose(push_expert.CENTRE, Table(np.zeros(7)).block.center_of_gravity)
    for point, normal in zip(push_expert.POINTS, push_expert.NORMALS, strict=True):
        place = point + push_expert.CENTRE
        assert clearance(place + 0.01 * normal, 0.0) == 0 < clearance(place - 0.01 * normal, 0.0) < 0.011


def test_without_the_block_the_agent_moves_the_same():
    for i in range(5):
        scene, without = PUSH[i], PUSH.rollout(i, np.array([False, True]))
        assert np.array_equal(scene["states"][:, 0], without["states"][:, 0])
        assert np.array_equal(scene["actions"], without["actions"])
        alone = PUSH.rollout(i, np.array([True, False]))["states"][:, 1]
        assert (alone == alone[0]).all()


def test_the_drawn_block_is_the_simulated_one():
    """The amodal mask's area and centroid are those of the two boxes."""
    world = Push(size=224, frames=1, target=False)
    for i in range(10):
        scene, state = world[i], world.setup(i).first
        y, x = np.nonzero(scene["amodal"][1, 0])
        down = (120 * 30 * 15 + 30 * 90 * 75) / (120 * 30 + 30 * 90)  # the T's centroid, below its bar's edge
        centre = state[2:4] + down * np.array([-np.sin(state[4]), np.cos(state[4])])
        assert np.allclose(np.array([x.mean(), y.mean()]) + 0.5, centre * 224 / 512, atol=0.7)
        assert abs(len(x) / (6300 * (224 / 512) ** 2) - 1) < 0.12


@pytest.mark.slow
def test_it_is_fast():
    """At least 5,000 steps a second of CPU time, in the middle of the published episodes."""
    states, actions = golden()["states"], golden()["actions"].astype(float)
    start = time.process_time()
    for _ in range(20):
        for first, row in zip(states[:, 0], actions, strict=True):
            PUSH.open_loop(first, row)
    assert 20 * 3 * 60 / (time.process_time() - start) > 5000
