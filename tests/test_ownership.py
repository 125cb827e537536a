"""A run's folder is renamed, deleted or replaced behind its back: nothing is written into a folder that is not its own,
and what was saved is kept."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.host import door
from cjepa_jax.host.door import Lost
from cjepa_jax.runtime import ending, run_manifest
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.runtime.goodput import Goodput
from cjepa_jax.runtime.workdir import Workdir
from tests import running


def renamed(folder):
    os.rename(folder, folder.with_name("elsewhere"))


def deleted(folder):
    while folder.exists():  # a run may be writing there
        shutil.rmtree(folder, ignore_errors=True)


def replaced(folder):
    renamed(folder)
    folder.mkdir()
    (folder / "of others").write_text("")


def copied(folder):
    """Even a copy with the same files is another folder."""
    renamed(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


def taken_over(folder):
    """Another run has made the folder its own."""
    renamed(folder)
    code = "import sys; from cjepa_jax.runtime.workdir import Workdir\nwith Workdir(sys.argv[1], {'seed': 5}): pass"
    subprocess.run([sys.executable, "-c", code, folder], cwd=running.ROOT, check=True)


def without_lock(folder):
    (folder / ".lock").unlink()


def other_lock(folder):
    (folder / ".lock").unlink()
    (folder / ".lock").write_text("host other, process 1\n")


ANOTHER = "is another folder than it was when it was taken. What was saved is in .*/elsewhere$"
LOCK = "its .lock was deleted or replaced while the folder was in use"
CHANGES = {
    renamed: "was renamed while it was in use. What was saved is in .*/elsewhere$",
    deleted: "was deleted while it was in use$",
    replaced: ANOTHER,
    copied: ANOTHER,
    taken_over: ANOTHER,
    without_lock: LOCK,
    other_lock: LOCK,
}
WRITERS = {
    "metrics": lambda workdir: workdir.append_metrics({"step": 2, "loss": 0.5}),
    "result": lambda workdir: workdir.finish({"step": 2}),
    "shorter metrics": lambda workdir: workdir.truncate_metrics(0) if (workdir.path / "metrics.jsonl").exists() else
    door.require_own(workdir.path),
    "goodput": lambda workdir: Goodput(workdir.path / "goodput.json").save(),
    "a text": lambda workdir: door.write_atomically(workdir.path / "report.html", "x"),
    "a text below": lambda workdir: door.write_atomically(workdir.path / "pictures" / "x", "x"),
    "bytes": lambda workdir: door.replacing(workdir.path / "report.npz").__enter__(),
    "stacks": lambda workdir: door.overwrite(workdir.path / "stacks.0.txt"),
    "tb": lambda workdir: door.folder(workdir.path, "tb"),
    "manifest": lambda workdir: run_manifest.Entry(workdir.path / "run_manifest.json", {"starts": [{}]}).write(),
}  # fmt: skip


def listed(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_nothing_is_written_once_the_folder_is_not_its_own(tmp_path, change):
    folder = tmp_path / "run"
    with Workdir(folder, {"seed": 1}) as workdir:
        workdir.append_metrics({"step": 1, "loss": 1.5})
        change(folder)
        before = listed(tmp_path)
        for write in WRITERS.values():
            with pytest.raises(Lost, match=CHANGES[change]) as caught:
                write(workdir)
            assert str(caught.value).startswith(f"{folder}: ") and caught.value.exit_code == 2
        run_manifest.Entry(folder / "run_manifest.json", {"starts": [{}]}).close(
            "error: ...", 2
        )  # without another word
        assert listed(tmp_path) == before
    saved = tmp_path / ("run" if "lock" in change.__name__ else "elsewhere")
    if change is not deleted:
        assert json.loads((saved / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1.5}
    door.require_own(folder)  # nobody owns it any more
    assert ending.guard(lambda: door.write_atomically(tmp_path / "free", "x")) == 0


@pytest.mark.parametrize("change", [renamed, deleted, replaced], ids=lambda change: change.__name__)
def test_an_error_that_came_of_it_is_told_as_what_it_is(tmp_path, change):
    folder = tmp_path / "run"
    with pytest.raises(Lost, match=CHANGES[change]), Workdir(folder, {}):
        change(folder)
        raise ValueError("NOT_FOUND: Error writing local file")
    with pytest.raises(ValueError, match="of another kind"), Workdir(folder, {}):
        raise ValueError("of another kind")


def state(seed):
    return {"a": jnp.asarray(np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32))}


@pytest.mark.parametrize("change", [renamed, replaced, taken_over], ids=lambda change: change.__name__)
def test_a_save_that_is_under_way_ends_in_the_runs_own_folder(tmp_path, change, monkeypatch):
    """The change comes while Orbax writes in the background: it would make folders again at the old path."""
    folder, own = tmp_path / "run", tmp_path / "elsewhere"
    with Workdir(folder, {"seed": 1}) as workdir:
        checkpoints = Checkpoints(workdir.checkpoints)
        checkpoints.save(1, state(1))
        checkpoints.wait()
        seal = run_manifest.seal
        monkeypatch.setattr(run_manifest, "seal", lambda place, step: (change(folder), seal(place, step)))
        checkpoints.save(2, state(2))
        checkpoints.wait()
        with pytest.raises(Lost):
            checkpoints.save(3, state(3))
        checkpoints.close()
    assert not (folder / "checkpoints").exists()
    assert run_manifest.verify(own / "checkpoints" / "2", 2) == []
    read = Checkpoints(own / "checkpoints", read_only=True)
    step, found = read.restore({"a": jax.ShapeDtypeStruct((8, 8), jnp.float32)})
    assert step == 2 and (np.asarray(found["a"]) == np.asarray(state(2)["a"])).all()
    read.close()


def test_what_the_system_says_of_the_folders_descriptor_is_told_by_its_name(tmp_path):
    with Workdir(tmp_path / "run", {}) as workdir:
        way = door.through(workdir.checkpoints)
        assert str(way).startswith("/proc/self/fd/") and way.name == "checkpoints"
        error = OSError(28, "No space left on device", str(way / "5"))
    assert door.through(workdir.checkpoints) == workdir.checkpoints
    text = str(ending.storage_error(error))
    assert f"No space left on device: '{tmp_path}/run/checkpoints/5'" in text and "/proc" not in text
    assert "the file system " in text


def test_a_link_to_the_folder_may_be_used_and_pointed_elsewhere_is_another_folder(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "run").symlink_to("one")
    with Workdir(tmp_path / "run", {}) as workdir:
        workdir.append_metrics({"step": 1})
        (tmp_path / "run").unlink()
        (tmp_path / "run").symlink_to("other")
        with pytest.raises(Lost, match="is another folder than it was when it was taken. What was saved is in .*/one$"):
            workdir.append_metrics({"step": 2})
    assert listed(tmp_path / "other") == []


# ---------------------------------------------------------------------- whose checkpoints these are


def lost_config(folder, starts=None):
    """A run's folder with a checkpoint, without config.json."""
    (folder / "checkpoints" / "10").mkdir(parents=True)
    if starts is not None:
        (folder / "run_manifest.json").write_text(json.dumps({"format": 1, "starts": starts}))


