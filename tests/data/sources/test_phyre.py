"""The PHYRE source and the real simulator. CJEPA_PHYRE_PYTHON names the interpreter. Without it they are skipped."""

import dataclasses
import functools
import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
import time

import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.sources import folder, phyre_client, phyre_worker
from cjepa_jax.data.sources.phyre import FPS, PALETTE, SETUPS, Phyre
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.benchmarks import auccess
from cjepa_jax.masks import objects
from tests.data.sources.test_phyre_client import ended

PYTHON = os.environ.get("CJEPA_PHYRE_PYTHON", "")
real = pytest.mark.needs("phyre")


@pytest.fixture(scope="module")
def source():
    return Phyre(size=256, frames=8, count=3000)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"split": "dev"}, "split is 'dev': must be one of train, eval, test"),
        ({"setup": "ball_within_templates"}, r"data\.options\.setup is .*did you mean 'ball_within_template'"),
        ({"fold": 10}, r"data\.options\.fold is 10: must be an integer in 0 \.\. 9"),
        ({"stride": 0}, r"data\.options\.stride is 0"),
        ({"frames": 4096}, r"data\.frames is 4096"),
        ({"count": True}, r"data\.count is True"),
        ({"timeout": 0}, r"data\.options\.timeout is 0"),
        ({"python": ""}, r"data\.options\.python is '', and so is CJEPA_PHYRE_PYTHON.* python3\.9 -m venv"),
        ({"python": "/no/python"}, r"/no/python: No such file or directory. Make it with: python3\.9 -m venv"),
        ({"python": sys.executable}, r"No module named 'phyre'. Make it with: python3\.9 -m venv .* msgpack"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, text, monkeypatch):
    monkeypatch.delenv("CJEPA_PHYRE_PYTHON", raising=False)
    with pytest.raises(ConfigError, match=text) as error:
        Phyre(**options)
    assert len(str(error.value).splitlines()) == 1


@real
def test_folds_are_phyre_s(source):
    dev, test = (dataclasses.replace(source, split=split) for split in ("eval", "test"))
    names = [set(split.tasks) for split in (source, dev, test)]
    assert [len(n) for n in names] == [1600, 400, 500] and len(set.union(*names)) == 2500
    cross = [Phyre(setup="two_balls_cross_template", fold=7, split=split) for split in ("train", "eval", "test")]
    templates = [{name[:5] for name in split.tasks} for split in cross]
    assert [len(t) for t in templates] == [16, 4, 5] and len(set.union(*templates)) == 25
    assert min(set.union(*templates)) == "00100" and len(cross[0]) == 1600
    assert Phyre(fold=1).tasks != source.tasks


@real
def test_a_scene_has_the_right_shapes_and_consistent_contents(source):
    scene = source[0]
    k = len(scene["masks"])
    assert scene["video"].shape == (8, 256, 256, 3) and scene["video"].dtype == np.uint8
    assert scene["masks"].shape == (k, 8, 256, 256) and scene["masks"].dtype == bool
    assert scene["states"].shape == (8, k, len(source.state_names)) and scene["states"].dtype == np.float32
    assert scene["labels"].shape == (len(source.label_names),) and scene["labels"][0] == k
    assert scene["action"].shape == (3,)
    assert scene["masks"].sum(0).max() == 1  # what is seen is seen once
    background = ~scene["masks"].any(0)
    assert (scene["video"][background] == 255).all() and (scene["video"][~background] != 255).any(-1).all()
    colour = scene["states"][0, :, source.state_names.index("colour/red") :].argmax(-1) + 1
    assert colour[-1] == 1 and (colour[:-1] != 1).all()  # the user's ball is red and last
    for mask, code in zip(scene["masks"], colour, strict=True):
        assert (scene["video"][mask] == PALETTE[code]).all()


@real
def test_an_image_is_the_first_frame_of_the_clip(source):
    image, clip = dataclasses.replace(source, frames=1)[3], source[3]
    assert np.array_equal(image["video"], clip["video"][:1]) and np.array_equal(image["masks"], clip["masks"][:, :1])
    assert np.array_equal(image["states"], clip["states"][:1])


@real
def test_positions_are_those_of_the_pixels_and_velocities_their_rates(source):
    checked = 0
    for i in range(6):
        scene = dataclasses.replace(source, stride=2)[i]
        states = dict(zip(source.state_names, np.moveaxis(scene["states"], -1, 0), strict=True))
        for k, mask in enumerate(scene["masks"]):
            area = np.pi / 4 * (256 * states["size/diameter"][0, k]) ** 2
            if states["shape/ball"][0, k] and mask[0].sum() > 0.95 * area:
                y, x = np.nonzero(mask[0])
                assert abs((x.mean() + 0.5) / 256 - states["position/x"][0, k]) < 0.01
                assert abs((y.mean() + 0.5) / 256 - states["position/y"][0, k]) < 0.01
                checked += 1
        for axis in "xy":
            rate = np.diff(states[f"position/{axis}"], axis=0) * FPS / 2
            np.testing.assert_allclose(rate, states[f"velocity/{axis}"][:-1], atol=1e-4)
        ball = states["velocity/y"][:, -1]
        assert ball[1] > ball[0] or ball[0] <= 0  # gravity points down, and y too
    assert checked > 6


