"""Folders of slots that are written video by video: what a kill leaves, what is resumed, and what is refused."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from cjepa_jax.data.slot_files import writing
from cjepa_jax.data.slot_writer import SlotWriter, different
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door

SETTINGS = {"--seed": 0, "videos": [["a", 1], ["b", 2]]}


def video(i, frames=3):
    return np.random.default_rng(i).standard_normal((frames + i, 2, 4)).astype(np.float32)


def write(out, names, settings=SETTINGS, finish=False, stop=None):
    """Writes those of the videos that are missing. An exception `stop` is raised after them."""
    with SlotWriter(out, settings) as writer:
        for i, name in enumerate(names):
            if not writer.has("train", name):
                writer.write("train", name, video(i))
        if stop:
            raise stop
        if finish:
            writer.finish()
    return writer


def read(out):
    index = json.loads((out / "videos.json").read_text())
    return index, np.load(out / "slots.npy")


def test_videos_are_kept_on_leaving_and_the_end_is_as_without_an_interruption(tmp_path):
    write(tmp_path / "whole", "abc", finish=True)
    write(tmp_path / "out", "a")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [".lock", "slots.jsonl", "slots.part"]
    with pytest.raises(KeyError):
        write(tmp_path / "out", "ab", stop=KeyError())
    write(tmp_path / "out", "abc", finish=True)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [".lock", "slots.npy", "videos.json"]
    assert (tmp_path / "out" / "slots.npy").read_bytes() == (tmp_path / "whole" / "slots.npy").read_bytes()
    assert read(tmp_path / "out")[0] == {"train": {"names": ["a", "b", "c"], "starts": [0, 3, 7], "frames": [3, 4, 5]}}
    np.testing.assert_array_equal(read(tmp_path / "out")[1], np.concatenate([video(i) for i in range(3)]))
    with pytest.raises(ConfigError, match="holds slots already"):
        write(tmp_path / "out", "abc")


def test_a_kill_at_any_call_to_the_system_leaves_a_folder_that_resumes_and_never_reads_as_whole(tmp_path, monkeypatch):
    """Each call that changes the folder is preceded by a copy of it: what a kill there would leave."""
    copies, out = [], tmp_path / "out"

    def copying(call):
        def called(*args, **more):
            if out.exists() and len(copies) < 200:
                copies.append(shutil.copytree(out, tmp_path / f"copy{len(copies)}"))
            return call(*args, **more)

        return called

    monkeypatch.setattr("cjepa_jax.data.slot_writer.SYNC", 0.0)
    with monkeypatch.context() as patch:
        for name in ("pwrite", "fsync", "replace"):
            patch.setattr(os, name, copying(getattr(os, name)))
        patch.setattr(pathlib.Path, "unlink", copying(pathlib.Path.unlink))
        write(out, "abc", finish=True)
    assert len(copies) > 15
    seen = set()
    for copy in copies:
        if (copy / "videos.json").exists():
            np.testing.assert_array_equal(read(copy)[1], read(out)[1])
            continue
        with pytest.raises(DataError):
            SlotFiles("train", str(copy), frames=1)
        with SlotWriter(copy, SETTINGS) as writer:
            seen.add(writer.count)
        write(copy, "abc", finish=True)
        assert (copy / "slots.npy").read_bytes() == (out / "slots.npy").read_bytes()
        assert read(copy)[0] == read(out)[0]
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("cut", [1, 20])
def test_half_a_line_and_frames_without_a_line_are_no_part_of_the_folder(tmp_path, cut):
    write(tmp_path, "ab")
    journal = (tmp_path / "slots.jsonl").read_bytes()
    (tmp_path / "slots.jsonl").write_bytes(journal[:-cut])
    (tmp_path / "slots.part").write_bytes((tmp_path / "slots.part").read_bytes() + b"more")
    with SlotWriter(tmp_path, SETTINGS) as writer:
        assert list(writer.videos["train"]) == ["a"]
    write(tmp_path, "ab", finish=True)
    np.testing.assert_array_equal(read(tmp_path)[1], np.concatenate([video(0), video(1)]))


def test_other_settings_are_refused_in_a_line_that_says_what_differs(tmp_path):
    write(tmp_path, "a")
    for change, text in (
        ({"--seed": 1}, "begun with --seed = 0, not 1"),
        ({"videos": [["a", 1], ["c", 2]]}, "begun with other videos: number 1 was b, 2, and is c, 2"),
        ({"videos": [["a", 1]]}, "begun with 2 videos, not 1"),
        ({"--noise": True}, "begun with --noise = None, not True"),
    ):
        with pytest.raises(ConfigError, match=text) as error:
            write(tmp_path, "a", SETTINGS | change)
        assert "\n" not in str(error.value) and "delete slots.jsonl" in str(error.value)
    with pytest.raises(ConfigError, match="begun with another command"), writing(tmp_path):
        pass
    (tmp_path / "slots.jsonl").unlink()
    assert write(tmp_path, "b", SETTINGS | {"--seed": 1}).count == 1
    assert different({"a": [1]}, {"a": [1]}) == ""


def test_without_settings_nothing_is_kept_or_resumed(tmp_path, monkeypatch):
    with pytest.raises(KeyError), writing(tmp_path / "out") as put:
        put("train", "a", video(0))
        raise KeyError
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]
    monkeypatch.setattr(SlotWriter, "_keep", lambda self, error: None)  # as after a kill
    with pytest.raises(KeyError), writing(tmp_path / "out") as put:
        put("train", "a", video(0))
        raise KeyError
    monkeypatch.undo()
    assert (tmp_path / "out" / "slots.jsonl").exists()
    assert write(tmp_path / "out", "b", finish=True).count == 1


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path):
    write(tmp_path / "good", "ab")
    entry = {"split": "train", "name": "c", "shape": [1, 2, 4], "crc32": 0}
    part, journal = (tmp_path / "good" / name for name in ("slots.part", "slots.jsonl"))
    lines, array = journal.read_text(), part.read_bytes()
    damaged = (
        (lines, array[:-1], "slots.part does not hold train/b as slots.jsonl says"),
        (lines, array[:-1] + b"x", "slots.part does not hold train/b"),
        (lines, b"", "slots.part does not hold train/a"),
        ("{\n", array, "slots.jsonl is not readable as JSON"),
        ("[]\n", array, "slots.jsonl has lines of another form"),
        (lines + "3\n", array, "slots.jsonl has lines of another form"),
        (lines + json.dumps(entry | {"shape": [10**15, 2, 4]}) + "\n", array, "has lines of another form"),
        (lines + json.dumps(entry | {"shape": [2**39, 2, 4]}) + "\n", array, "slots.part does not hold train/c"),
        (lines + json.dumps(entry | {"shape": [1, 2, 5]}) + "\n", array, "lines that contradict each other"),
        (lines + json.dumps(entry | {"name": "a"}) + "\n", array, "lines that contradict each other"),
    )
    for text, data, message in damaged:
        journal.write_text(text)
        part.write_bytes(data)
        with pytest.raises(DataError, match=message) as error:
            write(tmp_path / "good", "ab")
        assert "\n" not in str(error.value)
    journal.write_text(lines)
    other = tmp_path / "other"
    for name, content in (("slots.part", array), ("slots.jsonl", lines.encode())):
        file = tmp_path / "good" / name
        for put in (file.symlink_to, file.hardlink_to):
            other.write_bytes(content)
            file.unlink()
            put(other)
            with pytest.raises(door.Refused, match="a symbolic link|a second name"):
                write(tmp_path / "good", "ab")
            assert other.read_bytes() == content
            file.unlink()
            file.write_bytes(content)
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(door.Refused, match="is not a regular file"):
            write(tmp_path / "good", "ab")
        file.unlink()
        file.write_bytes(content)
    assert write(tmp_path / "good", "ab", finish=True).count == 2


def test_a_folder_is_written_by_one_process(tmp_path):
    with SlotWriter(tmp_path, SETTINGS), pytest.raises(ConfigError, match="in use by another run"):
        write(tmp_path, "a")