def test_without_config_json_the_manifest_says_whose_the_checkpoints_are(tmp_path):
    config = {"seed": 1, "log": {"every": 5}}
    lost_config(tmp_path, [{"config": {"seed": 7, "log": {"every": 5}}}, {"config": config}, {"step": 10}])
    with pytest.raises(ConfigError, match="belongs to another config .seed: 1 -> 2."):
        Workdir(tmp_path, config | {"seed": 2}).__enter__()
    assert not (tmp_path / "config.json").exists()
    with Workdir(tmp_path, config | {"log": {"every": 50}}):  # which a resumed run may change
        assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


@pytest.mark.parametrize("starts", [None, [], [{}], [None], "x", [{"config": None}], [{"config": "x"}]])
def test_a_folder_that_does_not_say_whose_its_checkpoints_are_is_refused(tmp_path, starts):
    lost_config(tmp_path, starts)
    before = listed(tmp_path)
    with pytest.raises(ConfigError, match="config.json is missing, and .*run_manifest.json.*another --workdir"):
        Workdir(tmp_path, {"seed": 1}).__enter__()
    assert listed(tmp_path) == sorted([*before, ".lock"])


def test_so_is_one_with_a_result_or_a_damaged_manifest(tmp_path):
    (tmp_path / "result.json").write_text('{"step": 3}')
    with pytest.raises(ConfigError, match="config.json is missing, and so is run_manifest.json"):
        Workdir(tmp_path, {"seed": 1}).__enter__()
    (tmp_path / "run_manifest.json").write_text('{"starts": [')
    with pytest.raises(ConfigError, match="run_manifest.json: is not readable as JSON"):
        Workdir(tmp_path, {"seed": 1}).__enter__()


# ---------------------------------------------------------------------- the real trainer


@pytest.mark.slow
@pytest.mark.parametrize("change", [renamed, deleted, taken_over], ids=lambda change: change.__name__)
def test_a_training_whose_folder_is_taken_away_ends_in_one_line(tmp_path, change):
    folder = tmp_path / "run"
    process = running.start(running.command(folder, train__steps=3000, log__every=1, checkpoint__every=5))
    running.read_until(process, "step 12/")
    change(folder)
    before = listed(folder) if folder.exists() else None
    _, err = process.communicate(timeout=240)
    *warnings, line = err.splitlines()
    assert (
        process.returncode == 2
        and line.startswith(f"error: {folder}: ")
        and ("What was saved" in line or change is deleted)
    ), err
    assert all(text.startswith("warning: ") for text in warnings)
    assert (listed(folder) if folder.exists() else None) == before
    if change is not deleted:
        own = tmp_path / "elsewhere"
        steps = door.steps(own / "checkpoints")
        assert steps and all(run_manifest.verify(own / "checkpoints" / str(step), step) == [] for step in steps)
        done = running.start(running.command(own, train__steps=3000, log__every=1, checkpoint__every=5))
        running.read_until(done, f"step {steps[-1] + 1}/")  # it resumes from there
        done.send_signal(signal.SIGKILL)
        done.communicate()