@real
def test_frames_are_those_of_phyre_s_own_rollout(source):
    """Up to the end, which is when the task is solved."""
    for i in (0, 1, 2):
        name, scene = source.tasks[source.order[i]], source[i]
        status, video = source.simulate(name, scene["action"], stride=source.stride)
        assert status in (-1, 1) and video.shape[1:] == (256, 256, 3) and len(video) >= 8
        assert np.array_equal(video[:8], scene["video"])
        before = source.initial_scenes([name])[0]
        ball = scene["masks"][-1, 0]
        assert (video[0][ball] == PALETTE[1]).all()
        if np.array_equal(before[~ball], video[0][~ball]):  # nothing has crossed a pixel's border in the first step
            break
    else:
        raise AssertionError("no first frame is the task's scene with the ball in it")


@real
def test_scenes_are_pure_functions_of_seed_split_and_index(source):
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    for name, value in source[5].items():
        assert np.array_equal(again[5][name], value), name
    first = source[5]["action"]
    assert not np.array_equal(dataclasses.replace(source, seed=1)[5]["action"], first)
    assert not np.array_equal(source[5 + len(source.tasks)]["action"], first)  # the task once more, another action
    assert source.order[5] != 5 and sorted(source.order) == list(range(1600))
    with pytest.raises(IndexError, match="0 to 2999"):
        source[3000]


@real
def test_small_scenes_are_the_large_ones_shrunk(source):
    large, small = source[1], dataclasses.replace(source, size=64)[1]
    assert small["video"].shape == (8, 64, 64, 3) and small["masks"].shape[1:] == (8, 64, 64)
    image, ids = folder.shrink(large["video"][3], large["masks"][0, 3].astype(np.uint8), 64)
    assert np.array_equal(image, small["video"][3]) and np.array_equal(ids > 0, small["masks"][0, 3])
    assert np.array_equal(large["states"], small["states"])
    assert dataclasses.replace(source, size=512)[1]["video"].shape == (8, 256, 256, 3)


