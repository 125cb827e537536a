"""Gymnasium's environments: frames, actions, goals and success as a model and the table get them, and the command."""

import json
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.data.formats import episode_file
from cjepa_jax.data.worlds.acting import Rooms
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import control
from cjepa_jax.evals.gymnasium import Environment
from cjepa_jax.objectives.act import Act
from cjepa_jax.objectives.world import World
from cjepa_jax.planning import __main__ as command
from cjepa_jax.planning import players
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.costs import unroll
from cjepa_jax.planning.mpc import MPC, WorldModel
from tests.running import ROOT

LINE = "tests.evals.line:Line-v0"
GOAL = {"place": 0.8}
FEW = "--episodes=3 --steps=8 --samples=8 --elites=4 --iterations=1 --horizon=4 --size=16"
pytestmark = pytest.mark.needs("gymnasium")


def moved(actions, world):
    """The records after constant actions, [E,T], in the tasks 0 to E - 1."""
    tasks = control.draw_tasks(world, "episode", len(actions))
    step = world.stepper(tasks.starts)
    return tasks, np.stack([step(np.array(actions)[:, None]) for _ in range(12)], 1)


def column(states):
    """Where the column is in records."""
    return states["image"][..., 0, :, 0].argmax(-1)


def test_tasks_follow_from_the_seed_and_frames_are_those_that_the_model_saw():
    world = Environment(LINE, goal=GOAL, size=16, seed=3)
    tasks = control.draw_tasks(world, "episode", 6)
    again, other = (control.draw_tasks(control.drawn_from(world, seed, 9), "episode", 6) for seed in (3, 4))
    np.testing.assert_array_equal(tasks.starts, again.starts)
    assert len(set(tasks.starts["seed"]) | set(other.starts["seed"])) == 12 and len(set(column(tasks.starts))) > 2
    assert (column(tasks.goals) == 12).all() and tasks.goals["image"].shape == (6, 16, 16, 3)
    small = Environment(LINE, goal=GOAL, size=8).task(0)
    assert small.start["image"].shape == (8, 8, 3) and set(np.unique(small.goal["image"])) == {0, 128}  # by area
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = 200
    assert (world.shown(wide, "") == 200).all()  # the centred square


def test_actions_reach_the_ends_of_the_box_and_an_episode_that_is_over_stays():
    world = Environment(LINE, goal=GOAL, size=16, options={"ends": False})
    tasks, states = moved([-9.0, 0.0, 0.2, 1.0], world)
    np.testing.assert_array_equal(states[[0, 3]], moved([-1.0, 0.0, 0.0, 9.0], world)[1][[0, 3]])
    np.testing.assert_allclose(world.native(np.array([[-1.0], [0.0], [0.5], [1.0]]))[:, 0], [0, 2, 3, 4])
    assert (column(states[1]) == column(tasks.starts[1])).all() and not states["success"][:2].any()
    assert column(states[0, -1:]) == [0] and column(states[2, 4:5]) - column(tasks.starts[2:3]) in (1, 2)
    assert states["success"][3].any() and not states["success"][3, -1]  # it passes the goal


def test_success_is_the_environments_word():
    """Its flag. Without one, that the episode ended."""
    for flags, ends, expected in (
        (True, True, (True, True)),
        (True, False, (True, False)),
        (False, False, (True, True)),
    ):
        world = Environment(LINE, goal=GOAL, size=16, options={"flags": flags, "ends": ends})
        tasks = control.draw_tasks(world, "episode", 2)
        trials = control.play(world, tasks, control.Scripted(lambda states, goals: np.ones((2, 1))), 16)
        assert (trials.once.all(), trials.end.all()) == expected
        first = np.flatnonzero(trials.reached[0])[0] + 1
        assert len(next(control.films(world, tasks, trials))) == first + 1
        if ends:  # the last state stays
            np.testing.assert_array_equal(trials.states[0, first:], np.repeat(trials.states[0, first], 17 - first))


