"""Planning with an encoder's slots of pictures, from the folders of two runs and of the slots on."""

import dataclasses
import functools
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax import optim, train_step
from cjepa_jax.configuration import build
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.data import slot_files, slot_writer
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.data.worlds.acting import Push
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import control, slot_control
from cjepa_jax.extract import __main__ as extract
from cjepa_jax.extract import encoders
from cjepa_jax.objectives.slots import Slots
from cjepa_jax.objectives.world import World
from cjepa_jax.planning import __main__ as command
from cjepa_jax.planning import players, slot_encoder
from cjepa_jax.planning.cem import CEM
from cjepa_jax.planning.mpc import MPC, WorldModel
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.types import Batch
from configs.slots import pusht, savi
from tests import run_folders

FRAMES, SKIP = 11, 2
SAVI = dict(slots=3, width=8, channels=(4,), embed=8, hidden=8, units=8, iterations=2, decoder=(4, 4), strides=(2, 1))
FEW = "--episodes=2 --steps=5 --samples=6 --elites=3 --iterations=1 --horizon=2 --inits=1"
MPC_ = MPC(CEM(samples=6, elites=3, iterations=1, low=-1.0, high=1.0), horizon=2, block=SKIP)


def encoder_run(folder, source="cjepa_jax.data.worlds.acting:Push"):
    """The folder of a slot encoder of the world's pictures, without the training."""
    c = (
        run_folders.config(savi, data__frames=2, data__size=16, probe__train=2, probe__test=2)
        .copy_and_resolve_references()
        .unlock()
    )
    c.data.update(dict(source=source, count=3, eval_count=4, options=ConfigDict(dict(policy="mixed"))))
    c.objective.savi.update(SAVI)
    c.objective.patch = 8
    return run_folders.write(folder, c, steps=(2,))


