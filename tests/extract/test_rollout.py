"""Slots that are rolled out: 128 frames become 160, by the published state dict's function, and errors are scored."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cjepa_jax import optim, train_step
from cjepa_jax.configuration import build
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.data.slot_files import writing
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import CheckpointError, ConfigError, DataError
from cjepa_jax.extract import encoders, predictors, rollout
from cjepa_jax.runtime.checkpoint import Checkpoints
from configs.slots import clevrer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "slots"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(a published state dict's file, a folder of its two videos, the published rollout [2, 32, 4, 8])."""
    root, numbers = tmp_path_factory.mktemp("rollout"), dict(np.load(GOLDEN / "rollout_6_10_2.npz"))
    save_file({name[2:]: array for name, array in numbers.items() if name.startswith("p/")}, root / "net.safetensors")
    rng = np.random.default_rng(0)
    with writing(root / "slots") as write:
        for i, (split, tail) in enumerate(zip(("train", "val"), numbers["history_tail"], strict=True)):
            start = rng.standard_normal((20 + i, *tail.shape[1:])).astype(np.float32)
            write(split, f"video_0000{i}.mp4", np.concatenate([start, tail]))
    return root / "net.safetensors", root / "slots", numbers["rollout"]


def flags(files, *more):
    return [f"--checkpoint={files[0]}", f"--slots={files[1]}", "--heads=2", *more]


def test_the_published_frames_follow_the_videos_own(files, tmp_path):
    assert rollout.main(flags(files, f"--out={tmp_path / 'out'}", "--batch=3")) == 0
    for split, i, own in (("train", 0, 32), ("val", 1, 33)):
        before, after = (SlotFiles(split, str(root), frames=1) for root in (files[1], tmp_path / "out"))
        assert (len(before), len(after)) == (own, own + 32)
        every = np.stack([after[k]["video"][0, 0] for k in range(own + 32)])
        np.testing.assert_array_equal(every[:own], [before[k]["video"][0, 0] for k in range(own)])
        np.testing.assert_allclose(every[own:], files[2][i], atol=2e-5)


def test_scores_are_errors_of_the_last_frames(files, capsys):
    assert rollout.main(flags(files, "--score", "--frames=4", "--split=train")) == 0
    lines = dict(line.split(" rmse/slots ") for line in capsys.readouterr().out.splitlines()[1:])
    values = {row.strip(): float(text.split()[0]) for row, text in lines.items()}
    source = SlotFiles("train", str(files[1]), frames=32)[0]["video"][:, 0]
    copied = np.sqrt(np.square(source[-4:] - source[-5]).mean())
    np.testing.assert_allclose(values["copy"], copied, atol=1e-4)
    assert set(values) == {"model", "copy", "constant velocity"} and values["model"] > 0


def test_what_is_refused_in_one_line(files, tmp_path):
    out = f"--out={tmp_path / 'out'}"
    for more, error, message in (
        ((), ConfigError, "--out or --score: give one of them"),
        ((out, "--score"), ConfigError, "--out or --score: give one of them"),
        ((out, "--frames=0"), ConfigError, "--frames=0: must be at least 1"),
        ((out, "--history=16"), ConfigError, "must be below its 16 frames"),
        ((out, "--skip=9"), DataError, "video_00000.mp4 has fewer than 54 frames: history x skip = 54$"),
        (("--score",), DataError, "fewer than 44 frames: history x skip = 12, and --frames = 32 to score$"),
        ((out, "--split=test"), DataError, "has no split 'test'"),
        ((out, "--checkpoint=nothing"), ConfigError, "there is no such file or folder"),
    ):
        with pytest.raises(error, match=message) as caught:
            rollout.main(flags(files, *more))
        assert "\n" not in str(caught.value)
    with writing(tmp_path / "wide") as write:
        write("train", "a", np.zeros((40, 4, 9), np.float32))
    with pytest.raises(CheckpointError, match="takes slots of width 8: the files have 9"):
        rollout.main([*flags(files, out), f"--slots={tmp_path / 'wide'}"])
    assert not (tmp_path / "out" / "videos.json").exists()


@pytest.mark.parametrize("bad, message", [("x" * 300, "File name too long"), ("~no_such_user/x", "home directory")])
def test_paths_that_the_system_refuses_end_in_one_line_with_both_commands(bad, message):
    of_encoder = functools.partial(encoders.of, size=0, seed=0, noise=False, backbone="", trust="")
    of_predictor = functools.partial(predictors.of, shape=(4, 8), history=0, heads=0, skip=0, trust="")
    for of in (of_encoder, of_predictor):
        with pytest.raises(ConfigError, match=f"^--checkpoint={bad}: .*{message}") as error:
            of(bad)
        assert "\n" not in str(error.value)


def run(folder, **options):
    """A run of a small predictor, as if its data had these options."""
    c = clevrer.get_config().unlock()
    c.data.frames, c.mask.history, c.objective.history, c.objective.future = 4, 3, 3, 1
    c.objective.slot_predictor.update(depth=1, heads=2, units=8)
    c.data.options = options
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_lib.resolve(c)))
    objective = build.build(c.objective, "objective", steps=1, dtype="float32")
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    batch = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), predictors._shapes(4, 4, 8))
    checkpoints.save(1, train_step.init_state(objective, optim.make(c.optim), 0, batch))
    checkpoints.close()
    return folder


def test_a_runs_frames_are_as_far_apart_as_it_was_trained_on(files, tmp_path):
    given = dict(history=0, heads=0, trust="")
    for skip, options in ((1, {}), (3, {"skip": 3})):
        folder = run(tmp_path / str(skip), **options)
        for flag in (0, skip):
            found = predictors.of(str(folder), (4, 8), **given, skip=flag)
            assert (found.history, found.skip) == (3, skip) and found.predict(np.zeros((2, 3, 4, 8))).shape[1] == 1
        with pytest.raises(ConfigError, match=f"^--skip=2: .* was trained with data.options.skip = {skip}$"):
            predictors.of(str(folder), (4, 8), **given, skip=2)
    for flag, skip in ((0, 2), (5, 5)):
        assert predictors.of(str(files[0]), (4, 8), **given | {"heads": 2}, skip=flag).skip == skip


def test_a_split_has_either_of_its_names(files, tmp_path):
    assert rollout.of_folder(files[1], "eval") == rollout.of_folder(files[1], "val")
    assert [video[:2] for video in rollout.of_folder(files[1], "eval")] == [("val", "video_00001.mp4")]
    (tmp_path / "videos.json").write_text("{}")
    with pytest.raises(DataError, match="videos.json: must be an object of splits$"):
        rollout.of_folder(tmp_path, "")


@pytest.mark.parametrize("flag", ["--score", "--out"])
def test_slots_that_are_not_finite_are_not_rolled_out(files, tmp_path, flag):
    bad = np.zeros((30, 4, 8), np.float32)
    bad[:2], bad[22, 1, 3], bad[25, 0, 0] = np.nan, np.inf, np.nan
    with writing(tmp_path / "bad") as write:
        write("train", "good", np.zeros_like(bad))
        write("train", "damaged.mp4", bad)
    more = [flag if flag == "--score" else f"--out={tmp_path / 'out'}", "--frames=4"]
    given = [f"--checkpoint={files[0]}", f"--slots={tmp_path / 'bad'}", "--heads=2"]
    with pytest.raises(DataError) as error:
        rollout.main([*given, *more])
    wanted = f"{tmp_path / 'bad' / 'slots.npy'}: damaged.mp4: 2 frames from 22 to 25 have slots that are not finite"
    assert str(error.value) == wanted and not (tmp_path / "out" / "videos.json").exists()