def test_a_goal_is_the_environments_or_that_of_a_reset_or_of_a_file(tmp_path):
    pytest.importorskip("h5py")
    with episode_file.Recorder(tmp_path / "goals.h5") as out:
        for last in (3, 5):
            video = np.zeros((4, 16, 16, 3), np.uint8)
            video[-1, :, last] = 255
            out.add(video, np.zeros((4, 1)))
    file = Environment(LINE, goal=str(tmp_path / "goals.h5"), size=16)
    assert column(control.draw_tasks(file, "episode", 3).goals).tolist() == [3, 5, 3]
    shown = Environment(LINE, size=16, options={"shows": True, "end": 0.5})
    assert column(control.draw_tasks(shown, "episode", 2).goals).tolist() == [8, 8]
    with pytest.raises(ConfigError, match=r"Line-v0: its reset gives no image info\['goal'\]"):
        Environment(LINE).task(0)


def test_a_world_model_plans_in_the_units_of_its_data():
    """One that finds the column, and knows what actions of the file do: two per row, standardised."""
    mean, deviation = 3.5, 0.5
    scale = dict(stride=2, mean=np.array([mean]), deviation=np.array([deviation]))
    world = Environment(LINE, goal={"place": 0.1}, size=16, options={"end": 0.1, "ends": False}, **scale)

    def place(_, images):
        return (images[:, 0, :, 0].argmax(-1)[:, None] + 0.5) / 16

    step = unroll(lambda places, row: places + 0.05 * (row * deviation + mean - 2).sum(-1, keepdims=True))
    model = WorldModel(place, lambda _, context, actions: step(context, actions))
    mpc = MPC(CEM(samples=64, elites=8, iterations=4, low=-1.0, high=1.0), horizon=4, over="sum")
    policy = control.by_model(world, model, mpc, 0)
    tasks = control.draw_tasks(world, "episode", 4)
    policy.start(tasks)
    assert policy.act(tasks.starts).shape == (4, 2, 1)
    assert control.play(world, tasks, policy, 10).end.all()  # in other units it would pass the goal
    np.testing.assert_allclose(world.as_recorded(jnp.array([[[-1.0, 1.0]]])), [[[-7, 1]]])


def test_environments_are_closed_when_nothing_steps_them_any_more(monkeypatch):
    made = []
    monkeypatch.setattr(Environment, "_made", lambda self, old=Environment._made: made.append(old(self)) or made[-1])
    world = Environment(LINE, goal=GOAL, size=16)
    step = world.stepper(control.draw_tasks(world, "episode", 2).starts)
    assert [env.unwrapped.closed for env in made] == [True, True, True, False, False]
    del step
    assert all(env.unwrapped.closed for env in made)


@pytest.mark.parametrize(
    ("words", "message"),
    [(f"--env=gym:{LINE}", r"--env=gym:tests.evals.line:Line-v0: its reset gives no image"),
     ("--env=gym:Nowhere-v0", "gym:Nowhere-v0: NameNotFound: .*. Name it as gymnasium.make does: ID, or MODULE:ID"),
     ("--env=gym:no.such:Line-v0", "ModuleNotFoundError: No module named 'no'"),
     ("--env=gym:tests.evals.line:Steps-v0", r"Steps-v0: its actions are Discrete\(2\): must be a Box of floats"),
     ("--env=gym:tests.evals.line:Endless-v0", "Endless-v0: its actions have no limits"),
     ("--env=gym:tests.evals.line:Blind-v0", "Blind-v0: has no render_mode 'rgb_array'"),
     ("--env=gym:tests.evals.line:Broken-v0", r"Broken-v0: render\(\) failed: RuntimeError: no; display"),
     ("--env=gym:tests.evals.line:Broken-v0 --options={\"part\":\"step\"}", "failed: RuntimeError: no; force"),
     ("--env=gym:tests.evals.line:Restless-v0", "two resets with one seed show different frames"),
     (f"--env=gym:{LINE} --vary=speed=2", "TypeError: .*unexpected keyword argument 'speed'"),
     (f"--env=gym:{LINE} --task=door", "--task=door: Environment has episode"),
     (f"--env=gym:{LINE} --goal={{place", "--goal={place: must be JSON"),
     (f"--env=gym:{LINE} --goal={{\"place\":\"x\"}}", "reset with the options {'place': .*} failed: ValueError"),
     (f"--env=gym:{LINE} --options=[1]", r"--options=\[1\]: must be JSON, such as"),
     (f"--env=gym:{LINE} --options={{\"shows\":true,\"ned\":1}}", "TypeError: .*unexpected keyword argument 'ned'"),
     ("--env=rooms --goal={}", "--goal={}: is for --env=gym:ID"),
     ("--env=rooms --options={}", "--options={}: is for --env=gym:ID"),
     (f"--env=gym:{LINE} --agent --checkpoint=run", "--agent: needs a world of this package")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as error:
        command.main(words.split())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("objective", "source", "text"),
    [(World, Rooms(size=16), "World of Rooms"), (Act, SimpleNamespace(kind="episodes"), "Act of SimpleNamespace")],
)
def test_a_run_that_knows_no_recorded_episodes_is_refused(objective, source, text):
    chosen = SimpleNamespace(env=f"gym:{LINE}", checkpoint="run", goal="", options="")
    message = f"--checkpoint=run: is {text}. --env=gym:{LINE} needs a world model that was trained on recorded"
    with pytest.raises(ConfigError, match=message):
        players.environment(chosen, 16, source, object.__new__(objective))


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ConfigError, match=r"needs the package gymnasium .*: pip install 'cjepa_jax\[gym\]'"):
        command.main(["--env=gym:Line-v0"])