def predictor_run(folder, slots, auxiliary=("proprio", "action")):
    """The folder of a slot predictor of a folder of slots, without the training."""
    c = run_folders.config(pusht, probe__train=2, probe__test=2).copy_and_resolve_references().unlock()
    options = ConfigDict(dict(skip=SKIP, stride=1, standardise=True))
    c.data.update(dict(path=str(slots), frames=4, count=0, eval_count=4, options=options))
    c.objective.auxiliary = auxiliary
    c.objective.slot_predictor = ConfigDict(dict(depth=1, heads=2, units=8, norm_attention=True))
    source = SlotFiles("train", str(slots), frames=4, **options)
    scene = {name: array[None] for name, array in source[0].items()}
    tokens = 4 * source.slots
    fields = dict.fromkeys(Batch.__dataclass_fields__) | scene
    fields |= dict(object_patches=np.ones((1, source.slots, tokens), bool), context=np.ones((1, tokens), bool))
    objective = build.build(c.objective, steps=1, dtype="float32")
    state = jax.jit(functools.partial(train_step.init_state, objective, optim.make(c.optim), 0))(Batch(**fields))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_lib.resolve(c)))
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    checkpoints.save(1, state)
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(the encoder's run, the folder of its slots, the predictor's run)."""
    root = tmp_path_factory.mktemp("encoded")
    encoder = encoder_run(root / "encoder")
    assert extract.main([f"--checkpoint={encoder}", f"--frames={FRAMES}", f"--out={root / 'slots'}"]) == 0
    return encoder, root / "slots", predictor_run(root / "predictor", root / "slots")


def chosen(runs, **changes):
    encoder, _, predictor = runs
    fields = dict(checkpoint=str(predictor), encoder=str(encoder), backbone=None, env="", protocol="", trust="")
    return SimpleNamespace(**fields | changes)


def objective(auxiliary=("action",)):
    return SimpleNamespace(auxiliary=auxiliary)


def windows(slots):
    return SlotFiles("train", str(slots), frames=4, skip=SKIP, stride=1, standardise=True)


def test_a_worlds_own_clips_are_extracted_with_their_actions_and_states(runs):
    world, split = Push(frames=FRAMES, count=3, size=16), json.loads((runs[1] / "videos.json").read_text())
    actions, proprio = (np.load(runs[1] / f"{name}.npy") for name in ("actions", "proprio"))
    assert split["train"]["frames"] == [FRAMES] * 3 and split["eval"]["frames"] == [FRAMES] * 4
    for i, start in enumerate(split["train"]["starts"]):
        scene, rows = world[i], slice(start, start + FRAMES)
        np.testing.assert_array_equal(actions[rows], scene["actions"])
        np.testing.assert_array_equal(proprio[rows], scene["proprio"])
    held = dataclasses.replace(world, split="eval", count=4)[0]
    np.testing.assert_array_equal(actions[split["eval"]["starts"][0] :][:FRAMES], held["actions"])


def test_slots_seen_while_playing_are_those_of_the_extraction(runs):
    """Of the training's episodes, two at once: slots, states in the run's units, and every second frame."""
    source = windows(runs[1])
    playing = slot_encoder.opened(chosen(runs), source, objective(("proprio", "action")), None)
    assert isinstance(playing.world, Push) and playing.world.size == playing.encoder.size == 16
    world = dataclasses.replace(playing.world, frames=FRAMES)
    states, actions = zip(*(world.trajectory(world.setup(i)) for i in range(2)), strict=True)
    starts = [source.starts[i] for i in range(2)]
    policy = slot_control.by_slots(world, source, objective(), {}, mpc=MPC_, seed=0, memory=3, encoder=playing.encoder)
    sight, shown = policy.sight, []
    policy.controller = SimpleNamespace(size=2, start=lambda *_: None, aim=lambda _: None, act=shown.append)
    policy.start(control.Tasks(np.arange(2), *(np.stack([own[t] for own in states]) for t in (0, -1))))
    for t in range(1, FRAMES):
        policy.watch(np.stack([own[t] for own in states]), np.stack([own[t - 1] for own in actions]))
        if t == 6:
            policy.act(np.zeros(0))
    (seen,) = shown
    for i, first in enumerate(starts):
        window = source.windows(np.array([int(source.before[i]) + 2]))  # frames 2, 4, 6 and 8
        np.testing.assert_allclose(seen["slots"][i], window["video"][0, :3, 0], atol=2e-6)
        np.testing.assert_allclose(seen["proprio"][i], window["proprio"][0, :3], atol=1e-5)
        units = control.as_recorded(source, 2, seen["actions"])
        np.testing.assert_allclose(units[i], window["actions"][0, :2], atol=1e-5)
        whole = np.load(runs[1] / "slots.npy")[first : first + FRAMES]
        np.testing.assert_allclose(sight.slots[i], whole[-1], atol=2e-6)


def test_the_goals_slots_start_from_those_of_the_present_frame(runs):
    found, _ = encoders.of(str(runs[0]), size=0, seed=0, noise=False, backbone="", trust="")
    world, encoder = Push(size=16, split="test"), slot_control.Encoder(found.recurrent, 16, "")
    tasks = control.draw_tasks(world, "episode", 2)
    sight = slot_control.OfPictures(world, encoder, windows(runs[1]), 0)
    sight.begin(tasks)
    first = sight.look(tasks.starts)
    goal = sight.goal()
    for i in range(2):
        start = found.recurrent.first(0, np.zeros(1, int))._replace(start=first["slots"][i : i + 1])
        wanted, _ = found.recurrent.step(world.picture(tasks.goals[i : i + 1]), start)
        np.testing.assert_allclose(goal["slots"][i], wanted[0], atol=2e-6)
    np.testing.assert_array_equal(sight.goal()["slots"], goal["slots"])  # looking at it moves nothing
    sight.look(tasks.goals)
    assert np.abs(sight.goal()["slots"] - goal["slots"]).max() > 1e-4


def test_the_model_gets_actions_in_the_units_of_its_data():
    """Blocks of two frames of two numbers: each frame's minus the mean, divided by the deviation."""
    model = WorldModel(lambda params, seen: seen["actions"], lambda params, context, actions: actions)
    data = SimpleNamespace(spread=(np.array([0.5, -1.0]), np.array([2.0, 4.0])))
    mine = slot_control.in_units(model, data, 2)
    given, wanted = np.array([[[0.5, 1.0, 1.0, -1.0]]]), [[[0.0, 0.5, 0.25, 0.0]]]
    np.testing.assert_allclose(mine.encode(None, {"actions": given}), wanted)
    np.testing.assert_allclose(mine.predict(None, None, given), wanted)