@real
def test_do_remove_is_simulated_from_the_same_start(source):
    i = next(i for i in range(20) if len(source[i]["masks"]) > 3)
    scene = source[i]
    k = len(scene["masks"])
    nothing, everything = np.zeros(k, bool), np.ones(k, bool)
    assert np.array_equal(source.intervene(i, nothing), scene["video"])
    assert (source.intervene(i, everything) == 255).all()
    for gone in np.eye(k, dtype=bool)[:: max(1, k // 4)]:
        without = source.rollout(i, gone)
        assert not without["masks"][gone].any() and not without["states"][:, gone].any()
        assert without["labels"][0] == k - 1
        kept = [name for name in source.state_names if not name.startswith("velocity")]
        columns = [source.state_names.index(name) for name in kept]
        # One step after the start, only what touched the removed object can have moved, and not far.
        difference = np.abs(without["states"][0] - scene["states"][0])[~gone][:, columns]
        assert np.minimum(difference, 2 * np.pi - difference).max() < 0.02
        assert np.array_equal(source.intervene(i, gone), without["video"])
    with pytest.raises(DataError, match="removed"):
        source.rollout(i, np.zeros(k + 1, bool))


@real
def test_without_the_user_s_ball_the_action_does_not_matter(source):
    """Two actions at one task, both undone, are the same physics to the bit."""
    n = len(source.tasks)
    scenes = [source[i] for i in (7, 7 + n)]
    assert not np.array_equal(scenes[0]["video"], scenes[1]["video"])
    ball = np.arange(len(scenes[0]["masks"])) == len(scenes[0]["masks"]) - 1
    one, two = (source.rollout(i, ball) for i in (7, 7 + n))
    assert np.array_equal(one["video"], two["video"]) and np.array_equal(one["states"], two["states"])


@real
@pytest.mark.parametrize("setup", SETUPS)
def test_auccess_of_identical_attempts_is_phyre_s_own(setup):
    """A random agent on four tasks, invalid actions and all: its score here and by PHYRE's Evaluator, exactly."""
    source = Phyre(split="test", setup=setup)
    rng = np.random.default_rng(0)
    tasks = [source.tasks[k] for k in rng.choice(len(source.tasks), 4, replace=False)]
    attempts, first = [], []
    for number, task in enumerate(tasks):
        actions = rng.random((80, source.dimensions))
        statuses = source.statuses(task, actions)
        assert np.array_equal(statuses != 0, source.valid(task, actions)) and 0 < (statuses == 0).sum() < 80
        attempts += [(number, int(status)) for status in statuses]
        first.append(auccess.solved_at(statuses))
    known = [(task, k) for task, k in enumerate(first) if k]
    ours, theirs = auccess.auccess(first), source.ask("evaluate", names=tasks, attempts=attempts)
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert bool(known) == (ours > 0)


@real
def test_valid_actions_are_valid_and_invalid_ones_named(source):
    rng = np.random.default_rng(0)
    actions = source.valid_actions(source.tasks[0], 300, rng)
    assert actions.shape == (300, 3) and source.valid(source.tasks[0], actions).all()
    outside = np.array([0.0, 0.5, 1.0])  # a ball half outside the scene
    assert source.statuses(source.tasks[0], [outside]).tolist() == [0]
    assert source.simulate(source.tasks[0], outside) == (0, None)
    assert source.valid_actions(source.tasks[0], 0, rng).shape == (0, 3)
    with pytest.raises(DataError, match="'no:task'"):
        source.valid("no:task", actions)


@real
@pytest.mark.slow
def test_a_simulation_without_end_is_given_up_and_the_next_one_works():
    simulator = phyre_client.Simulator([PYTHON, "-I", phyre_worker.__file__], timeout=1.0)
    actions = np.random.default_rng(0).random((64, 3))
    arguments = dict(name="00000:000", actions=actions, frames=2, removed=[])
    with pytest.raises(DataError, match=r"gave no answer in 1 s, 2 times in rollout \(name 00000:000"):
        simulator("rollout", **arguments, stride=1_000_000_000)
    assert len(simulator("rollout", **arguments, stride=1)) == 4


@real
@pytest.mark.slow
def test_a_worker_deep_in_the_simulator_ends_though_its_parent_was_killed(tmp_path):
    code = f"""
import os, signal, threading, time
import numpy as np
from cjepa_jax.data.sources import phyre_client, phyre_worker
ask = phyre_client.Simulator([{PYTHON!r}, "-I", phyre_worker.__file__], timeout=5.0)
actions = np.random.default_rng(0).random((64, 3))
ask("valid", name="00000:000", actions=actions)
print(ask._process.pid, flush=True)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
ask("rollout", name="00000:000", actions=actions, frames=2, stride=10**9, removed=[])
"""
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert run.returncode == -9
    before = time.monotonic()
    assert ended(int(run.stdout), seconds=15) and time.monotonic() - before > 1  # by its own alarm, not by luck


@real
@pytest.mark.slow
def test_every_object_s_mask_is_where_phyre_draws_it_alone(source):
    """Each object of several scenes drawn alone by PHYRE's own tool, from its features."""
    script = """
import sys, numpy as np
from phyre import objects_util
data = np.load(sys.argv[1], allow_pickle=False)
drawn = [objects_util.featurized_objects_vector_to_raster(row[None]) > 0 for row in data]
np.save(sys.argv[2], np.stack(drawn)[:, ::-1])
"""
    rows, masks, exact = [], [], []
    for i in range(12):
        name = source.tasks[source.order[i]]
        actions = source[i]["action"][None]
        _, _, seen, features = source.ask("rollout", name=name, actions=actions, frames=4, stride=15, removed=[])
        for k in range(features.shape[1]):
            rows.append(features[3, k])
            masks.append(seen[3, ::-1] == k + 1)
    with tempfile.TemporaryDirectory() as folder_name:
        np.save(f"{folder_name}/rows.npy", np.stack(rows))
        command = [PYTHON, "-I", "-c", script, f"{folder_name}/rows.npy", f"{folder_name}/drawn.npy"]
        subprocess.run(command, check=True, timeout=120)
        drawn = np.load(f"{folder_name}/drawn.npy", allow_pickle=False)
    for mask, alone in zip(masks, drawn, strict=True):
        assert not (mask & ~alone).sum() > 0.02 * alone.sum() + 4  # visible is part of it
        exact.append((mask & alone).sum() / max(1, (mask | alone).sum()))
    print(
        "IoU with the object drawn alone: median", np.median(exact), "share over 0.99:", np.mean(np.array(exact) > 0.99)
    )
    assert np.median(exact) == 1


@real
@pytest.mark.slow
def test_the_pipeline_reads_it_in_processes_of_its_own():
    source = Phyre(size=64, frames=4, count=16)
    scenes = pipeline.SceneMap(
        source, functools.partial(objects.draw, max_objects=2, area=(0.001, 0.5)), 8, 2, 64, 8, "rerender", 0, frames=4
    )
    loaders = [pipeline.Loader(scenes, 4, 0, 1, [(4, 128)], workers=workers) for workers in (0, 2)]
    for one, two in zip(*(loader.iterate(0, 4) for loader in loaders), strict=True):
        assert one["intervened_valid"].any() and not one["replaced"].any()
        assert np.array_equal(one["video"], two["video"]) and np.array_equal(one["intervened"], two["intervened"])
