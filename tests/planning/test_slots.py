"""Planning with slots: sets that are compared by their best assignment, rollouts of a slot predictor, and memory."""

import dataclasses
import functools
import json
import pathlib
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.data.worlds.acting import Push
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import control, slot_control
from cjepa_jax.objectives.slots import Slots
from cjepa_jax.planning import __main__ as command
from cjepa_jax.planning import costs, players
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.mpc import MPC, of_slots
from cjepa_jax.types import Batch
from cjepa_jax.weights import slots as weights
from tests import running

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/slots"
SOURCE = TrueSlots(
    count=4, frames=4, slots=3, width=16, of="cjepa_jax.data.worlds.acting:Push", of_options={"policy": "weak"}
)
PREDICTOR = dict(depth=1, heads=2, units=16, norm_attention=True)
MPC_ = MPC(CEM(samples=8, elites=4, iterations=1, low=-1.0, high=1.0), horizon=3)


@pytest.mark.parametrize("slots", [3, 5, 6])
def test_the_cost_is_that_of_the_best_assignment(slots):
    """Against SciPy's, with two more rows that keep their places."""
    rng = np.random.default_rng(slots)
    predicted, goal = rng.normal(size=(4, 2, slots + 2, 7)), rng.normal(size=(slots + 2, 7))
    found = np.asarray(costs.matched(slots)(jnp.asarray(predicted), jnp.asarray(goal)))
    for place in np.ndindex(4, 2):
        one = predicted[place]
        pairs = np.square(one[:slots, None] - goal[:slots]).mean(-1)
        wanted = pairs[linear_sum_assignment(pairs)].mean() + np.square(one[slots:] - goal[slots:]).mean(-1).sum()
        np.testing.assert_allclose(found[place], wanted, rtol=1e-5)
    order = rng.permutation(slots).tolist() + [slots, slots + 1]
    np.testing.assert_allclose(costs.matched(slots)(jnp.asarray(predicted), jnp.asarray(goal[order])), found, rtol=1e-5)


def test_absent_slots_are_assigned_to_absent_ones_however_far_the_others_are():
    near, far = np.full((2, 7), 0.1), np.full((2, 7), -9.0)
    predicted, goal = np.concatenate([near, np.zeros((1, 7))]), np.concatenate([np.zeros((1, 7)), far])
    found = costs.matched(3)(jnp.asarray(predicted), jnp.asarray(goal))
    np.testing.assert_allclose(found, 2 * 9.1**2 / 3, rtol=1e-5)
    goal = np.array([[0.1], [0.1], [0.3]]) * np.ones(7)  # a slot appears: the absent one is assigned to any
    np.testing.assert_allclose(costs.matched(3)(jnp.asarray(predicted), jnp.asarray(goal)), 0.05 / 3, rtol=1e-5)


@pytest.mark.parametrize("slots", [3, 6])
def test_small_differences_count_where_another_number_of_slots_is_present(slots):
    predicted = np.zeros((2, slots, 7), np.float32)
    predicted[:, :2], goal = [[[1.0], [2.0]], [[1.0], [2.1]]], np.zeros((slots, 7), np.float32)
    goal[:3] = [[1.0], [2.0], [0.5]]
    exact, off = costs.matched(slots)(jnp.asarray(predicted), jnp.asarray(goal))
    np.testing.assert_allclose([exact, off], np.array([0.25, 0.26]) / slots, rtol=1e-5)
    slope = jax.grad(lambda x: costs.matched(slots)(x, jnp.asarray(goal)).sum())(jnp.asarray(predicted))
    wanted = np.zeros((2, slots, 7), np.float32)
    wanted[1, 1] = 2 * 0.1 / 7 / slots
    absent = (predicted == 0).all(-1)
    np.testing.assert_allclose(np.where(absent[..., None], 0, slope), wanted, atol=1e-6)


def test_the_public_codes_costs():
    """Of sets of slots with a token of the agent (cost [2, 5]), and of sets alone (a mean over rows and components)."""
    golden = np.load(GOLDEN / "planning_pusht.npz")
    weight, bias = (golden[f"p/proprio_encoder.patch_embed.{name}"] for name in ("weight", "bias"))
    for env in range(2):
        agent = weight[..., 0] @ golden["goal_proprio"][env] + bias
        goal = jnp.asarray(np.concatenate([golden["goal"][env], agent[None]]))
        found = costs.matched(4)(jnp.asarray(golden["predicted"][env, :, -1, :5]), goal)
        np.testing.assert_allclose(found, golden["cost"][env], rtol=0, atol=2e-6)
    alone = np.load(GOLDEN / "hungarian.npz")
    for place in np.ndindex(3, 2):
        found = costs.matched(5)(jnp.asarray(alone["pred"][place]), jnp.asarray(alone["target"][place]))
        np.testing.assert_allclose(found, alone["cost"][place], rtol=0, atol=1e-6)