def test_larger_pictures_are_reduced_as_the_recorded_ones(runs, tmp_path):
    found, _ = encoders.of(str(runs[0]), size=0, seed=0, noise=False, backbone="", trust="")
    slots = shutil.copytree(runs[1], tmp_path / "slots")
    journal, drawn = (slots / "slots.jsonl").read_text(), f'"{slot_writer.PIXELS}": '
    assert f"{drawn}16" in journal
    (slots / "slots.jsonl").write_text(journal.replace(f"{drawn}16", f"{drawn}32"))
    playing = slot_encoder.opened(chosen(runs), windows(slots), objective(), "Push")
    assert playing.world.size == 32 and playing.encoder.size == 16
    tasks = control.draw_tasks(playing.world, "episode", 2)
    sight = slot_control.OfPictures(playing.world, playing.encoder, windows(slots), 0)
    sight.begin(tasks)
    pictures = playing.world.picture(tasks.starts).reshape(2, 16, 2, 16, 2, 3).mean((2, 4))  # by area
    wanted, _ = found.recurrent.step(np.rint(pictures).astype(np.uint8), found.recurrent.first(0, np.arange(2)))
    np.testing.assert_allclose(sight.look(tasks.starts)["slots"], wanted, atol=0.05)


@pytest.mark.parametrize("protocol", [False, True])
def test_the_command_plays_every_row(runs, tmp_path, protocol):
    flags = [f"--checkpoint={runs[2]}", f"--encoder={runs[0]}", *FEW.split()]
    flags += ["--protocol=published", "--seeds=1", "--receding=2"] if protocol else []
    assert command.main([*flags, f"--workdir={tmp_path / 'one'}"]) == 0
    report = json.loads((tmp_path / "one/results.json").read_text())
    rows = {row["name"]: row["kind"] for row in report["rows"]}
    assert rows.pop("true simulator", "ceiling") == "ceiling"
    floors = ("random init 0", "nothing", "random actions", "policy weak", "straight line")
    assert rows == {"trained": "result", **dict.fromkeys(floors, "floor"), "expert": "ceiling"}
    about = report["about"]
    assert about["distance"] == "matched_slots" and "made the slots" in about["encoder"]
    horizon = 1 if protocol else 2  # blocks of two frames
    assert f"horizon={horizon}" in about["planning"] and f"block={SKIP}" in about["planning"]


def test_a_plan_is_the_same_from_the_same_seed_and_acts_in_blocks(runs):
    flags = dict(agent=False, inits=0, horizon=2, receding=1, size=64)
    world, mpc, make = players.opened(chosen(runs, **flags), dataclasses.replace(MPC_, block=1))
    assert isinstance(world, Push) and mpc.block == SKIP
    policy = make()[0]["trained"][1](world, 0)
    tasks = control.draw_tasks(control.drawn_from(world, 7, 2), "episode", 2)
    one, same = (control.play(world, tasks, policy, 3).states for _ in range(2))
    np.testing.assert_array_equal(one, same)
    policy.start(tasks)
    first = policy.act(tasks.starts)
    assert first.shape == (2, SKIP, 2) and np.abs(first).max() <= 1
    policy.controller.seed = 1
    policy.start(tasks)
    assert (policy.act(tasks.starts) != first).any()


