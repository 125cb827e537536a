"""Slots that are rolled out: 128 frames become 160, by the published state dict's function, and errors are scored."""

import pathlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from cjepa_jax.data.slot_files import writing
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import CheckpointError, ConfigError, DataError
from cjepa_jax.extract import rollout

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
        ((out, "--skip=9"), DataError, "video_00000.mp4 has fewer than 54 frames"),
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
