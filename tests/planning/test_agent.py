"""The agent's loop: what its memory keeps, what its cost adds up, and what each mode does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.agent import Agent, Modules, keep_first, keep_none
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.costs import squared_error
from cjepa_jax.planning.mpc import MPC

SEARCH = MPC(CEM(samples=48, elites=8, iterations=4, low=-1.0, high=1.0), horizon=4, receding=2)
POINT = Modules(  # images are places [E, 2], and so are latents. The first frame's place tells which way actions lead
    perceive=lambda params, places: jnp.asarray(places),
    world=lambda params, memory, z, actions: z + params * jnp.sign(memory[0, :1]) * jnp.cumsum(actions, 1),
    slots=1,
    params=0.5,
)
GOALS = np.float32([[1.0, 1], [0.3, -0.7], [-1, 1]])


def play(agent, first, steps=6):
    """The places [steps + 1, E, 2] in the true world, where actions lead as the first place tells."""
    agent.start(GOALS, np.arange(3))
    places = [first]
    for _ in range(steps):
        action = agent.act(places[-1])
        assert action.shape == (3, 1, 2)
        places.append(places[-1] + 0.5 * np.sign(first[:, :1]) * action[:, 0])
    return np.stack(places)


FIRST = np.float32([[0.2, 0], [-0.2, 0], [-0.1, 0.5]])


def test_the_first_latents_stay_and_the_newest_stands_for_those_to_come():
    memory, seen = jnp.zeros((1, 2, 1)), []
    for frame in range(4):
        memory = keep_first(memory, jnp.full((1, 1), frame + 1.0), frame)
        seen.append(memory[0, :, 0].tolist())
    assert seen == [[1, 1], [1, 2], [1, 2], [1, 2]]
    assert keep_none(memory, jnp.full((1, 1), 9.0), 5)[0, :, 0].tolist() == [9, 9]


def test_mode_2_reaches_its_goals_by_what_it_remembers_and_not_without():
    agent = Agent(POINT, SEARCH, 2)
    assert np.abs(play(agent, FIRST)[-1] - GOALS).max() < 0.15 and agent.searches == 3
    forgets = play(Agent(dataclasses.replace(POINT, remember=keep_none), SEARCH, 2), FIRST)
    assert np.abs(forgets[-1] - GOALS)[1].max() > 0.25  # beyond 0 its actions lead the other way than it believes


def test_the_cost_is_the_sum_of_distances_and_the_critics_word_on_the_last_latent():
    rng = np.random.default_rng(0)
    memory, z, goal = np.ones((1, 2), np.float32), np.zeros(2, np.float32), GOALS[0]
    actions = rng.uniform(-1, 1, (5, 3, 2)).astype(np.float32)
    latents = z + 0.5 * actions.cumsum(1)
    wanted = np.square(latents - goal).mean(-1).sum(1)
    np.testing.assert_allclose(POINT.cost(memory, z, goal, actions), wanted, rtol=1e-5)
    critic = dataclasses.replace(
        POINT, critic=lambda heads, memory, z, goal: heads * (z - goal + memory[..., 0, :])[..., 0], heads=3.0
    )
    added = 3 * (latents[:, -1] - goal + 1)[:, 0]
    np.testing.assert_allclose(critic.cost(memory, z, goal, actions), wanted + added, rtol=1e-5)


def test_a_critic_sees_further_than_the_horizon():
    """A detour: the latent's distance first grows. The critic knows that the way leads through x = 2."""

    def world(params, memory, z, actions):
        x = jnp.clip(z[0] + actions[..., 0].cumsum(-1), 0, 2)
        return jnp.stack([x, jnp.where(x > 1.9, 1.0, 0.0) * jnp.ones_like(x)], -1)

    detour = Modules(perceive=lambda _, z: jnp.asarray(z), world=world, slots=0)
    goal, start = np.float32([[0, 1]]), np.zeros((1, 2), np.float32)
    short = MPC(CEM(samples=64, elites=8, iterations=4, low=-1.0, high=1.0), horizon=1)
    moves = []
    for critic in (None, lambda heads, memory, z, goal: 5 * (2 - z[..., 0])):
        agent = Agent(dataclasses.replace(detour, critic=critic), short, 2)
        agent.start(goal, np.arange(1))
        moves.append(float(agent.act(start)[0, 0, 0]))
    assert moves[0] < 0.1 and moves[1] > 0.9


def test_mode_1_asks_its_policy_alone_within_the_limits():
    def policy(heads, memory, z, goal):
        return 2 * jnp.sign(memory[..., 0, :1]) * (goal - z)

    silent = dataclasses.replace(POINT, policy=policy, world=None)
    agent = Agent(silent, SEARCH, 2, mode=1)
    places = play(agent, FIRST)
    assert np.abs(places[-1] - GOALS).max() < 1e-5 and np.abs(np.diff(places, axis=0)).max() <= 0.5
    with pytest.raises(ConfigError, match="agent.mode is 1: must be 2, or 1 with a policy"):
        Agent(POINT, SEARCH, 2, mode=1)
    with pytest.raises(ConfigError, match="agent.mode is 3"):
        Agent(silent, SEARCH, 2, mode=3)


def test_it_does_nothing_until_its_memory_is_full_and_repeats_itself():
    three = dataclasses.replace(POINT, slots=3)
    places = play(Agent(three, SEARCH, 2), FIRST)
    assert (places[:3] == FIRST).all() and (places[3] != FIRST).any(1).all()
    agent = Agent(three, SEARCH, 2)
    np.testing.assert_array_equal(play(agent, FIRST), play(agent, FIRST))
    assert (play(Agent(three, SEARCH, 2, seed=1), FIRST)[3] != places[3]).all()


def test_modules_of_an_objective_see_memory_and_latents_in_one_sequence():
    """The next latent is the last one plus its action, times the first of the memory."""

    @dataclasses.dataclass
    class Fake:
        memory: int = 2
        recent: int = 2

        def latents(self, params, frames):
            return params["scale"] * frames.mean((2, 3))

        def predict(self, params, extra, latents, actions, proprio=None):
            assert latents.shape[1] <= 4 and not isinstance(actions, np.ndarray)
            return latents[:, 0] * (latents[:, -1] + actions[:, -1].sum(-1, keepdims=True)) + actions[:, 1].sum()

    modules = Modules.of(Fake(), {"scale": jnp.float32(2)}, {})
    z = modules.perceive(modules.params, np.ones((3, 4, 4, 1), np.uint8))
    np.testing.assert_allclose(z, np.full((3, 1), 2.0))
    memory = jnp.asarray([[3.0], [7.0]])
    found = jax.jit(lambda m, z, a: modules.world(modules.params, m, z, a))(memory, z[0], jnp.ones((5, 2, 2)))
    np.testing.assert_allclose(found, np.tile([[12.0], [42.0]], (5, 1, 1)))
    assert modules.intrinsic is squared_error and modules.slots == 2
