"""Receding-horizon control, and rollouts of models with a memory."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.cem import CEM, ICEM
from cjepa_jax.planning.costs import autoregressive, unroll
from cjepa_jax.planning.gradient import Gradient
from cjepa_jax.planning.mpc import MPC, Controller, WorldModel
from cjepa_jax.planning.mppi import MPPI

CEM_ = CEM(samples=48, elites=8, iterations=4, low=-1.0, high=1.0)
POINT = WorldModel(
    encode=lambda params, places: places,
    predict=lambda params, context, actions: unroll(lambda place, action: place + params * action)(context, actions),
    params=jnp.float32(0.5),
)
STARTS, GOALS = np.zeros((3, 2), np.float32), np.float32([[1.0, 0], [0.3, -0.7], [-1, 1]])


def control(mpc, model=POINT, steps=6):
    controller, places, calls = Controller(model, mpc, 2), STARTS, 0
    controller.start(GOALS, np.arange(3))
    while calls < steps:
        actions = controller.act(places)
        for t in range(actions.shape[1]):
            places = places + 0.5 * actions[:, t]
        calls += actions.shape[1]
    return places, controller


def test_it_reaches_its_goals_and_starts_at_the_rest_of_the_plan():
    places, controller = control(MPC(CEM_, horizon=4, receding=2, over="sum"))
    assert np.abs(places - GOALS).max() < 0.1
    np.testing.assert_allclose(controller.mean[:, :2], controller.last.actions[:, 2:])
    assert not controller.mean[:, 2:].any()
    cold = control(MPC(CEM_, horizon=4, receding=4, over="sum", warm=False))[1]
    assert not cold.mean.any()


def test_each_search_has_draws_of_its_own_and_a_seed_repeats_them():
    first, second = (Controller(POINT, MPC(CEM_, horizon=2, warm=False), 2, seed) for seed in (0, 1))
    for controller in (first, second):
        controller.start(GOALS, np.arange(3))
    plans = [controller.act(STARTS) for controller in (first, first, second)]
    assert all((a != b).any() for a, b in zip(plans, plans[1:] + plans[:1], strict=True))
    first.start(GOALS, np.arange(3))
    np.testing.assert_array_equal(first.act(STARTS), plans[0])


def test_a_block_of_actions_is_done_frame_by_frame():
    model = WorldModel(
        encode=lambda _, places: places,
        predict=lambda _, context, blocks: context + 0.5 * jnp.cumsum(blocks[..., :2] + blocks[..., 2:], 1),
    )
    places, controller = control(MPC(CEM_, horizon=2, receding=1, block=2, over="sum"), model)
    assert controller.mean.shape == (3, 2, 4) and np.abs(places - GOALS).max() < 0.15


@pytest.mark.parametrize("planner", [CEM_, ICEM(samples=32, iterations=3), MPPI(samples=32, elites=8, iterations=3)])
def test_a_simulator_on_the_host_gives_the_same_plans(planner):
    def rollout(params, places, actions):
        return places[:, None, None] + params * np.cumsum(actions, -2)

    host, plans = dataclasses.replace(POINT, predict=rollout, params=np.float32(0.5), host=True), []
    for model in (POINT, host):
        controller = Controller(model, MPC(planner, horizon=4, over="sum"), 2)
        controller.start(GOALS, np.arange(3))
        plans.append((controller.act(STARTS), controller.last.costs))
    for ours, other in zip(*plans, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-4)


def test_a_simulator_on_the_host_has_no_gradients():
    controller = Controller(dataclasses.replace(POINT, host=True), MPC(Gradient()), 2)
    controller.start(GOALS, np.arange(3))
    with pytest.raises(ConfigError, match="planner is Gradient. A simulator on the host has no gradients"):
        controller.act(STARTS)


@pytest.mark.parametrize("memory", [1, 3])
def test_a_rollout_sees_the_last_latents_and_their_actions(memory):
    """Against a loop over all that was seen. The model multiplies by position, so order and length count."""
    rng = np.random.default_rng(0)
    known, past, actions = rng.normal(size=(1, 2)), rng.normal(size=(0, 2)), rng.normal(size=(2, 5, 2))
    weights = np.arange(1.0, 10)[:, None]

    def step(latents, actions):
        assert latents.shape[:2] == actions.shape[:2] and latents.shape[1] <= memory
        return ((latents + 0.1 * actions) * weights[: latents.shape[1]]).mean(1)

    found = autoregressive(step, memory)((jnp.asarray(known), jnp.asarray(past)), jnp.asarray(actions))
    for s in range(2):
        latents = [known[0]]
        for t in range(5):
            seen = slice(max(0, t + 1 - memory), t + 1)
            rows = np.stack(latents)[seen] + 0.1 * actions[s, seen]
            latents.append((rows * weights[: len(rows)]).mean(0))
        np.testing.assert_allclose(found[s], latents[1:], rtol=1e-4)


def test_a_world_model_of_an_objectives_functions():
    """Latents are means over the image. The model adds the action's sum, and sees two frames."""

    def latents(params, frames):
        return params["scale"] * frames.mean((2, 3)) + params["offset"]

    def predict(params, extra, latents, actions):
        return latents[:, -1] + actions[:, -1].sum(-1, keepdims=True) * params["scale"] + 0 * extra["offset"]

    model = WorldModel.of(latents, predict, {"scale": jnp.float32(2)}, {"offset": jnp.float32(1)}, memory=2)
    images = jnp.ones((4, 8, 8, 1))
    context = model.encode(model.params, images)[0]
    np.testing.assert_allclose(model.goal(model.params, images), np.full((4, 1), 3.0))
    found = model.predict(model.params, context, jnp.ones((5, 3, 2)))
    np.testing.assert_allclose(found, np.tile(np.array([7.0, 11, 15])[:, None], (5, 1, 1)))


@pytest.mark.parametrize("options", [{"horizon": 0}, {"receding": 6}, {"block": 1.5}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=f"mpc.{next(iter(options))} is"):
        MPC(CEM_, **options)
