"""Folders of slots that are written video by video: what a kill leaves, what is resumed, and what is refused."""

import errno
import json
import os
import pathlib
import shutil
import stat

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


def write(out, names, settings=SETTINGS, finish=False, stop=None, versions=None):
    """Writes those of the videos that are missing. An exception `stop` is raised after them."""
    with SlotWriter(out, settings, versions) as writer:
        if writer.finished:
            return writer
        for i, name in enumerate(names):
            if not writer.has("train", name):
                writer.write("train", name, video(i))
                writer.sync()
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
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        ".lock", "slots.jsonl", "slots.npy", "videos.json",
    ]  # fmt: skip
    assert (tmp_path / "out" / "slots.npy").read_bytes() == (tmp_path / "whole" / "slots.npy").read_bytes()
    assert read(tmp_path / "out")[0] == {"train": {"names": ["a", "b", "c"], "starts": [0, 3, 7], "frames": [3, 4, 5]}}
    np.testing.assert_array_equal(read(tmp_path / "out")[1], np.concatenate([video(i) for i in range(3)]))
    with SlotWriter(tmp_path / "out", SETTINGS) as writer:
        assert writer.finished
    assert len(list((tmp_path / "out").iterdir())) == 4
    with pytest.raises(ConfigError, match="holds slots already, made with --seed = 0, not 1$"):
        write(tmp_path / "out", "abc", SETTINGS | {"--seed": 1})
    with pytest.raises(ConfigError, match="holds slots already$"), writing(tmp_path / "out"):
        pass


def test_a_kill_at_any_call_to_the_system_leaves_a_folder_that_resumes_and_never_reads_as_whole(tmp_path, monkeypatch):
    """Each call that changes the folder is preceded by a copy of it: what a kill there would leave."""
    copies, out = [], tmp_path / "out"

    def copying(call):
        def called(*args, **more):
            if out.exists() and len(copies) < 200:
                copies.append(shutil.copytree(out, tmp_path / f"copy{len(copies)}"))
            return call(*args, **more)

        return called

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


class Disk:
    """What a power cut leaves of a folder: the names of its last sync, and the bytes of each file's last one."""

    def __init__(self, folder, monkeypatch, fails=None):
        self.folder, self.fails, self.calls = folder, fails, 0
        self.files, self.names, self.at_index = {}, {}, None
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, number):
        self.calls += 1
        if self.calls == self.fails:
            raise OSError(errno.EIO, "input/output error")
        self._fsync(number)
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            self.names = {file.name: file.stat().st_ino for file in self.folder.iterdir()}
        else:
            self.files[found.st_ino] = pathlib.Path(f"/proc/self/fd/{number}").read_bytes()

    def replace(self, old, new):
        if pathlib.Path(new).name == "videos.json":
            self.at_index = self.left()
        self._replace(old, new)

    def left(self):
        return {name: self.files.get(number, b"") for name, number in self.names.items()}

    def copied(self, to):
        to.mkdir()
        for name, data in self.left().items():
            (to / name).write_bytes(data)
        return to


def test_what_a_sync_has_kept_survives_a_power_cut(tmp_path, monkeypatch):
    out = tmp_path / "out"
    disk = Disk(out, monkeypatch)
    with SlotWriter(out, SETTINGS) as writer:
        for i, name in enumerate("abc"):
            copy = disk.copied(tmp_path / name)
            writer.write("train", name, video(i))
            writer.sync()
            with SlotWriter(copy, SETTINGS) as other:
                assert other.count == i
        writer.finish()
    assert disk.at_index["slots.npy"] == (out / "slots.npy").read_bytes()
    whole = disk.copied(tmp_path / "whole")
    np.testing.assert_array_equal(read(whole)[1], np.concatenate([video(i) for i in range(3)]))
    assert read(whole)[0] == read(out)[0]


def test_a_sync_that_fails_once_loses_no_video_before_it_and_writes_no_line_twice(tmp_path):
    """Videos are synced in pairs. A failed sync of frames leaves no line about them, one of the journal both lines."""
    seen, fails = set(), 0
    while True:
        fails += 1
        out = tmp_path / str(fails)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(out, patch, fails)
            try:
                with SlotWriter(out, SETTINGS) as writer:
                    for i, name in enumerate("abcd"):
                        writer.write("train", name, video(i))
                        if i % 2:
                            writer.sync()
                    writer.finish()
                break
            except OSError:
                assert disk.calls >= fails
        if not (out / "videos.json").exists():
            lines = (out / "slots.jsonl").read_text().splitlines() if (out / "slots.jsonl").exists() else []
            assert len(set(lines)) == len(lines)
            with SlotWriter(out, SETTINGS) as writer:
                seen.add((fails, writer.count))
        assert write(out, "abcd", finish=True).finished
        np.testing.assert_array_equal(np.load(out / "slots.npy"), np.concatenate([video(i) for i in range(4)]))
    counts = [count for _, count in sorted(seen)]
    assert counts == sorted(counts) and set(counts) == {0, 2, 4} and counts.count(2) == 2, seen


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