def test_rollouts_and_costs_of_public_weights_are_the_public_codes():
    """From one frame and 5 actions of each candidate. The public code orders predicted slots by the frame before, so
    sets are compared, by sorting each component."""
    golden = np.load(GOLDEN / "planning_pusht.npz")
    found = weights.from_state({name[2:]: golden[name] for name in golden.files if name.startswith("p/")})
    sizes = dict(depth=found.depth, heads=4, units=found.units)
    objective = Slots(sizes, history=found.frames - 1, future=1, steps=1, auxiliary=("proprio", "action"))
    model, past = of_slots(objective, found.params), np.zeros((2, 0, 10), np.float32)
    seen = {"slots": golden["slots"][:, None], "proprio": golden["proprio"][:, None], "actions": past}
    context = model.encode(model.params, seen)
    goal = model.goal(model.params, {"slots": golden["goal"][:, None], "proprio": golden["goal_proprio"][:, None]})
    rollout = jax.jit(lambda own, actions: model.predict(model.params, own, actions))
    for env in range(2):
        latents = rollout(jax.tree.map(lambda leaf, env=env: leaf[env], context), golden["actions"][env])
        wanted = golden["predicted"][env, :, 1:]  # [5 candidates, 5 frames, 4 slots, agent and action, 16]
        np.testing.assert_allclose(np.sort(latents[:, :, :4], 2), np.sort(wanted[:, :, :4], 2), rtol=0, atol=5e-6)
        np.testing.assert_allclose(latents[:, :, 4], wanted[:, :, 4], rtol=0, atol=5e-6)
        cost = costs.matched(4)(latents[:, -1], goal[env])
        np.testing.assert_allclose(cost, golden["cost"][env], rtol=0, atol=2e-6)


@functools.cache
def model(auxiliary=("proprio", "action")):
    """(objective, parameters, batch of SOURCE's scenes): 3 frames are given and 1 predicted."""
    objective = Slots(PREDICTOR, history=3, future=1, steps=10, auxiliary=auxiliary)
    scenes = [SOURCE[i] for i in range(4)]
    arrays = {name: np.stack([scene[name] for scene in scenes]) for name in ("video", "actions", "proprio")}
    patches = np.zeros((4, 3, 12), bool)
    for b, scene in enumerate(scenes):
        for k in np.flatnonzero(scene["present"]):
            patches[b, k, k::3] = True
    context = patches.any(1) & (np.arange(12) < 9)
    fields = dict.fromkeys(Batch.__dataclass_fields__) | arrays
    fields |= {"object_patches": patches, "object_valid": patches.any(-1), "removed": np.zeros((4, 3), bool)}
    batch = Batch(**fields | {"context": context, "valid": np.ones(4, bool)})
    return objective, jax.jit(objective.init)(jax.random.key(0), batch)[0], batch


@pytest.mark.parametrize("auxiliary", [("action",), ("proprio", "action")])
def test_the_next_slots_are_the_trainings_prediction_of_the_future(auxiliary):
    objective, params, batch = model(auxiliary)
    wanted = jax.jit(lambda p, b: objective._pass(p, b, None).prediction)(params, batch)[:, 3]
    slots, present = jnp.asarray(batch.video[:, :3, 0]), jnp.asarray(batch.object_valid)
    tokens = jax.jit(objective.embedded)(params, slots, batch.proprio[:, :3])
    found = jax.jit(objective.advance)(params, tokens, batch.actions[:, :3], present)
    kept = 3 + ("proprio" in auxiliary)
    there = np.concatenate([present, np.ones((4, kept - 3), bool)], 1)[..., None]
    assert not present.all() and found.shape == (4, kept, 16)
    np.testing.assert_allclose(found, np.where(there, wanted[:, :kept], 0), atol=1e-5)


