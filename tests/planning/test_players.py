"""Who plays: runs of worlds that were written to disk and of recorded episodes, from their folders on."""

import functools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax.data import build
from cjepa_jax.data.formats import episode_file
from cjepa_jax.data.worlds.acting import Rooms
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import agent
from cjepa_jax.planning import __main__ as command
from cjepa_jax.planning import players
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.mpc import MPC
from cjepa_jax.runtime.checkpoint import Checkpoints
from configs.family import jepa2022, lewm
from tests import run_folders
from tests.objectives.test_act import made

FEW = "--episodes=2 --steps=4 --samples=8 --elites=4 --iterations=1 --horizon=2 --inits=0 --task=room"
FILE = "cjepa_jax.data.sources.episode_file:EpisodeFile"


def config(base=lewm, options=None, **data):
    """A config of almost no size. `data` and `options` are those of its data."""
    found = run_folders.config(base, data__frames=3, data__size=16).copy_and_resolve_references().unlock()
    found.probe.every = 0
    found.data.update(data)
    found.data.options = ConfigDict(options or found.data.options)
    return found


def run_of(folder, made):
    """A run's folder, without the training. No number of its state is negative, as a variance has to be."""
    run_folders.write(folder, made, steps=())
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    checkpoints.save(2, jax.tree.map(np.abs, run_folders.state_of(made)))
    checkpoints.close()
    return folder


def written(path):
    """Episodes of Rooms with actions far from the mean 0 and the deviation 1. Returns all actions."""
    found = []
    with episode_file.Recorder(path) as out:
        for scene in Rooms(size=16, frames=12, count=12):
            found.append(0.2 * scene["actions"][:-1] + np.array([0.5, -0.25]))
            out.add(scene["video"], found[-1])
    return np.concatenate(found)


def of_episodes(tmp_path, name, base=lewm, size=16, frames=3, **options):
    """The folder of a run on tmp_path/rooms.h5, the same state for each name."""
    options = dict(stride=1, hop=1, held=0.2, standardise=False) | options
    found = config(base, options, source=FILE, path=f"{tmp_path / 'rooms.h5'}", size=size, frames=frames, count=0)
    return run_of(tmp_path / name, found)


def on_disk(folder, stored, size):
    """The folder of a run on a world on disk, which has the parameters of one on the world."""
    run_of(folder, config(size=size))
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | {"data": found["data"] | stored}))
    return folder


def test_an_agent_does_not_learn_before_its_report_has_a_folder(tmp_path, monkeypatch):
    run, learned = run_of(tmp_path / "run", config(jepa2022, frames=6)), []
    monkeypatch.setattr(agent, "learn", lambda *given, **named: learned.append(given))
    with pytest.raises(ConfigError, match="^--workdir=/proc/nowhere: cannot be used as a run folder"):
        command.main([f"--checkpoint={run}", "--agent", *FEW.split(), "--workdir=/proc/nowhere"])
    assert not learned


@pytest.mark.slow
def test_a_run_of_a_world_on_disk_plays_there_and_not_in_smaller_pictures(tmp_path, capsys):
    data, run = tmp_path / "rooms", tmp_path / "run"
    few = "--world=rooms --split=train --count=4 --size=16 --frames=3 --workers=1"
    build.main([*few.split(), '--options={"wall": [0.4, 0.4]}', f"--out={data}"])
    stored = dict(source="cjepa_jax.data.sources.records:Records", path=f"{data}", options={}, count=4)
    assert command.main([f"--checkpoint={on_disk(run, stored, 16)}", *FEW.split()]) == 0
    result = json.loads((run / "control/results.json").read_text())
    rows = {row["name"]: row["kind"] for row in result["rows"]}
    assert rows["trained"] == "result" and len(rows) == 6
    assert "wall=(0.4, 0.4)" in result["about"]["world"] and "block=1" in result["about"]["planning"]
    with pytest.raises(ConfigError, match="the run has data.size = 8, its stored frames have 16: must be equal here"):
        command.main([f"--checkpoint={on_disk(tmp_path / 'small', stored, 8)}", *FEW.split()])


