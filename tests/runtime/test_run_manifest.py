"""What a run records of itself, what tells data from data, and the checksums of a checkpoint's files."""

import dataclasses
import json
import logging
import pathlib
import shutil
import subprocess
import types

import jax
import numpy as np
import pytest

from cjepa_jax.configuration.check import resolve
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import DataError
from cjepa_jax.runtime import run_manifest
from cjepa_jax.runtime.workdir import Workdir
from configs import clips


def opened(path, step=0, source=None, **values):
    config = clips.get_config()
    for key, value in values.items():
        config[key] = value
    return run_manifest.open_run(Workdir(path), config, source or Balls(), jax.devices(), step)


def test_a_start_describes_everything_and_its_end_is_added(tmp_path):
    entry = opened(tmp_path)
    (start,) = run_manifest.read(tmp_path)["starts"]
    assert start["step"] == 0 and "reason" not in start
    assert start["config"] == resolve(clips.get_config()) and start["seed"] == 0
    assert start["packages"]["jax"] == jax.__version__ and len(start["packages"]["all_sha256"]) == 64
    assert start["devices"] == {"platform": "cpu", "kinds": {"cpu": len(jax.devices())}, "count": 1, "processes": 1} | {
        "count": len(jax.devices())
    }
    assert start["git"] is None or len(start["git"]["commit"]) == 40
    entry.close("SIGTERM", 7)
    (start,) = run_manifest.read(tmp_path)["starts"]
    assert (start["reason"], start["ended_step"]) == ("SIGTERM", 7) and start["ended"] >= start["began"]
    assert [path.name for path in tmp_path.iterdir()] == [run_manifest.RUN]


def test_a_restart_adds_what_has_changed_and_warns_of_data_and_packages(tmp_path, monkeypatch, caplog):
    opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        opened(tmp_path, 4)
    assert not caplog.records
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    (tmp_path / "checkpoints" / "8" / run_manifest.SUMS).write_text("{}")
    now = run_manifest.packages() | {"jax": "9.9"}
    monkeypatch.setattr(run_manifest, "packages", lambda: now)
    with caplog.at_level(logging.WARNING):
        opened(tmp_path, 8, Balls(gravity=True), seed=5).close("done", 9)
    first, second, third = run_manifest.read(tmp_path)["starts"]
    assert second.keys() == {"began", "step", "process"}
    assert third["config"]["seed"] == 5 and "host" not in third and len(third["checkpoint"]) == 64
    data, packages = (record.getMessage() for record in caplog.records)
    assert data == "since the run was started last, data changed: options.gravity: None -> True"
    assert packages == f"since the run was started last, packages changed: jax: {jax.__version__} -> 9.9"
    caplog.clear()
    monkeypatch.setenv("CJEPA_PRODUCTS", "wide")
    with caplog.at_level(logging.WARNING):
        opened(tmp_path, 9, Balls(gravity=True), seed=5).close("done", 9)
    assert "packages changed: CJEPA_PRODUCTS: (absent) -> wide" in caplog.text
    latest = run_manifest.latest(run_manifest.read(tmp_path))
    assert latest["seed"] == 5 and latest["host"] == first["host"] and latest["reason"] == "done"


def test_a_damaged_manifest_is_set_aside(tmp_path, caplog):
    (tmp_path / run_manifest.RUN).write_text('{"starts": ')
    opened(tmp_path, 3)
    assert len(run_manifest.read(tmp_path)["starts"]) == 1 and (tmp_path / f"{run_manifest.RUN}.bad").exists()
    assert "damaged, set aside" in caplog.text


def test_an_end_that_cannot_be_written_is_only_warned_of(tmp_path, caplog):
    entry = opened(tmp_path / "run" if (tmp_path / "run").mkdir() is None else None)
    shutil.rmtree(tmp_path / "run")
    entry.close("done", 3)
    assert "its end could not be written" in caplog.text