def test_a_rollout_sees_its_own_predictions_and_every_action_in_its_place():
    objective, params, batch = model()
    world = of_slots(objective, params)
    seen = {"slots": batch.video[:, :3, 0], "proprio": batch.proprio[:, :3], "actions": batch.actions[:, :2]}
    context = jax.tree.map(lambda leaf: leaf[1], world.encode(params, seen))
    plan = np.random.default_rng(0).uniform(-1, 1, (2, 3, 2)).astype(np.float32)
    found = np.asarray(world.predict(params, context, plan))
    assert found.shape == (2, 3, 4, 16)
    tokens, done, there = (np.repeat(np.asarray(leaf)[None], 2, 0) for leaf in context)
    advance = jax.jit(objective.advance)
    for t in range(3):
        done = np.concatenate([done, plan[:, t, None]], 1)
        new = np.asarray(advance(params, tokens[:, -3:], done[:, -3:], there))
        np.testing.assert_allclose(found[:, t], new, atol=1e-5)
        tokens = np.concatenate([tokens, new[:, None]], 1)
    goal = world.goal(params, seen)
    np.testing.assert_array_equal(goal[:, :3], batch.video[:, 2, 0])


def test_a_rollout_from_one_frame_remembers_more_and_more_up_to_the_history():
    """Each slot is the sum of all that are remembered: 1, 1 + 1, 1 + 1 + 2, and without the first one 1 + 2 + 4."""
    sums = SimpleNamespace(
        history=3,
        embedded=lambda params, slots, proprio: slots,
        advance=lambda params, latents, actions, present: latents.sum(1),
    )
    world = of_slots(sums, {})
    seen = {"slots": jnp.ones((1, 1, 2, 3)), "proprio": None, "actions": jnp.zeros((1, 0, 2))}
    context = jax.tree.map(lambda leaf: leaf[0], world.encode({}, seen))
    found = np.asarray(world.predict({}, context, jnp.zeros((1, 4, 2))))
    assert found.shape == (1, 4, 2, 3) and found[0, :, 1, 2].tolist() == [1, 2, 4, 7]


def test_slots_of_a_state_are_those_of_the_scene_in_the_order_of_the_objects():
    ordered = dataclasses.replace(SOURCE, shuffle="none")
    scene = ordered[0]
    np.testing.assert_allclose(ordered.seen(scene["states"][:, :2]), scene["video"], atol=1e-6)
    shuffled = SOURCE[0]["video"][0, 0]
    found = SOURCE.seen(ordered[0]["states"][:1, :2])[0, 0]
    assert sorted(map(tuple, shuffled.round(4))) == sorted(map(tuple, found.round(4)))
    np.testing.assert_array_equal(scene["actions"], Push(count=4, frames=4, policy="weak", size=8)[0]["actions"])


class Noted:
    """Replaces a controller: keeps what it is shown, and acts by the number of the call."""

    size = 2

    def start(self, goals, index):
        self.shown = []
        self.aim(goals)

    def aim(self, goals):
        self.goals = goals

    def act(self, seen):
        self.shown.append(seen)
        return np.full((len(seen["slots"]), 2, 2), len(self.shown) / 10)


def test_a_policy_remembers_the_last_frames_and_the_actions_between_them():
    world = Push(split="test", seed=1, size=8)
    tasks = control.draw_tasks(world, "episode", 2)
    policy = slot_control.by_slots(world, SOURCE, *model()[:2], mpc=MPC_, seed=0)
    controller, policy.controller = policy.controller, Noted()
    assert controller.mpc is MPC_
    trials = control.play(world, tasks, policy, 6)
    first, second, third = policy.controller.shown
    look = [policy.sight.look(trials.states[:, t]) for t in range(5)]
    assert (first["slots"] == look[0]["slots"][:, None]).all() and (first["actions"] == 0).all()
    assert first["slots"].shape == (2, 3, 3, 16) and first["actions"].shape == (2, 2, 2)
    np.testing.assert_array_equal(second["slots"], np.stack([look[t]["slots"] for t in (0, 1, 2)], 1))
    np.testing.assert_array_equal(second["proprio"], np.stack([look[t]["proprio"] for t in (0, 1, 2)], 1))
    np.testing.assert_allclose(second["actions"], 0.1)
    np.testing.assert_array_equal(third["slots"], np.stack([look[t]["slots"] for t in (2, 3, 4)], 1))
    np.testing.assert_allclose(third["actions"], 0.2)
    alone = slot_control.by_slots(world, SOURCE, *model()[:2], mpc=MPC_, seed=0, memory=1)
    alone.controller = Noted()
    control.play(world, tasks, alone, 6)
    assert [seen["slots"].shape for seen in alone.controller.shown] == [(2, 1, 3, 16)] * 3
    assert all(seen["actions"].shape == (2, 0, 2) for seen in alone.controller.shown)
    assert policy.controller.goals["slots"].shape == (2, 1, 3, 16)
    np.testing.assert_array_equal(policy.controller.goals["slots"][:, 0], policy.sight.look(tasks.goals)["slots"])


