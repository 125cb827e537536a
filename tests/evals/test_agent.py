"""What the agent learns: experience as it sees it, costs that follow, a critic, a policy, and the command."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.data.worlds.acting import Rooms
from cjepa_jax.data.worlds.acting.rooms import GAP, WALL, X
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import agent, control
from cjepa_jax.planning.agent import Modules
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.mpc import MPC

ROOMS = Rooms(size=16, look="channels", wall=(0.5, 0.5), shown=2)
SEARCH = MPC(CEM(samples=32, elites=4, iterations=2, low=-1.0, high=1.0), horizon=4, receding=2)


def see(params, images):
    """[x, y, the door's y or 0] of images with two channels, exact to a pixel's share."""
    share = jnp.asarray(images, jnp.float32)
    place = (jnp.arange(16) + 0.5) / 16
    dot = share[..., 0] / jnp.maximum(share[..., 0].sum((1, 2), keepdims=True), 1)
    open_ = jnp.clip(1 - share[:, :, 7, 1] / 100, 0, 1)  # the wall covers half of this column's pixels
    door = (open_ * place).sum(1) / jnp.maximum(open_.sum(1), 1e-3)
    return jnp.stack([(dot.sum(1) * place).sum(1), (dot.sum(2) * place).sum(1), door], -1)


def step(params, memory, z, actions):
    """The true world, in which the door is where the memory says."""
    moves = []
    state = jnp.concatenate([jnp.broadcast_to(z[:2], (len(actions), 2)), jnp.full((len(actions), 1), 0.5),
                             jnp.full((len(actions), 1), memory[0, 2])], -1)  # fmt: skip
    for t in range(actions.shape[1]):
        state = ROOMS.advance(state, actions[:, t])
        moves.append(jnp.concatenate([state[:, :2], jnp.zeros((len(actions), 1))], -1))
    return jnp.stack(moves, 1)


MODULES = Modules(perceive=see, world=step, slots=2)


@functools.cache
def seen():
    world = dataclasses.replace(ROOMS, split="train", frames=2, count=60)
    return agent.experience(world, MODULES, 60, 24, 0)


def test_experience_is_what_the_agent_sees_from_the_frame_on_in_which_its_memory_is_full():
    found = seen()
    assert found.z.shape == (60, 24, 3) and found.memory.shape == (60, 24, 2, 3) and found.states.shape == (60, 24, 4)
    np.testing.assert_allclose(found.z[..., X], found.states[..., X], atol=0.01)
    np.testing.assert_allclose(found.memory[:, :, 0, 2], found.states[..., GAP], atol=0.05)
    assert (found.z[:, 0, 2] > 0).all() and not found.z[:, 1:, 2].any() and not found.goal[:, 2].any()
    np.testing.assert_array_equal(found.memory[:, 0], found.memory[:, 5])
    assert ROOMS.reached(found.states, found.goals[:, None]).any(1).all()


def test_the_costs_that_follow_a_frame():
    z = np.float32([[[0], [3], [2], [1.5], [1], [4], [1], [1]]])
    reached = np.arange(8)[None] >= 4
    found = agent.Experience(z, np.zeros((1, 8, 0, 1)), np.float32([[1]]), None, None, None, reached)
    np.testing.assert_allclose(found.costs(MODULES), [[4 + 1 + 0.25, 1.25, 0.25, 0, 0, 0, 0, 0]])  # none after frame 4
    assert found.counts.tolist() == [[True] * 6 + [False] * 2]
    assert found.inputs().shape == (1, 8, 2)


def test_predicted_latents_have_the_costs_of_the_frames_that_they_predict():
    """In this exact world a prediction is the latent, so each row is that of a true frame."""
    costs = seen().costs(MODULES)
    episode, x, y = agent._rolled(MODULES, seen(), costs, 4, 0)
    assert len(episode) == len(x) == len(y) > 500 and x.shape[1] == 12
    checked = 0
    for row in range(0, len(x), 10):
        away = np.abs(seen().z[episode[row], :, :WALL] - x[row, :WALL]).sum(-1)
        frame = away.argmin()
        assert away[frame] < 0.04
        np.testing.assert_array_equal(x[row, -3:], seen().goal[episode[row]])
        if np.partition(away, 1)[1] > 0.05:  # no other frame shows the dot nearly there
            assert y[row] == costs[episode[row], frame]
            checked += 1
    assert checked > 100


def test_learned_critic_policy_and_ablations():
    """A little learning is enough for a critic that is better than the mean. All four play."""
    learned = agent.learn(ROOMS, MODULES, SEARCH, seed=0, episodes=60, plans=40, steps=24, test=20, fit=100)
    assert set(learned.scores) == {"critic", "straight distance"} and 0 < learned.scores["critic"] < 1
    assert [mode for _, mode in learned.players.values()] == [2, 1, 2, 2]
    world = dataclasses.replace(ROOMS, split="test", frames=2, count=4)
    tasks = control.draw_tasks(world, "room", 4)
    for modules, mode in learned.players.values():
        trials = control.play(world, tasks, control.by_agent(world, modules, SEARCH, 0, mode), 6)
        moved = np.abs(np.diff(trials.states[..., :WALL], axis=1)).sum(-1)
        assert not moved[:, 0].any() and moved[:, 1].all()  # it looks first
    again = agent.with_critic(MODULES, seen(), 0, steps=20), agent.with_critic(MODULES, seen(), 0, steps=20)
    for one, other in zip(*(a.heads["critic"]["layers"] for a in again), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_a_head_is_the_mean_of_its_networks_and_rows_are_in_the_order_of_episodes(monkeypatch):
    rows = []
    monkeypatch.setattr(agent, "_fit", lambda x, y, *a: rows.append((x, y)) or {})
    agent.with_critic(MODULES, seen(), 0, horizon=3)
    (x, y), costs = rows[0], seen().costs(MODULES)
    true = np.concatenate([seen().inputs()[e][seen().counts[e]] for e in range(60)])
    assert len(x) > len(true) + 500
    of = [next(e for e in range(60) if (row[-3:] == seen().goal[e]).all()) for row in x[::25]]
    assert of == sorted(of)
    assert all(value in costs[e] for e, value in zip(of, y[::25, 0], strict=True))
    monkeypatch.undo()
    fitted = agent._fit(x[:200], y[:200], 0, 5)
    each = [np.asarray(agent._output(fitted | {"layers": [(w[i : i + 1], b[i : i + 1]) for w, b in fitted["layers"]]},
                                     seen().memory[0], seen().z[0], np.broadcast_to(seen().goal[0], (24, 3))))
            for i in range(agent.INITS)]  # fmt: skip
    whole = agent._output(fitted, seen().memory[0], seen().z[0], np.broadcast_to(seen().goal[0], (24, 3)))
    np.testing.assert_allclose(whole, np.mean(each, 0), rtol=1e-4)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_an_episode_that_does_not_reach_its_goal_teaches_nothing():
    z = np.zeros((2, 4, 1), np.float32)
    reached = np.array([[False] * 4, [False, False, True, True]])
    found = agent.Experience(z, np.zeros((2, 4, 0, 1)), np.ones((2, 1)), None, None, None, reached)
    assert found.counts.tolist() == [[False] * 4, [True] * 4]
    world = dataclasses.replace(ROOMS, split="train", frames=2, count=10)
    with pytest.raises(ConfigError, match="--steps=3: too few to learn a critic from, the expert reaches the goal in"):
        agent.experience(world, MODULES, 10, 3, 0)


@pytest.mark.slow
def test_a_critic_with_more_experience_knows_more_than_the_straight_distance():
    seen, new = (
        agent.experience(dataclasses.replace(ROOMS, split=split, frames=2), MODULES, count, 24, seed=0, scale=scale)
        for split, count, scale in (("train", 600, 0.25), ("eval", 100, 0.0))
    )
    scores = agent.critic_scores(agent.with_critic(MODULES, seen, 0, horizon=8), ROOMS, seen, new)
    assert scores["critic"] > scores["straight distance"] > 0


def test_a_policy_is_fitted_to_first_actions_of_plans():
    """Most plans lead towards the goal, and so does the policy."""
    fitted = agent.with_policy(MODULES, SEARCH, 2, seen(), 200, 0, steps=100)
    said = fitted.policy(fitted.heads, seen().memory[:, 0], seen().z[:, 0], seen().goal)
    same = (seen().states[:, 0, X] < 0.5) == (seen().goals[:, X] < 0.5)
    ways = np.asarray(said) * (seen().goals - seen().states[:, 0])[:, :WALL]
    assert said.shape == (60, 2) and ways[same].sum(-1).mean() > 0.05


def test_worlds_without_an_expert_are_refused():
    without = type("Aimless", (Rooms,), {"expert": control.Acting.expert})()
    with pytest.raises(ConfigError, match="Aimless has no expert"):
        agent.experience(without, MODULES, 4, 2, 0)


def test_only_the_first_frames_show_the_door():
    states = ROOMS.task(0).start[None]
    images = [ROOMS.seen(states, frame) for frame in (0, 1, 2, -1)]
    assert (images[0] == images[1]).all() and (images[2] == images[3]).all() and (images[0] != images[2]).any()
    assert (Rooms(size=16).seen(states, -1) == Rooms(size=16).picture(states)).all()
