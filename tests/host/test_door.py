"""Files of folders that may come from somebody else: what is read is regular and bounded, what is written follows no
link."""

import errno
import os
import pickle
import signal
import socket

import numpy as np
import pytest

from cjepa_jax import doctor
from cjepa_jax.errors import CheckpointError, CjepaError, ConfigError, DataError, one_line, printable
from cjepa_jax.host import door
from cjepa_jax.reports import evaluation, training
from cjepa_jax.runtime import goodput
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.runtime.watchdog import Watchdog
from cjepa_jax.runtime.workdir import Workdir, read_object
from cjepa_jax.weights import files, npz


@pytest.fixture(autouse=True)
def nothing_hangs():
    """A pipe that is waited for ends the test."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def victim(tmp_path):
    """A file of the user's, outside the folder."""
    file = tmp_path / "victim.txt"
    file.write_text("precious")
    yield file
    assert file.read_text() == "precious"


def odd_files(folder, victim):
    """Names of what is not a regular file: a pipe, a socket, a device, links to each and to nothing, a folder."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket"))
    (folder / "folder").mkdir()
    for name, target in {
        "zero": "/dev/zero",
        "link": victim,
        "nothing": folder / "absent",
        "loop": folder / "loop",
    }.items():
        (folder / name).symlink_to(target)
    return ["pipe", "socket", "folder", "zero", "link", "nothing", "loop"]


def test_only_regular_files_of_bounded_size_are_read(tmp_path, victim):
    home = tmp_path / "home"
    home.mkdir()
    for name in odd_files(home, victim):
        with pytest.raises(door.Refused) as caught:
            door.read(home / name)
        assert str(caught.value).startswith(f"{home / name}: is ") and caught.value.strerror.startswith("is ")
    (home / "large").write_bytes(b"12345")
    assert door.read(home / "large", 5) == b"12345"
    with pytest.raises(door.Refused, match="has 5 bytes, at most 4 are read"):
        door.read(home / "large", 4)
    os.truncate(home / "large", 2**41)  # nothing of it is on the disk
    with pytest.raises(door.Refused, match=f"has {2**41} bytes"):
        door.read(home / "large")
    with pytest.raises(door.Refused, match="has more than 3 bytes"):
        door.read("/proc/self/status", 3)  # the system says 0
    assert door.regular(home / "link", links=True).read() == b"precious"  # as a path that the user typed
    with pytest.raises(door.Refused, match="is not a regular file"):
        door.regular(home / "zero", links=True)
    with pytest.raises(door.Refused, match="null"):
        door.read(home / "a\0b")
    with pytest.raises(FileNotFoundError):
        door.read(home / "absent")


def test_what_is_refused_is_one_line_for_the_user_and_an_error_of_the_system_for_callers():
    error = pickle.loads(pickle.dumps(door.Refused("a\x1b[2J", "is a symbolic link", errno.ELOOP)))
    assert isinstance(error, OSError) and isinstance(error, ConfigError)
    assert (str(error), error.errno, error.strerror) == (
        r"a\x1b[2J: is a symbolic link",
        errno.ELOOP,
        "is a symbolic link",
    )


@pytest.mark.parametrize("opened", [door.append, door.overwrite, door.lock_file])
def test_nothing_is_written_through_a_link_or_into_a_second_name(tmp_path, victim, opened):
    home = tmp_path / "home"
    home.mkdir()
    for name in odd_files(home, victim):
        with pytest.raises(OSError) as caught:
            opened(home / name)
        assert isinstance(caught.value, door.Refused) or name == "folder"
    os.link(victim, home / "second")
    with pytest.raises(door.Refused, match="second name"):
        opened(home / "second")
    with opened(home / "new") as file:
        file.write("text")
    assert (home / "new").read_text() == "text" and not (home / "absent").exists()


def test_a_replaced_file_takes_a_link_s_place(tmp_path, victim):
    (tmp_path / "file").symlink_to(victim)
    beside = tmp_path / f"file.{os.getpid()}.{__import__('threading').get_ident()}.tmp"
    beside.symlink_to(victim)  # the name that the new file has until it is whole
    door.write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new" and not (tmp_path / "file").is_symlink()
    with pytest.raises(RuntimeError), door.replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "new" and not beside.exists()


def test_folders_between_are_no_links_but_the_user_s_own_path_may_be(tmp_path):
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "away").symlink_to(tmp_path)
    assert door.below(tmp_path / "run", "inside", "absent") == tmp_path / "run" / "inside" / "absent"
    assert (
        door.folder(tmp_path / "run", "inside", "a", "b").is_dir()
        and (tmp_path / "real" / "inside" / "a" / "b").is_dir()
    )
    for look in (door.below, door.folder):
        with pytest.raises(door.Refused, match="away: is a symbolic link"):
            look(tmp_path / "run", "away", "file")
        for name in ("..", ".", "", "a/b", "a\0"):
            with pytest.raises(door.Refused, match="is not a file name"):
                look(tmp_path / "run", name)
    (tmp_path / "file").write_text("")
    with pytest.raises(door.Refused, match="is not a folder"):
        door.folder(tmp_path, "file")


def test_steps_are_plain_numbers_in_range(tmp_path):
    for name in ("0", "7", "2147483647", "²", "007", "٣", "-1", "1_0", " 1", "2147483648", "9" * 20, "5.bad", ""):
        assert door.step_of(name) == (int(name) if name in ("0", "7", "2147483647") else None)
        if name:
            (tmp_path / "run" / name).mkdir(parents=True)
    assert door.steps(tmp_path / "run") == [0, 7, 2147483647] and door.steps(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["²", "007", "9" * 20, "x_99999999999", "1000000000000"])
def test_checkpoints_of_impossible_steps_are_refused_and_named(tmp_path, name):
    (tmp_path / "checkpoints" / name / "default").mkdir(parents=True)
    (tmp_path / "checkpoints" / name / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(CheckpointError, match=f"{name}: is not a step's folder"):
        Checkpoints(tmp_path / "checkpoints", read_only=True)
    (tmp_path / "config.json").write_text("{}")
    assert doctor.main([str(tmp_path)]) == 0  # and it takes no time


def test_the_doctor_counts_what_is_missing_up_to_a_step_of_billions(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"log": {"every": 1}}')
    (tmp_path / "checkpoints" / "2147483647").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    assert doctor.main([str(tmp_path)]) == 4
    assert "missing: steps 2, 3, 4, 5, 6 and 2147483641 more" in capsys.readouterr().out


FILES = ["config.json", "result.json", "metrics.jsonl", "run_manifest.json", ".lock", "checkpoints/5/sha256.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "zero", "link", "large"])
def test_the_doctor_names_what_is_no_file_and_does_not_wait_for_it(tmp_path, victim, capsys, name, kind):
    file = tmp_path / "run" / name
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    file.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "zero":
            file.symlink_to("/dev/zero")
        case "link":
            file.symlink_to(victim)
        case "large":
            file.touch()
            os.truncate(file, 2**41)
    try:
        code = doctor.main([str(tmp_path / "run")])
    except CjepaError as error:
        code = error.exit_code
    assert code in ((0, 4) if (name, kind) == (".lock", "large") else (2, 4)), capsys.readouterr().out


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "tb", "config.json", "result.json", "goodput.json"])
def test_a_run_writes_through_no_link_of_its_folder(tmp_path, victim, name):
    home = tmp_path / "run"
    home.mkdir()
    (home / name).symlink_to(victim)
    try:
        with Workdir(home, {"log": {"tensorboard": True, "wandb": False}}) as workdir:
            workdir.append_metrics({"step": 1})
            workdir.truncate_metrics(1)
            workdir.finish({"step": 1})
            goodput.Goodput(home / "goodput.json").save()
            door.folder(home, "tb")
    except door.Refused as error:
        assert name in ("metrics.jsonl", "tb") and "symbolic link" in str(error)
    except ConfigError as error:
        assert name == ".lock" and "symbolic link" in str(error)
    else:
        assert name in ("config.json", "result.json", "goodput.json") and not (home / name).is_symlink()


def test_pictures_and_stacks_are_not_written_through_links(tmp_path, victim):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pictures").symlink_to(tmp_path)
    with pytest.raises(door.Refused, match="symbolic link"):
        evaluation.save_pictures(
            tmp_path / "run", "victim", evaluation.Result([], {"a": np.zeros((2, 2, 3), np.uint8)})
        )
    (tmp_path / "run" / "stacks.0.txt").symlink_to(victim)
    said = []
    watchdog = Watchdog(1.0, tmp_path / "run" / "stacks.0.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cjepa_jax.runtime.watchdog.end", said.append)
        patch.setattr("cjepa_jax.runtime.watchdog.faulthandler.dump_traceback", lambda *_, **__: None)
        watchdog._end()
    assert "stderr alone (is a symbolic link" in said[0]


def test_links_and_pipes_below_checkpoints_are_refused_before_orbax_opens_them(tmp_path, victim):
    (tmp_path / "checkpoints" / "5" / "metrics").mkdir(parents=True)
    for name in ("5/_CHECKPOINT_METADATA", "5/metrics/metrics"):
        os.mkfifo(tmp_path / "checkpoints" / name)
        with pytest.raises(CheckpointError, match=f"{name}: is not a regular file"):
            Checkpoints(tmp_path / "checkpoints", read_only=True)
        (tmp_path / "checkpoints" / name).unlink()
    (tmp_path / "checkpoints" / "6").symlink_to(tmp_path / "checkpoints" / "5")
    with pytest.raises(CheckpointError, match="6: is a symbolic link"):
        Checkpoints(tmp_path / "checkpoints")
    (tmp_path / "away").symlink_to(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="away: is a symbolic link"):
        Checkpoints(tmp_path / "away")


@pytest.mark.parametrize("name", ["../../victim.txt", "/etc/hostname", "default/../../../victim.txt", ".", "a\0b"])
def test_a_manifest_names_no_file_outside_its_checkpoint(tmp_path, victim, name):
    import json

    from cjepa_jax.runtime import run_manifest

    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    sums = {name: "0" * 64}
    (tmp_path / "checkpoints" / "5" / "sha256.json").write_text(json.dumps({"step": 5, "files": sums}))
    assert run_manifest.verify(tmp_path / "checkpoints" / "5", 5) == ["sha256.json is damaged"]


def test_metrics_are_read_line_by_line_whatever_the_lines_are(tmp_path):
    lines = [b'{"step": 1}', b"[]", b'{"step": true}', b'{"step": -1}', b'{"step": 9999999999}', b'{"step": "1"}']
    lines += [b'{"step": 2, "long": "' + b"x" * (1 << 21) + b'"}', b"[" * 100_000, b"\xff\xfe", b'{"step": 3}', b'{"st']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert Workdir(tmp_path).look_at_metrics() == ([{"step": 1}, {"step": 3}], 8, True)


def test_read_objects_and_reports_refuse_what_is_no_file(tmp_path):
    (tmp_path / "x.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is not readable"):
        read_object(tmp_path / "x.json")
    with pytest.raises(CheckpointError, match="symbolic link"):
        files.json(tmp_path / "x.json")
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(DataError, match="not a regular file"):
        npz.read(tmp_path / "x.npz")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DataError):
        training.write(tmp_path)


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\rb", "\x9b31m", "\u202egnp.exe", "\u2066", "\x00", "\ud800", "\x7f", "\u2028"]
)
def test_texts_are_shown_without_control_characters(text):
    assert printable(text).isprintable() and one_line(f"a{text}b").isprintable()
    for kind in (ConfigError, DataError, CheckpointError):
        assert str(kind(text)).isprintable()
    assert printable("grün 物体 ± λ") == "grün 物体 ± λ"
    assert one_line("two\n  lines\n") == "two; lines"


def test_a_lock_s_note_is_one_printable_line_of_bounded_length(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    with Workdir(tmp_path) as workdir:
        workdir.path.joinpath(".lock").write_text("evil\x1b]0;title\x07\n" + "x" * 10**6)
        doctor.main([str(tmp_path)])
        said = capsys.readouterr().out
        assert r"evil\x1b]0;title\x07" in said and "\x1b" not in said and len(said) < 2500
        with pytest.raises(ConfigError, match="in use by another run") as caught:
            Workdir(tmp_path, {}).__enter__()
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1500
