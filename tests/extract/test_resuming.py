"""Extraction and rollouts that are killed, stopped or ended by a damaged video keep what is finished, and resume."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tqdm import tqdm

from cjepa_jax.data.formats import video
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.data.worlds.acting.nudge import Nudge
from cjepa_jax.data.worlds.acting.push import Push
from cjepa_jax.data.worlds.acting.rooms import Rooms
from cjepa_jax.errors import PREEMPTED, CheckpointError, ConfigError, DataError
from cjepa_jax.extract import __main__ as command
from cjepa_jax.extract import checkpoint, episodes, rollout, work
from cjepa_jax.extract.work import Work
from cjepa_jax.runtime.preemption import Signals
from tests.data import clips
from tests.extract.test_extract import frames
from tests.extract.test_rollout import files, flags  # noqa: F401
from tests.models.test_slot_encoders import savi
from tests.running import ROOT


def given(root, counts):
    """Weights of a small SAVi, a video for each number of frames, and the flags of a command for them."""
    _, state, *_ = savi()
    save_file({name: np.asarray(array, np.float32) for name, array in state.items()}, root / "savi.safetensors")
    for i, count in enumerate(counts):
        clips.write(root / "videos" / f"{i}.avi", frames(count, 40))
    return [f"--checkpoint={root / 'savi.safetensors'}", f"--videos={root / 'videos'}"]


def same(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("slots.npy", "videos.json"))


def test_a_damaged_video_ends_the_command_which_keeps_the_others_and_resumes(tmp_path, capsys):
    flags = given(tmp_path, [3, 4, 5])
    assert command.main([*flags, f"--out={tmp_path / 'whole'}"]) == 0
    damaged, out = tmp_path / "videos" / "1.avi", [f"--out={tmp_path / 'out'}"]
    good = damaged.read_bytes()
    damaged.write_bytes(bytes(len(good)))
    with pytest.raises(DataError, match=r"1.avi: .*\. 1 videos are kept. .* --skip-damaged leaves it out$") as error:
        command.main([*flags, *out])
    assert "\n" not in str(error.value) and not (tmp_path / "out" / "videos.json").exists()
    damaged.write_bytes(good)
    assert command.main([*flags, *out]) == 0
    assert same(tmp_path / "out", tmp_path / "whole")
    damaged.write_bytes(bytes(len(good)))
    capsys.readouterr()
    assert command.main([*flags, f"--out={tmp_path / 'rest'}", "--skip_damaged", "--noise"]) == 0
    assert "left out: train/1.avi: " in capsys.readouterr().out
    assert (tmp_path / "rest" / "damaged.txt").read_text().startswith("train/1.avi: ")
    damaged.write_bytes(good)
    assert command.main([*flags, f"--out={tmp_path / 'drawn'}", "--noise"]) == 0
    rest, drawn = (SlotFiles("train", str(tmp_path / name), frames=1) for name in ("rest", "drawn"))
    kept = [np.stack([source[i]["video"] for i in range(len(source))]) for source in (rest, drawn)]
    np.testing.assert_array_equal(kept[0], np.delete(kept[1], slice(3, 7), 0))  # a video's noise is that of its place


def test_without_a_good_video_there_is_no_folder(tmp_path):
    flags = given(tmp_path, [])
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "0.avi").write_bytes(b"no video")
    with pytest.raises(DataError, match="there is no video"):
        command.main([*flags, f"--out={tmp_path / 'out'}", "--skip-damaged"])
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_video_that_the_storage_does_not_give_is_not_left_out_as_damaged(tmp_path, monkeypatch):
    flags, every = given(tmp_path, [3, 4, 5]), video.every

    def unmounted(path, *more):
        (tmp_path / "videos").rename(tmp_path / "gone")
        return every(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(video, "every", unmounted)
        with pytest.raises(DataError, match=r"0.avi: No such file .* 0 videos are kept. The same command resumes$"):
            command.main([*flags, f"--out={tmp_path / 'out'}", "--skip-damaged"])
    (tmp_path / "gone").rename(tmp_path / "videos")
    bad = os.fsdecode(b"bad\x1b[2J\xff\n.avi")
    (tmp_path / "videos" / bad).write_bytes(b"no video")
    (tmp_path / "out" / "damaged.txt").write_text("train/old.avi\n")
    assert command.main([*flags, f"--out={tmp_path / 'out'}", "--skip-damaged"]) == 0
    (line,) = (tmp_path / "out" / "damaged.txt").read_text().splitlines()
    assert line.startswith(r"train/bad\x1b[2J\udcff\n.avi: ")
    (tmp_path / "videos" / bad).unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "damaged.txt").write_text("train/old.avi\n")
    assert command.main([*flags, f"--out={tmp_path / 'other'}", "--skip-damaged"]) == 0
    assert not (tmp_path / "other" / "damaged.txt").exists()


def test_weights_that_change_while_they_are_loaded_are_refused_and_their_name_does_not_count(tmp_path):
    weights, other = tmp_path / "a.pth", tmp_path / "b.pth"
    weights.write_bytes(b"one")
    other.write_bytes(b"one")
    with checkpoint.unchanged(str(weights), "") as one, checkpoint.unchanged(str(other), "") as two:
        assert one == two and one[1] == ""
    with (
        pytest.raises(CheckpointError, match="a.pth: has changed while it was loaded. Repeat the command$"),
        checkpoint.unchanged(str(weights)),
    ):
        weights.write_bytes(b"two")


def test_a_signal_keeps_the_finished_videos_and_a_changed_command_is_refused(tmp_path, monkeypatch, capsys):
    flags, every, seen = given(tmp_path, [3, 4, 5]), video.every, []
    assert command.main([*flags, f"--out={tmp_path / 'whole'}"]) == 0
    out = f"--out={tmp_path / 'out'}"

    def stopped(path, size, where):
        for number, frame in enumerate(every(path, size, where)):
            seen.append(path.name)
            yield frame
            if (path.name, number) == ("1.avi", 2):
                os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(video, "every", stopped)
        assert command.main([*flags, out]) == PREEMPTED
    assert seen == ["0.avi"] * 3 + ["1.avi"] * 3
    assert "stopped by SIGTERM: " in (printed := capsys.readouterr().out) and "keeps 1 of 3 videos" in printed
    weights = tmp_path / "other.safetensors"
    for more, text in (
        (["--seed=1"], "begun with --seed = 0, not 1"),
        (["--noise"], "begun with --noise = False, not True"),
        (["--count=2"], "begun with 3 videos, not 2"),
    ):
        with pytest.raises(ConfigError, match=text) as error:
            command.main([*flags, out, *more])
        assert "\n" not in str(error.value)
    _, state, *_ = savi()
    save_file({n: 2 * np.asarray(x, np.float32) for n, x in state.items()}, weights)
    with pytest.raises(ConfigError, match="begun with --checkpoint of SHA-256 = [0-9a-f]{16}, not [0-9a-f]{16}"):
        command.main([f"--checkpoint={weights}", *flags[1:], out])
    for place, name in ((work, "cjepa_jax"), (jax, "JAX")):
        with monkeypatch.context() as patch:
            patch.setattr(place, "__version__", "0.0.1")
            with pytest.raises(ConfigError, match=f"begun with version of {name} = [0-9].*, not 0.0.1"):
                command.main([*flags, out])
    monkeypatch.setattr(video, "every", lambda path, *more: seen.append(path.name) or every(path, *more))
    seen.clear()
    assert command.main([*flags, out]) == 0
    assert seen == ["1.avi", "2.avi"] and same(tmp_path / "out", tmp_path / "whole")
    monkeypatch.setattr(work, "__version__", "0.0.1")
    capsys.readouterr()
    assert command.main([*flags, out]) == 0 and "done already" in capsys.readouterr().out  # after an upgrade


def test_rollouts_resume_with_the_same_bits(files, tmp_path, monkeypatch):  # noqa: F811
    out, rolled, calls = tmp_path / "out", rollout.roll, []
    assert rollout.main(flags(files, f"--out={tmp_path / 'whole'}", "--batch=1")) == 0

    def second_fails(*args):
        calls.append(args)
        if len(calls) == 2:
            raise DataError("ended")
        return rolled(*args)

    monkeypatch.setattr(rollout, "roll", second_fails)
    with pytest.raises(DataError, match="ended"):
        rollout.main(flags(files, f"--out={out}", "--batch=1"))
    with pytest.raises(ConfigError, match="begun with --batch = 1, not 2"):
        rollout.main(flags(files, f"--out={out}", "--batch=2"))
    assert rollout.main(flags(files, f"--out={out}", "--batch=1")) == 0
    assert len(calls) == 3 and same(out, tmp_path / "whole")


def test_a_batch_that_was_written_in_half_has_the_same_bits(files, tmp_path):  # noqa: F811
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert rollout.main(flags(files, f"--out={whole}", "--batch=2")) == 0
    lines, array = (whole / "slots.jsonl").read_text().splitlines(keepends=True), (whole / "slots.npy").read_bytes()
    assert len(lines) > 2
    half.mkdir()
    (half / "slots.jsonl").write_text("".join(lines[:2]))
    (half / "slots.part").write_bytes(array)
    assert rollout.main(flags(files, f"--out={half}", "--batch=2")) == 0
    assert same(half, whole)
    assert rollout.main(flags(files, f"--out={half}", "--batch=2")) == 0


def finished(out):
    """How many videos the journal of a folder has. Its first line is the settings."""
    journal = out / "slots.jsonl"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


@pytest.mark.slow
def test_commands_that_are_killed_at_random_moments_lose_nothing_that_was_finished(tmp_path):
    flags, draw = given(tmp_path, [200] * 16), random.Random(0)
    out, output, kept = tmp_path / "out", tmp_path / "output", [0]
    argv = [sys.executable, "-m", "cjepa_jax.extract", *flags]
    subprocess.run([*argv, f"--out={tmp_path / 'whole'}"], cwd=ROOT, check=True, capture_output=True)
    for number in (*[signal.SIGKILL, signal.SIGTERM] * 3, None):
        with output.open("w") as stream:
            started = subprocess.Popen([*argv, f"--out={out}"], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
            while started.poll() is None and finished(out) <= kept[-1]:  # so it does not depend on the machine's speed
                time.sleep(0.01)
            if number:
                time.sleep(draw.uniform(0, 0.2))
                started.send_signal(number)
            code = started.wait(300)
        if (out / "videos.json").exists():
            break  # perhaps killed on the way out
        assert number and code == (PREEMPTED if number == signal.SIGTERM else -number), output.read_text()
        kept.append(finished(out))
        assert kept[-1] > kept[-2]
    assert max(kept) > 0 and same(out, tmp_path / "whole"), (code, kept)


@pytest.mark.parametrize("world", [Rooms, Push, Nudge])
def test_actions_of_a_world_are_those_of_its_encoded_scenes_and_a_signal_stops_them(tmp_path, world):
    sources = {split: world(split, size=24, frames=3, count=2) for split in ("train", "test")}
    videos = {"test": {"1": (3, 3)}, "train": {"0": (0, 3)}}
    bar = tqdm(total=9, disable=True)

    class Stopping(Signals):
        """A signal comes after the first scene."""

        def unless_stopped(self, work):
            result = super().unless_stopped(work)
            if self.received is None:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

    with Stopping() as signals:
        assert not episodes.write_played(episodes.played(sources), tmp_path, videos, Work(None, signals, bar, 2))
    assert not list(tmp_path.iterdir())
    with Signals() as signals:
        assert episodes.write_played(episodes.played(sources), tmp_path, videos, Work(None, signals, bar, 2))
    scenes = sources["train"][0], sources["test"][1]
    for name in ("actions", "proprio"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), np.concatenate([s[name] for s in scenes]))