def test_a_worlds_own_policy_plays_the_same_from_the_same_seed():
    world = Push(split="test", seed=1, size=8)
    tasks = control.draw_tasks(world, "episode", 3)
    one, same, other = (control.play(world, tasks, control.Behaving(world, "weak", seed), 4) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.states, same.states)
    assert (one.states[:, -1] != other.states[:, -1]).any(1).all()
    assert "policy weak" in control.baselines(world, MPC_, 0)


@pytest.mark.slow
def test_the_command_plans_with_a_trained_slot_predictor(tmp_path):
    """Of two steps, from its folder to the table."""
    small = {"train.steps": 2, "data.count": 8, "train.batch": 8, "data.options.width": 16, "data.workers": 0}
    small |= {"log.report": False, "log.tensorboard": False}
    run = tmp_path / "run"
    where = ["--config=configs/slots/push.py", f"--workdir={run}"]
    running.run([sys.executable, "-m", "cjepa_jax.train", *where, *(f"--config.{k}={v}" for k, v in small.items())])
    few = "--episodes=2 --steps=3 --planner=icem --samples=8 --elites=4 --iterations=1 --horizon=4 --inits=1"
    assert command.main([f"--checkpoint={run}", *few.split()]) == 0
    rows = {row["name"]: row["kind"] for row in json.loads((run / "control/results.json").read_text())["rows"]}
    assert rows["trained"] == "result" and rows["random init 0"] == "floor" and rows["policy weak"] == "floor"
    few = "--protocol=published --episodes=2 --seeds=1 --steps=4 --samples=8 --elites=4 --iterations=1 --inits=0"
    assert command.main([f"--checkpoint={run}", *few.split(), f"--workdir={tmp_path / 'published'}"]) == 0
    report = json.loads((tmp_path / "published" / "results.json").read_text())
    assert {"trained", "nothing"} <= {row["name"] for row in report["rows"]} and "horizon=25" in str(report["about"])
    assert control.SIMULATOR not in {row["name"] for row in report["rows"]}
    assert {row["task"] for row in report["rows"]} == {"recorded"}
    assert "split='train'" in report["about"]["world"] and "frames=50" in report["about"]["world"]
    for more, message in (
        (["--env=push"], "--env=push: not with --protocol and --checkpoint"),
        (["--planner=gradient"], "^--planner=gradient: not with --protocol"),
        (["--task=episode"], "--task: not with --protocol=published"),
        (["--vary=target=False"], "--vary: not with --protocol=published"),
    ):
        with pytest.raises(ConfigError, match=message):
            command.main([f"--checkpoint={run}", "--protocol=published", *more])
    with pytest.raises(ConfigError, match="--ahead=25: is for --protocol=published"):
        command.main([f"--checkpoint={run}", "--ahead=25"])


def test_what_cannot_be_planned_with_is_refused_in_one_line():
    chosen, other = (
        SimpleNamespace(checkpoint="runs/x", env="", protocol=""),
        SimpleNamespace(checkpoint="runs/x", env="rooms", protocol=""),
    )
    objective = SimpleNamespace(auxiliary=("action",))
    own = players.slots_mpc(chosen, SOURCE, objective, MPC_)
    about = players.described(own, SOURCE.source)
    assert about == {"planning": f"{own}", "distance": "matched_slots"} and own.horizon == 3
    for given, what in (
        (
            (chosen, SOURCE, SimpleNamespace(auxiliary=())),
            r"objective.auxiliary = \(\) has no 'action'",
        ),
        ((other, SOURCE, objective), "--env=rooms: a model of slots plays in the world that it was trained on"),
        ((chosen, TrueSlots(count=4), objective), "TrueSlots gives no slots of a world with actions"),
    ):
        with pytest.raises(ConfigError, match=what):
            players.slots_mpc(*given, MPC_)
    with pytest.raises(ConfigError, match="has no 'action': nothing can be planned"):
        Slots(PREDICTOR, history=3, future=1, steps=1).advance({}, None, None, None)
    with pytest.raises(DataError, match="2 objects: data.options.slots = 1 is too few"):
        dataclasses.replace(SOURCE, slots=1).seen(np.ones((1, 2, len(SOURCE.state_names))))