def test_no_secret_is_recorded():
    variables = {
        "XLA_FLAGS": "--a",
        "JAX_PLATFORMS": "cpu",
        "JAX_API_KEY": "x",
        "TPU_TOKEN": "y",
        "HOME": "/",
        "WANDB": "",
    }
    assert run_manifest.environment(variables) == {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--a"}


def test_topology():
    cores = [
        types.SimpleNamespace(platform="tpu", device_kind="v5", process_index=i // 4, coords=(i % 4, i // 4, 0))
        for i in range(8)
    ]
    assert run_manifest.topology(cores) == {
        **{"platform": "tpu", "kinds": {"v5": 8}, "count": 8, "processes": 2},
        "shape": [4, 2, 1],
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_knows_the_commit_and_what_differs_from_it(tmp_path):
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=package, check=True, capture_output=True)

    git("init")
    assert run_manifest.git(package) is None  # another project's checkout, which does not have the package
    git("add", ".")
    git("commit", "-m", "x")
    clean = run_manifest.git(package)
    assert clean["changed_sha256"] == "" and len(clean["commit"]) == 40
    (package / "__init__.py").write_text("a = 1")
    changed = run_manifest.git(package)
    assert changed["commit"] == clean["commit"] and len(changed["changed_sha256"]) == 64
    found = [changed]
    for content in ("b = 1", "b = 2"):
        (package / "new.py").write_text(content)
        found.append(run_manifest.git(package))
    assert len({each["changed_sha256"] for each in found}) == 3


@dataclasses.dataclass(frozen=True)
class Images:
    path: str
    size: int = 8

    def __len__(self):
        return 2

    def __getitem__(self, i):
        if pathlib.Path(self.path, "0").stat().st_size == 0:
            raise DataError("0: empty")
        return {"video": np.zeros((1, 8, 8, 3), np.uint8)}


def test_a_copy_has_the_same_fingerprint_and_other_data_another(tmp_path, monkeypatch):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("0", "deep/1"):
        (tmp_path / "a" / name).write_bytes(bytes(range(200)) * 20)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for most in (run_manifest.WHOLE_BYTES, 0):  # little data, and too much to be hashed whole
        monkeypatch.setattr(run_manifest, "WHOLE_BYTES", most)
        found = run_manifest.fingerprint(Images(str(tmp_path / "a")))
        assert found == run_manifest.fingerprint(Images(str(tmp_path / "b")))
        assert found["files"]["count"] == 2 and found["files"]["bytes"] == 8000 and found["options"] == {"size": "8"}
        (tmp_path / "b" / "deep" / "1").write_bytes(bytes(4000))
        assert found != run_manifest.fingerprint(Images(str(tmp_path / "b")))
        shutil.copy(tmp_path / "a" / "deep" / "1", tmp_path / "b" / "deep" / "1")
    (tmp_path / "b" / "0").write_bytes(b"")
    assert run_manifest.fingerprint(Images(str(tmp_path / "b")))["scene_0"] == "unreadable: 0: empty"
    monkeypatch.setattr(run_manifest, "MOST_FILES", 1)
    assert run_manifest.fingerprint(Images(str(tmp_path / "a")))["files"]["count"] == 1


def test_a_file_that_cannot_be_read_counts_by_name_and_size(tmp_path, monkeypatch):
    def refuse(file, edge=0, read=run_manifest.sha256):
        if file.name == "b":
            raise PermissionError("Permission denied")  # the tests' user may read everything
        return read(file, edge)

    for name in ("a", "b"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(run_manifest, "sha256", refuse)
    each = run_manifest.files(tmp_path)["each"]
    assert len(each["a"][1]) == 64 and each["b"] == [1, "unreadable"]


def test_worlds_differ_by_class_options_and_scenes():
    prints = [run_manifest.fingerprint(source) for source in (Balls(), Balls(), Balls(seed=1), Balls(size=32))]
    assert prints[0] == prints[1] and prints[0]["class"] == "cjepa_jax.data.worlds.balls:Balls"
    assert len({found["scene_0"] for found in prints}) == 3 and "files" not in prints[0]
    assert json.loads(json.dumps(prints[0])) == prints[0]


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b", "deep/empty", "deep/c"):
        (tmp_path / name).write_bytes(b"" if name == "deep/empty" else name.encode())
    run_manifest.seal(tmp_path, 7)
    return tmp_path


def test_sealed_files_are_verified_in_any_number_of_parts(sealed):
    assert run_manifest.verify(sealed, 7) == [] and run_manifest.verify(sealed, 8) == ["sha256.json is of step 7"]
    (sealed / "deep" / "b").write_bytes(b"deep/B")
    (sealed / "deep" / "empty").unlink()
    (sealed / "more").write_text("")
    wrong = ["deep/b is altered", "deep/empty is missing"]
    assert run_manifest.verify(sealed, 7) == wrong
    assert sorted(text for part in range(3) for text in run_manifest.verify(sealed, 7, part, 3)) == wrong


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"step": 7}', '{"step": 7, "files": {}}', "\0", '{"step": 7, "files": {"a": 1}}']
)
def test_damaged_checksums_are_damage_and_none_are_not(sealed, content):
    (sealed / run_manifest.SUMS).write_text(content)
    assert run_manifest.verify(sealed, 7) == ["sha256.json is damaged"]
    (sealed / run_manifest.SUMS).unlink()
    assert run_manifest.verify(sealed, 7) is None