def test_the_baselines_of_an_environment_that_nobody_knows(tmp_path):
    """Two rows, and two more in the environment with another option."""
    given = [f"--goal={json.dumps(GOAL)}", '--options={"flags": false}']
    assert command.main([f"--env=gym:{LINE}", *given, *FEW.split(), "--vary=end=0.3", f"--workdir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {row["name"]: row["once"]["share"] for row in found["rows"]}
    assert set(rows) == {n + w for n in ("middle action", "random actions") for w in ("", " (end=0.3)")}
    assert rows["middle action"] == 0 and rows["random actions (end=0.3)"] > 0
    assert "options={'flags': False}" in found["about"]["world"] and (tmp_path / "films/middle_action.gif").exists()


@pytest.mark.slow
@pytest.mark.needs("h5py")
def test_from_recorded_episodes_to_the_table(tmp_path):
    """Episodes of random actions, two steps of configs/family/lewm.py on them, and plans in the same environment."""
    import gymnasium

    env, run = gymnasium.make(LINE, render_mode="rgb_array", ends=False), tmp_path / "run"
    env.action_space.seed(0)
    episode_file.record(env, lambda _: env.action_space.sample(), tmp_path / "line.h5", episodes=20, steps=12, seed=0)
    data = "{'hop': 2, 'stride': 2, 'standardise': True, 'held': 0.2}"
    values = {
        "data.source": "cjepa_jax.data.sources.episode_file:EpisodeFile", "data.path": tmp_path / "line.h5",
        "data.options": data, "data.count": 0, "data.eval_count": 8, "data.size": 16, "data.workers": 0,
        "train.steps": 2, "train.batch": 4, "probe.every": 0, "log.tensorboard": False, "log.report": False,
    }  # fmt: skip
    train = [sys.executable, "-m", "cjepa_jax.train", "--config=configs/family/lewm.py", f"--workdir={run}"]
    subprocess.run([*train, *(f"--config.{key}={value}" for key, value in values.items())], check=True, cwd=ROOT)
    play = [f"--checkpoint={run}", *FEW.split(), "--receding=2"]
    assert command.main([*play, f"--env=gym:{LINE}", f"--goal={json.dumps(GOAL)}"]) == 0
    found = json.loads((run / "control/results.json").read_text())
    rows = {row["name"]: row["kind"] for row in found["rows"]}
    assert rows == {
        "trained": "result", "random init 0": "floor", "middle action": "floor", "random actions": "floor",
    }  # fmt: skip
    assert found["about"]["checkpoint"] == f"{run}, step 2" and "stride=2" in found["about"]["world"]
    for words, message in (
        ("--env=gym:tests.evals.line:Plane-v0", "an action has 2 components in the run, 4 in gym:tests.evals.line:Pl"),
        ("--env=", "EpisodeFile has no actions: name a world with --env"),
    ):
        with pytest.raises(ConfigError, match=message):
            command.main([*play, words])