def test_versions_count_for_unfinished_folders_alone(tmp_path):
    old, new = {"version of x": "0.1"}, {"version of x": "0.2"}
    write(tmp_path / "known", "a", versions=old)
    write(tmp_path / "unknown", "a")
    known = "were begun with version of x = 0.1, not 0.2. The command that began them resumes"
    unknown = "were written before versions were recorded. They are not resumed"
    for name, text in (("known", known), ("unknown", unknown)):
        with pytest.raises(ConfigError, match=f"unfinished slots that {text}. To start afresh, ") as error:
            write(tmp_path / name, "ab", versions=new)
        assert "None" not in str(error.value) and "\n" not in str(error.value)
        with pytest.raises(ConfigError, match="begun with --seed = 0, not 1"):
            write(tmp_path / name, "ab", SETTINGS | {"--seed": 1}, versions=new)
    assert write(tmp_path / "known", "ab", finish=True, versions=old).finished
    assert write(tmp_path / "unknown", "ab", finish=True).finished
    for name in ("known", "unknown"):
        assert write(tmp_path / name, "ab", versions=new).finished
        with pytest.raises(ConfigError, match="holds slots already, made with --seed = 0, not 1"):
            write(tmp_path / name, "ab", SETTINGS | {"--seed": 1}, versions=new)


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


def test_from_the_first_damaged_video_on_nothing_is_kept_and_a_warning_says_so(tmp_path, caplog):
    write(tmp_path / "good", "ab")
    write(tmp_path / "whole", "abc", finish=True)
    entry = {"split": "train", "name": "c", "shape": [1, 2, 4], "crc32": 0}
    part, journal = (tmp_path / "good" / name for name in ("slots.part", "slots.jsonl"))
    lines, array = journal.read_bytes(), part.read_bytes()
    again = lines.splitlines(keepends=True)[-1]

    def more(**change):
        return lines + json.dumps(entry | change).encode() + b"\n"

    damaged = (
        (lines, array[:-1], 1, "slots.part does not hold train/b as slots.jsonl says: 1 of 2 videos are kept"),
        (lines, array[:-1] + b"x", 1, "slots.part does not hold train/b"),
        (lines, b"", 0, "slots.part does not hold train/a as slots.jsonl says: 0 of 2 videos are kept"),
        (lines + b"{\n" + again, array, 2, "line 4 of slots.jsonl is damaged"),
        (lines + b"3\n", array, 2, "line 4 of slots.jsonl is damaged"),
        (lines + b'"\xed\xa0\x80"\n{"spl', array, 2, "line 4 of slots.jsonl is damaged"),
        (lines + b'"\xff"\n', array, 2, "line 4 of slots.jsonl is damaged"),
        (lines + again, array, 2, "line 4 of slots.jsonl is damaged"),
        (more(shape=[10**15, 2, 4]), array, 2, "line 4 of slots.jsonl is damaged"),
        (more(shape=[1, 2, 5]), array, 2, "line 4 of slots.jsonl is damaged"),
        (more(shape=[2**39, 2, 4]), array, 2, "slots.part does not hold train/c"),
        (more(name="\ud800\n", shape=[2**39, 2, 4]), array, 2, r"does not hold train/\ud800\n as"),
    )
    for number, (text, data, kept, message) in enumerate(damaged):
        copy = tmp_path / str(number)
        copy.mkdir()
        (copy / "slots.jsonl").write_bytes(text)
        (copy / "slots.part").write_bytes(data)
        caplog.clear()
        with SlotWriter(copy, SETTINGS) as writer:
            assert writer.count == kept, text
        assert [message in record.getMessage() for record in caplog.records] == [True], caplog.text
        write(copy, "abc", finish=True)
        assert (copy / "slots.npy").read_bytes() == (tmp_path / "whole" / "slots.npy").read_bytes()


def test_foreign_files_and_a_journal_without_settings_are_refused_in_one_line(tmp_path):
    write(tmp_path / "good", "ab")
    part, journal = (tmp_path / "good" / name for name in ("slots.part", "slots.jsonl"))
    lines, array = journal.read_text(), part.read_bytes()
    for text in ("{\n", "[]\n", "{}\n" + lines):
        journal.write_text(text)
        with pytest.raises(DataError, match="the first line of slots.jsonl does not say what .* delete") as error:
            write(tmp_path / "good", "ab")
        assert "\n" not in str(error.value)
    journal.write_text(lines)
    other = tmp_path / "other"
    for name, content in (("slots.part", array), ("slots.jsonl", lines.encode())):
        file = tmp_path / "good" / name
        for put in (file.symlink_to, file.hardlink_to)[: 2 if name == "slots.part" else 1]:  # a journal is replaced
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