def test_an_encoder_that_does_not_fit_is_refused_in_one_line(runs, tmp_path):
    encoder, slots, predictor = runs
    other, source = encoder_run(tmp_path / "other"), windows(slots)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with slot_files.writing(tmp_path / "wide") as write:  # without a journal, as of a pickle
        write("train", "0", np.zeros((9, 4, 8), np.float32))
    wide = SlotFiles("train", str(tmp_path / "wide"), frames=4)
    for change, given, name, message in (
        (
            dict(encoder=None),
            source,
            None,
            "^--encoder is missing: --checkpoint=.* an encoder's slots, those in data.path",
        ),
        (dict(encoder=str(other)), source, None, "^--encoder=.*other: has SHA-256 .* made with .*: must be the same$"),
        (dict(encoder=str(predictor)), wide, None, "predictor: objective.type = .*Slots': must be a slot encoder"),
        (dict(encoder="nothing"), source, None, "^--encoder=nothing: there is no such file or folder$"),
        (dict(backbone=str(tmp_path)), source, None, "^--backbone=.*: has SHA-256 .*, the slots .* made with none"),
        ({}, wide, None, "gives 3 slots of 8 numbers: must be the 4 of 8 in data.path = .*wide$"),
        (dict(env="nudge"), source, "Nudge", "^--env=nudge: the encoder of --encoder was trained on Push"),
        ({}, TrueSlots(of="cjepa_jax.data.worlds.acting:Push", count=2), None, "not for one of TrueSlots$"),
    ):
        with pytest.raises((ConfigError, DataError), match=message) as caught:
            slot_encoder.opened(chosen(runs, **change), given, objective(), name)
        assert "\n" not in str(caught.value)
    for change, what, message in (
        (dict(env="gym:X"), Slots, "^--env=gym:X: a model of slots plays in a world of this package$"),
        ({}, World, "^--encoder=.*: is for a slot predictor, not for World$"),
    ):
        with pytest.raises(ConfigError, match=message):
            players.encoding(chosen(runs, **change), source, object.__new__(what))
    for flags, message in (
        (["--encoder=x", "--env=push"], "^--encoder=x: name the run of a slot predictor with --checkpoint$"),
        (["--backbone=x", "--env=push"], "^--backbone=x: is for --encoder$"),
        (
            ["--checkpoint=y", "--encoder=x", "--size=32"],
            "^--size=32: not with --encoder, which decides the size of frames$",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            command.main(flags)
    with pytest.raises(ConfigError, match="^--noise: .* has objective.savi.noise = False: must be a run that drew"):
        extract.main([f"--checkpoint={encoder}", "--noise", f"--out={tmp_path / 'x'}"])
    with pytest.raises(ConfigError, match="^--frames=4: is for a run's own data"):
        extract.main([f"--checkpoint={encoder}", "--videos=x", "--frames=4", f"--out={tmp_path / 'x'}"])


def test_recorded_numbers_that_are_not_the_worlds_are_refused_in_one_line(runs, tmp_path):
    cases = (
        (
            "actions",
            lambda x: 300 * x,
            "column 0 of .*actions.npy is within .*: must be within -1 and 1, the actions of",
        ),
        (
            "proprio",
            lambda x: 512 * x,
            "column 0 of .*proprio.npy .*: must be within 0 and 1, the view widths of Push$",
        ),
        ("proprio", lambda x: x[:, :3], "proprio.npy has 3 numbers in a row: must be the 4 of Push$"),
    )
    for i, (name, change, message) in enumerate(cases):
        slots = shutil.copytree(runs[1], tmp_path / f"slots{i}")
        np.save(slots / f"{name}.npy", np.ascontiguousarray(change(np.load(slots / f"{name}.npy"))))
        with pytest.raises(ConfigError, match=message) as caught:
            slot_encoder.opened(chosen(runs), windows(slots), objective(("proprio", "action")), None)
        assert "\n" not in str(caught.value)


def test_a_plan_is_a_whole_number_of_blocks(runs):
    source = windows(runs[1])
    frames = dataclasses.replace(MPC_, horizon=4, receding=2, block=1)
    own = slot_encoder.blocks(chosen(runs, protocol="published"), source, frames)
    assert (own.horizon, own.receding, own.block) == (2, 1, SKIP)
    for protocol, horizon, message in (
        ("published", 3, "^--horizon=3: must be a multiple of the run's data.options.skip = 2 with --protocol$"),
        ("", 6000, "^--horizon=6000: must be at most 5000, because an action of the run is 2 frames$"),
    ):
        with pytest.raises(ConfigError, match=message):
            slot_encoder.blocks(chosen(runs, protocol=protocol), source, dataclasses.replace(MPC_, horizon=horizon))
