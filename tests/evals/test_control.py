"""Control: the two definitions of success, the interval, what policies see, and the command end to end."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.configs.family import jepa2022, lewm
from cjepa_jax.configuration import build
from cjepa_jax.data.worlds.acting import Push, Rooms
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import control
from cjepa_jax.objectives.act import Act
from cjepa_jax.planning import __main__ as command
from cjepa_jax.planning import players
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.costs import unroll
from cjepa_jax.planning.mpc import MPC, WorldModel
from tests.objectives.test_act import SMALL
from tests.running import ROOT

ROOMS = Rooms(size=32, split="test", seed=1)
MPC_ = MPC(CEM(samples=64, elites=8, iterations=4, low=-1.0, high=1.0), horizon=10, over="sum")


def played(kind, policy, episodes=12, steps=25, world=ROOMS):
    return control.play(world, control.draw_tasks(world, kind, episodes), policy, steps)


def test_success_once_and_at_the_end():
    trials = control.Trials(np.zeros((3, 4, 4)), np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], bool))
    assert trials.once.tolist() == [True, True, False] and trials.end.tolist() == [False, True, False]


def test_wilsons_interval():
    """Its ends are the probabilities from which the share differs by 1.96 standard errors. 0 and 1 have a width."""
    for successes, count in ((0, 10), (5, 10), (49, 50)):
        low, high = control.interval(successes, count)
        for end in (low, high)[successes == 0 :]:
            np.testing.assert_allclose(
                abs(successes / count - end), 1.959964 * (end * (1 - end) / count) ** 0.5, rtol=1e-5
            )
    assert control.interval(10, 10)[1] == 1
    rows = [control.Row("", "", "", 50, once, 0, 0.0) for once in (45, 30, 40)]
    assert control.apart(rows[0], rows[1]) and not control.apart(rows[0], rows[2]) and not control.apart(*rows[1::-1])


def test_floors_and_the_expert_on_the_same_tasks():
    tasks = control.draw_tasks(ROOMS, "door", 12)
    found = {
        name: control.play(ROOMS, tasks, policy, 25)
        for name, (_, policy) in control.baselines(ROOMS, MPC_, 0).items()
        if name != "true simulator"
    }
    assert (found["nothing"].states == tasks.starts[:, None]).all() and not found["nothing"].once.any()
    assert found["expert"].end.all() and found["expert"].states.shape == (12, 26, 4)
    assert 0 < found["straight line"].once.mean() < 1
    assert all((trials.states[:, 0] == tasks.starts).all() for trials in found.values())


def test_random_actions_belong_to_a_task():
    """Other tasks beside it change nothing. Two tasks and two seeds differ."""
    tasks = control.draw_tasks(ROOMS, "any", 4)
    some = control.Tasks(*(array[[2, 0]] for array in tasks))
    whole, part = (control.play(ROOMS, t, control.Random(2, 0), 5).states for t in (tasks, some))
    np.testing.assert_array_equal(whole[[2, 0]], part)
    moves = [control.play(ROOMS, tasks, control.Random(2, seed), 1).states[:, 1] for seed in (0, 1)]
    assert (moves[0] != moves[1]).all(0)[:2].all()


def test_planning_in_the_true_simulator_passes_the_door():
    trials = played("door", control.by_simulator(ROOMS, dataclasses.replace(MPC_, horizon=16), 0), steps=20)
    assert trials.once.mean() > 0.5 > played("door", control.Random(2, 0), steps=20).once.mean()


def test_a_world_model_sees_images_alone():
    """A model that finds the dot in the image, and believes that there are no walls: a straight line."""

    def dot(_, images):
        share = images[..., 0].astype(jnp.float32)
        place = (jnp.arange(32) + 0.5) / 32
        total = share.sum((1, 2))
        return jnp.stack([(share.sum(1) * place).sum(1), (share.sum(2) * place).sum(1)], -1) / total[:, None]

    world = dataclasses.replace(ROOMS, look="channels")
    step = unroll(lambda places, actions: places + world.speed * actions)
    model = WorldModel(dot, lambda _, context, actions: step(context, actions))
    trials = played("room", control.by_model(world, model, dataclasses.replace(MPC_, horizon=4), 0), world=world)
    assert trials.once.all() and trials.states.dtype == float


def test_a_trained_policy_sees_images_and_does_the_first_of_its_actions():
    """One that finds both dots, and moves by their difference. Its later actions would lead away."""
    world, calls = dataclasses.replace(ROOMS, look="channels"), []

    def dot(images):
        share, place = images[..., 0].astype(float), (np.arange(32) + 0.5) / 32
        return np.stack([share.sum(1) @ place, share.sum(2) @ place], -1) / share.sum((1, 2))[:, None]

    def actions(frames, goals, proprio):
        move = (dot(goals) - dot(frames)) / world.speed
        calls.append((len(frames), proprio))
        return np.stack([move / 2, move / 2, -9 * move], 1)

    policy = control.Imitated(world, actions, receding=2, proprio=True)
    trials = played("room", policy, world=world, steps=25)
    assert trials.end.all() and len(calls) == 13
    np.testing.assert_array_equal(calls[-1][1], trials.states[:, 24, :2].astype(np.float32))


def test_a_trained_policy_of_another_world_is_refused():
    """One line, for another number of actions or of components of the agent's state."""
    chosen = SimpleNamespace(receding=1, checkpoint="runs/other")

    def fits(actions, state, world=ROOMS):
        params = {"decoder": {"out": {"bias": np.zeros(actions)}}, "context": {"state": {"kernel": np.eye(state, 12)}}}
        policy = players.imitating(chosen, Act(**SMALL, steps=1), SimpleNamespace(params=params), world)
        return isinstance(policy(world, 0), control.Imitated)

    assert fits(2, 2) and fits(2, 4, Push(size=32))
    for sizes, message in (
        ((7, 2), "--checkpoint=runs/other: an action has 7 components in the run, 2 in Rooms"),
        ((1, 2), "an action has 1 components in the run, 2 in Rooms"),
        ((2, 4), "the agent's state has 4 components in the run, 2 in Rooms"),
    ):
        with pytest.raises(ConfigError, match=message):
            fits(*sizes)