@pytest.mark.slow
@pytest.mark.needs("h5py")
def test_a_run_of_recorded_episodes_plans_in_their_blocks_and_units(tmp_path, capsys):
    """One model gets plans unchanged, the same model in standard deviations from the mean."""
    actions = written(tmp_path / "rooms.h5")
    chosen = dict(env="rooms", encoder=None, trust="", protocol="", agent=False, inits=0, horizon=3, receding=1)
    models = []
    for name, standardise in (("plain", False), ("standard", True)):
        run = of_episodes(tmp_path, name, stride=2, standardise=standardise)
        own = MPC(CEM(samples=8, elites=4, iterations=1, low=-1.0, high=1.0), horizon=3)
        world, mpc, make = players.opened(SimpleNamespace(**chosen, checkpoint=run), own)
        assert isinstance(world, Rooms) and world.size == 16 and mpc.block == 2
        models.append(make()[0]["trained"][1](world, 0).controller.model)
    plain, standard = (jax.jit(functools.partial(model.predict, model.params)) for model in models)
    seen = Rooms(size=16, frames=2)[0]["video"][:1]
    context = jax.jit(models[0].encode)(models[0].params, seen)[0]
    plans = np.random.default_rng(0).uniform(-1, 1, (5, 3, 4)).astype(np.float32)
    units = (plans - np.tile(actions.mean(0), 2)) / np.tile(actions.std(0), 2)
    expected = plain(context, units)
    np.testing.assert_allclose(standard(context, plans), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(plain(context, plans) - expected).max() > 0.01


@pytest.mark.needs("h5py")
@pytest.mark.parametrize(
    ("words", "base", "options", "message"),
    [("--agent", jepa2022, {"frames": 5, "stride": 2}, "--agent: the run's episodes have stride = 2 and standar"),
     ("--agent", jepa2022, {"frames": 5, "standardise": True}, "have stride = 1 and standardise = True: must be 1 and"),
     ("--horizon=4", lewm, {"stride": 3}, "--horizon=4: must be at most 3, because an action of the run is 3 frames"),
     ("", lewm, {"size": 8}, "the run has data.size = 8, its stored frames have 16: must be equal here")],
)  # fmt: skip
def test_what_recorded_episodes_do_not_allow_is_refused(tmp_path, monkeypatch, words, base, options, message):
    written(tmp_path / "rooms.h5")
    monkeypatch.setattr("cjepa_jax.planning.mpc.MOST_FRAMES", 11)
    run = of_episodes(tmp_path, "run", base, **options)
    with pytest.raises(ConfigError, match=message) as error:
        command.main([f"--checkpoint={run}", "--env=rooms", *FEW.split(), *words.split()])
    assert "\n" not in str(error.value) and not (run / "control").exists()


def test_a_policy_of_standardised_actions_plays_in_the_worlds_units():
    """With all parameters 0 but the last bias it gives that bias in each frame."""
    objective, params, *_ = made()
    chosen, params = SimpleNamespace(receding=1, checkpoint="runs/x"), jax.tree.map(np.zeros_like, params)
    out = dict(kernel=params["decoder"]["out"]["kernel"][:, :2], bias=np.array([1.0, -2.0], np.float32))
    state = SimpleNamespace(params=params | {"decoder": params["decoder"] | {"out": out}})
    source = SimpleNamespace(spread=(np.array([0.5, 0.1]), np.array([0.25, 0.05])))
    world = Rooms(size=16, frames=2)
    starts = np.stack([world.task(i, "any").start for i in range(2)])
    for given, expected in ((source, [0.75, 0.0]), (None, [1, -2])):
        policy = players.imitating(chosen, objective, state, world, given)(world, 0)
        policy.start(SimpleNamespace(goals=starts))
        np.testing.assert_allclose(policy.act(starts), np.tile(np.array(expected), (2, 1, 1)), atol=1e-6)