def test_push_is_planned_with_pymunk():
    world = Push(size=32, split="test")
    few = MPC(CEM(samples=8, elites=2, iterations=1, low=-1.0, high=1.0), horizon=2, receding=2)
    trials = played("episode", control.by_simulator(world, few, 0), episodes=2, steps=4, world=world)
    assert trials.states.shape == (2, 5, 7) and (trials.states[:, -1] != trials.states[:, 0]).any()
    assert world.away(trials.states[:, -1], trials.states[:, -1]).max() == 0


def test_films_end_when_the_goal_is_reached():
    tasks = control.draw_tasks(ROOMS, "room", 3)
    trials = control.play(ROOMS, tasks, control.Scripted(ROOMS.expert), 25)
    for frames, reached in zip(control.films(ROOMS, tasks, trials, most=2), trials.reached, strict=False):
        assert len(frames) == np.flatnonzero(reached)[0] + 2 and frames[0].shape == (32, 32, 3)
    two = control.rgb(dataclasses.replace(ROOMS, look="channels").picture(tasks.starts))
    assert two.shape == (3, 32, 32, 3) and not two[..., 2].any()


def test_a_factor_of_variation_has_rows(tmp_path, capsys):
    """The same tasks with a slower and with a faster dot."""
    few = "--env=rooms --task=room --episodes=6 --steps=12 --horizon=2 --samples=4 --elites=2 --iterations=1 --size=16"
    assert command.main([*few.split(), "--vary=speed=0.02", "--vary=speed=0.2", f"--workdir={tmp_path}"]) == 0
    rows = {row["name"]: row["once"]["share"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    slow, plain, fast = (rows[f"straight line{where}"] for where in (" (speed=0.02)", "", " (speed=0.2)"))
    assert slow < plain == fast == 1 and len(rows) == 15


def test_the_command_leaves_a_table_films_and_a_report(tmp_path, capsys):
    arguments = (
        "--env=rooms --episodes=3 --seeds=2 --steps=6 --horizon=3 --samples=16 --elites=4 --iterations=2 --size=32"
    )
    assert command.main([*arguments.split(), f"--workdir={tmp_path / 'out'}"]) == 0
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads((tmp_path / "out/results.json").read_text())["rows"]}
    assert set(rows) == {"nothing", "random actions", "straight line", "true simulator", "expert"}
    assert all(row["episodes"] == 6 and row["once"]["low"] <= row["once"]["share"] for row in rows.values())
    assert all(name in out for name in rows) and out.count("\n") == 7
    page = (tmp_path / "out/report.html").read_text()
    about = json.loads((tmp_path / "out/results.json").read_text())["about"]
    assert (about["checkpoint"], about["distance"], about["seeds"]) == ("none", "squared_error", "1000, 1001")
    assert " at 0x" not in page  # of a function's repr, another in each process
    assert page.count("data:image/gif;base64,") == 5 and len(list((tmp_path / "out/films").glob("*.gif"))) == 5


@pytest.mark.parametrize(
    ("words", "message"), [({"vary": ["speed=9"]}, "speed is 9"), ({"task": "walk"}, "--task=walk")]
)
def test_an_agent_does_not_learn_before_its_worlds_and_task_are_known(words, message):
    """The run that is given here has no state, so learning would fail with another error."""
    chosen = SimpleNamespace(**{"task": "", "vary": []} | words)
    with pytest.raises(ConfigError, match=message):
        players.agents(chosen, None, Rooms(size=16), SimpleNamespace(objective=SimpleNamespace(memory=0)), {})


SMALLEST = {
    "lewm": "",
    "pldm": "--config.data.frames=4 --config.objective.rollout=2",
    "dino_wm": "--config.objective.predictor.depth=1 --config.data.size=24",
}


def test_a_run_plays_in_the_world_that_it_was_trained_on():
    """Another world of the package is refused. Recorded episodes do not say whose they are, so --env does."""

    def chosen(env):
        return SimpleNamespace(env=env, checkpoint="runs/x")

    stored, recorded = SimpleNamespace(simulator=ROOMS), SimpleNamespace(stride=3, __getitem__=None)
    for source in (ROOMS, stored):
        assert players.world_of(chosen(""), source, 8) is players.world_of(chosen("rooms"), source, 8) is ROOMS
        with pytest.raises(ConfigError, match="--env=push: the run of --checkpoint was trained on Rooms"):
            players.world_of(chosen("push"), source, 8)
    assert players.world_of(chosen("push"), recorded, 24) == Push(size=24)
    with pytest.raises(ConfigError, match="--checkpoint=runs/x: SimpleNamespace has no actions: name a world with"):
        players.world_of(chosen(""), recorded, 24)


def test_actions_of_recorded_episodes_are_those_of_the_world():
    class Recorded(list):
        stride = 3

    chosen = SimpleNamespace(env="push", checkpoint="runs/x")
    episodes = Recorded([{"actions": np.zeros((4, 6))}])
    assert players.stride_of(chosen, episodes, Push(size=16)) == 3
    for wrong in (2, 7):
        episodes[0] = {"actions": np.zeros((4, wrong))}
        with pytest.raises(ConfigError, match=f"an action has {wrong} components in the run, 6 in push"):
            players.stride_of(chosen, episodes, Push(size=16))


def test_a_model_of_recorded_episodes_plans_in_blocks_and_in_their_units():
    """A model that reads the dot, and that only these units move as the world does: it reaches the goals."""
    world, (mean, deviation) = dataclasses.replace(ROOMS, look="channels"), (np.array([3, -2]), np.array([0.5, 4.0]))
    source, calls = SimpleNamespace(stride=2, spread=(mean, deviation)), []

    def dot(_, images):
        share, place = images[..., 0].astype(jnp.float32), (jnp.arange(32) + 0.5) / 32
        sums = jnp.stack([(share.sum(1) * place).sum(1), (share.sum(2) * place).sum(1)], -1)
        return sums / share.sum((1, 2))[:, None]

    def predict(_, context, actions):
        calls.append(actions.shape)
        each = actions.reshape(*actions.shape[:2], 2, 2) * deviation + mean
        return context + world.speed * jnp.cumsum(each.sum(2), 1)

    mpc = dataclasses.replace(MPC_, horizon=3, block=2)
    policy = control.by_model(world, WorldModel(dot, predict), mpc, 0, source)
    assert played("room", policy, world=world).once.all() and {shape[1:] for shape in calls} == {(3, 4)}
    ceiling = control.by_simulator(world, mpc, 0).controller.mpc
    assert (ceiling.horizon, ceiling.receding, ceiling.block) == (6, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_trained_world_model_plays(name, tmp_path, capsys):
    """A run of two steps, from its folder to the table."""
    train = f"--config=configs/family/{name}.py {SMALLEST[name]} --config.train.steps=2 --config.train.batch=4"
    where = [f"--workdir={tmp_path / 'run'}", "--config.log.tensorboard=False", "--config.log.report=False"]
    where += ["--config.probe.every=0", "--config.checkpoint.best="]
    subprocess.run([sys.executable, "-m", "cjepa_jax.train", *train.split(), *where], check=True, cwd=ROOT)
    few = "--episodes=2 --steps=3 --samples=8 --elites=4 --iterations=1 --horizon=4 --receding=2 --inits=1"
    assert command.main([f"--checkpoint={tmp_path / 'run'}", *few.split()]) == 0
    rows = {row["name"]: row["kind"] for row in json.loads((tmp_path / "run/control/results.json").read_text())["rows"]}
    about = json.loads((tmp_path / "run/control/results.json").read_text())["about"]
    assert about["checkpoint"] == f"{tmp_path / 'run'}, step 2"
    assert rows["trained"] == "result" and rows["random init 0"] == "floor" and len(rows) == 7
    assert command.main([f"--checkpoint={tmp_path / 'run/checkpoints'}", *few.split()]) == 0
    assert not (tmp_path / "run/checkpoints/control").exists()
    with pytest.raises(ConfigError, match="has no actions|does not predict"):
        command.main([f"--checkpoint={ROOT / 'tests/golden/run_of_0.1'}", "--env=rooms"])


@pytest.mark.slow
def test_a_trained_policy_plays(tmp_path):
    """A run of configs/family/act_jepa.py of two steps, from its folder to the table."""
    train = "--config=configs/family/act_jepa.py --config.train.steps=2 --config.train.batch=4 --config.data.frames=8"
    where = [f"--workdir={tmp_path / 'run'}", "--config.log.tensorboard=False", "--config.log.report=False"]
    subprocess.run([sys.executable, "-m", "cjepa_jax.train", *train.split(), *where], check=True, cwd=ROOT)
    few = "--episodes=2 --steps=3 --samples=8 --elites=4 --iterations=1 --receding=3 --inits=1 --task=any"
    assert command.main([f"--checkpoint={tmp_path / 'run'}", *few.split()]) == 0
    rows = {row["name"]: row["kind"] for row in json.loads((tmp_path / "run/control/results.json").read_text())["rows"]}
    assert rows["trained"] == "result" and rows["random init 0"] == "floor" and len(rows) == 7
    with pytest.raises(ConfigError, match="--receding=7: must be at most objective.chunk = 6"):
        command.main([f"--checkpoint={tmp_path / 'run'}", "--receding=7"])


@pytest.mark.parametrize(
    ("words", "message"),
    [("", "--checkpoint or --env is missing"), ("--env=room", "--env=room: must be nudge, push, rooms or gym:ID"),
     ("--env=rooms --episodes=0", "--episodes=0: must be within 1 and 10000"),
     ("--env=rooms --task=wall", "--task=wall: Rooms has door, room, any"),
     ("--env=rooms --elites=200", "^--elites=200: must be at most --samples=128"),
     ("--env=rooms --vary=size=32", "--vary=size=32: Rooms has door, ink, look, radius"),
     ("--env=rooms --vary=speed=a", "--vary=speed=a: the value must be a number"),
     ("--env=rooms --vary=speed={[]:1}", "--vary=speed=.*: the value must be a number"),
     ("--env=rooms --vary=speed=9", "data.options.speed is 9"),
     ("--env=rooms --receding=20", "^--receding=20: must be an integer within 1 and 12"),
     ("--env=rooms --episodes=10000 --steps=10000 --workdir=/proc/nowhere", "^--workdir=/proc/nowhere: cannot be u"),
     ("--env=rooms --std=nan", "--std=nan: must be above 0")],
)  # fmt: skip
def test_a_wrong_command_line_is_refused_in_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as error:
        command.main(words.split())
    assert "\n" not in str(error.value)


def test_world_models_that_a_planner_alone_cannot_use_are_refused():
    chosen = SimpleNamespace(checkpoint="runs/x", agent=False, over="sum")
    plain = lewm.get_config().objective
    state = build.build(plain, proprio=True, steps=1)
    with pytest.raises(ConfigError, match="objective.proprio = True: nothing here predicts the agent's state"):
        players.fits_planner(chosen, state)
    players.fits_planner(chosen, build.build(plain, steps=1))
    remembering = build.build(jepa2022.get_config().objective, steps=1)
    with pytest.raises(ConfigError, match="its memory of the first frames is the agent's: add --agent"):
        players.fits_planner(chosen, remembering)
    players.fits_planner(SimpleNamespace(checkpoint="runs/x", agent=True), remembering)
    for words, objective, message in (
        (dict(over="last"), remembering, "--over=last: the agent's cost is a sum over all steps"),
        ({}, SimpleNamespace(memory=0, latent="tokens"), "objective.latent = 'tokens': its critic needs one vector"),
        ({}, SimpleNamespace(), "SimpleNamespace is not a world model of this package"),
    ):
        asked = SimpleNamespace(**dict(task="door", vary=[], over="sum") | words)
        with pytest.raises(ConfigError, match=message):
            players.agents(asked, MPC_, ROOMS, SimpleNamespace(objective=objective), {})
