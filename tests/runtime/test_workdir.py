"""The run folder: one owner, one config, and files that survive a kill."""

import errno
import fcntl
import importlib
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from cjepa_jax.configuration.check import resolve
from cjepa_jax.errors import ConfigError, StorageError
from cjepa_jax.runtime.workdir import Workdir
from configs import clips

ROOT = pathlib.Path(__file__).parents[2]
HOLDER = """
import sys, time
from cjepa_jax.runtime.workdir import Workdir
with Workdir(sys.argv[1], {"a": 1}) as workdir:
    print("ready", flush=True)
    for step in range(int(sys.argv[2])):
        workdir.append_metrics({"step": step, "loss": 0.5})
    time.sleep(60)
"""


def holder(path, lines=0):
    command = [sys.executable, "-c", HOLDER, str(path), str(lines)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_process_is_refused_and_a_killed_one_frees_the_folder(tmp_path):
    first = holder(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"in use by another run .*host .*, process {first.pid}"):
            with Workdir(tmp_path, {"a": 1}):
                pass
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with Workdir(tmp_path, {"a": 1}):
        assert (tmp_path / ".lock").read_text().endswith(f"process {os.getpid()}\n")
        with pytest.raises(ConfigError, match="in use"):  # the lock is the open file's, not the process's
            Workdir(tmp_path, {"a": 1}).__enter__()
    with Workdir(tmp_path, {"a": 1}):
        pass


def test_config_is_stored_once_and_another_is_refused(tmp_path):
    config = clips.get_config()
    with Workdir(tmp_path / "a" / "b", config) as workdir:
        assert json.loads((workdir.path / "config.json").read_text()) == resolve(config)
    config.log.every = 3
    config.data.workers = 0
    with Workdir(tmp_path / "a" / "b", config) as workdir:
        assert json.loads((workdir.path / "config.json").read_text())["log"]["every"] == 3
    (workdir.checkpoints / "10").mkdir(parents=True)
    config.train.batch = 8
    config.seed = 4
    before = (workdir.path / "config.json").read_text()
    with pytest.raises(ConfigError, match=r"seed: 0 -> 4, train.batch: 32 -> 8\). Another --workdir") as caught:
        Workdir(workdir.path, config).__enter__()
    assert "\n" not in str(caught.value)
    assert (workdir.path / "config.json").read_text() == before
    config.train.batch, config.seed = 32, 0
    with Workdir(workdir.path, config):  # the refusal gave the lock back
        pass


@pytest.mark.parametrize("anchor, weight, mask, same", [
    (1, 0.005, "cjepa_jax.masks.objects:draw", False),
    (0, 0.005, "cjepa_jax.masks.objects:draw", True),
    (1, 0.0, "cjepa_jax.masks.objects:draw", True),
    (0, 0.005, "mine:draw", False),  # may leave removed objects visible without an anchor
])  # fmt: skip
def test_a_run_from_before_causal_tokens_goes_on_as_it_was_computed(tmp_path, anchor, weight, mask, same):
    config = clips.get_config()
    config.mask.anchor, config.objective.causal_weight, config.mask.type = anchor, weight, mask
    old = resolve(config)
    del old["objective"]["causal_tokens"]
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(old))
    if not same:
        with pytest.raises(ConfigError, match=r"\(objective.causal_tokens: context -> remaining\)"):
            Workdir(tmp_path, config).__enter__()
        config.objective.causal_tokens = "context"
    with Workdir(tmp_path, config):
        assert json.loads((tmp_path / "config.json").read_text()) == resolve(config)


@pytest.mark.parametrize("name", ["ijepa", "vjepa"])
def test_a_run_from_before_the_published_samplers_goes_on(tmp_path, name):
    config = importlib.import_module(f"configs.baselines.{name}").get_config()
    old = resolve(config)
    for key in {"tied", "corner", "batch"} & set(old["mask"]):
        del old["mask"][key]
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(old))
    with Workdir(tmp_path, config):
        pass
    (tmp_path / "config.json").write_text(json.dumps(old))
    config.mask.batch = 24
    with pytest.raises(ConfigError, match=r"\(mask.batch: 1 -> 24\)"):
        Workdir(tmp_path, config).__enter__()


def test_a_run_of_levels_from_before_the_pyramid_goes_on_without_one(tmp_path):
    config = importlib.import_module("configs.family.hjepa").get_config()
    old = resolve(config)
    del old["objective"]["fusion"]
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(ConfigError, match=r"\(objective.fusion: none -> add\)"):
        Workdir(tmp_path, config).__enter__()
    config.objective.fusion = "none"
    with Workdir(tmp_path, config):
        pass


def test_messages_name_the_folder_as_the_user_did(tmp_path):
    for options, name in (({}, "workdir = "), ({"setting": "--out="}, "--out=")):
        with Workdir(tmp_path, **options) as workdir:
            with pytest.raises(StorageError, match=f"^{name}{tmp_path}: "):
                workdir.require_space(2**62)
            with pytest.raises(ConfigError, match=f"^{name}{tmp_path}: in use"):
                Workdir(tmp_path, **options).__enter__()


def test_a_run_without_a_checkpoint_gives_way_to_another_config(tmp_path):
    for seed in (1, 2):
        with Workdir(tmp_path, {"seed": seed}):
            assert json.loads((tmp_path / "config.json").read_text()) == {"seed": seed}


def test_a_config_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(ConfigError, match="not readable as JSON"):
        Workdir(tmp_path, {"a": 1}).__enter__()


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="cannot be used as a run folder"):
            Workdir(path, {}).__enter__()


@pytest.mark.parametrize("name", ["[x]", "a]", "a\\b"])
def test_a_path_in_which_checkpoints_would_be_lost_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="^workdir = .* in its path, where checkpoints would be lost$"):
        Workdir(tmp_path / name / "run", {}).__enter__()
    assert not (tmp_path / name).exists()


def test_whoever_asks_who_trains_here_is_in_nobodys_way(tmp_path):
    with Workdir(tmp_path, {}):
        pass
    with open(tmp_path / ".lock") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as `holder` does
        ended = threading.Timer(0.1, fcntl.flock, (asking, fcntl.LOCK_UN))
        ended.start()
        with Workdir(tmp_path, {}) as workdir:
            assert workdir.holder().endswith(f"process {os.getpid()}")
        ended.join()


def test_result(tmp_path):
    with Workdir(tmp_path, {}) as workdir:
        assert workdir.finished is None
        workdir.finish({"step": np.int64(3), "loss": np.float32(0.5), "worst": math.inf})
    assert Workdir(tmp_path).finished == {"step": 3, "loss": 0.5, "worst": "inf"}
    (tmp_path / "result.json").write_text("5")
    with pytest.raises(ConfigError, match="result.json: is not a JSON object"):
        _ = Workdir(tmp_path).finished
    assert sorted(os.listdir(tmp_path)) == [".lock", "config.json", "result.json"]


def test_metrics_are_strict_json_lines(tmp_path):
    values = {"step": 1, "a": np.float32(0.25), "nan": math.nan, "low": -np.inf, "text": "x", "n": np.int32(2)}
    with Workdir(tmp_path, {}) as workdir:
        workdir.append_metrics(values)
        text = (tmp_path / "metrics.jsonl").read_text()  # flushed: no need to close first

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {
        **{"step": 1, "a": 0.25, "nan": "nan", "low": "-inf", "text": "x", "n": 2}
    }
    assert text.count("\n") == 1


def test_truncation_drops_later_steps_and_half_lines_and_appending_goes_on(tmp_path):
    with Workdir(tmp_path, {}) as workdir:
        for step in (1, 2, 3, 4):
            workdir.append_metrics({"step": step, "loss": 1 / step})
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"step": 2, "lo')
        assert [line["step"] for line in workdir.read_metrics()] == [1, 2, 3, 4]
        workdir.truncate_metrics(2)
        assert [line["step"] for line in workdir.read_metrics()] == [1, 2]
        workdir.append_metrics({"step": 3})
    assert [line["step"] for line in Workdir(tmp_path).read_metrics()] == [1, 2, 3]
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')


def test_a_damaged_line_is_left_out(tmp_path):
    damaged = b'{"step": 2, {"step": 3}\n\xff\xfe\n5\n[]\nnull\n{}\n{"step": "6"}\n'
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + damaged + b'{"step": 4}\n')
    assert [line["step"] for line in Workdir(tmp_path).read_metrics()] == [1, 4]
    Workdir(tmp_path).truncate_metrics(3)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_metrics_of_a_killed_process_are_whole(tmp_path):
    first = holder(tmp_path, lines=500)
    while len(Workdir(tmp_path).read_metrics()) < 500:
        assert first.poll() is None
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert [line["step"] for line in Workdir(tmp_path).read_metrics()] == list(range(500))


def test_no_metrics_yet(tmp_path):
    with Workdir(tmp_path, {}) as workdir:
        assert workdir.read_metrics() == []
        workdir.truncate_metrics(0)
        assert workdir.read_metrics() == []


def test_space(tmp_path):
    with Workdir(tmp_path, {}) as workdir:
        workdir.require_space(1)
        with pytest.raises(StorageError, match=r"MiB free, \d+ MiB needed"):
            workdir.require_space(2**62)


def test_checkpoints_that_exist_count_towards_the_space_that_a_run_needs(tmp_path):
    with Workdir(tmp_path, {}) as workdir:
        for name in ("10/default", "20/default", "20.bad"):
            (workdir.checkpoints / name).mkdir(parents=True)
            with open(workdir.checkpoints / name / "data", "wb") as file:
                file.truncate(2**42)  # holes: nothing is written
        free = shutil.disk_usage(tmp_path).free
        workdir.require_space(2**43 + free // 2, counting_checkpoints=True)
        with pytest.raises(StorageError):
            workdir.require_space(2**43 + free // 2)
        with pytest.raises(StorageError):
            workdir.require_space(2**43 + 2 * free, counting_checkpoints=True)


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with Workdir(tmp_path, {"a": 1}) as workdir:
        workdir.append_metrics({"step": 1})
    assert [record.getMessage() for record in caplog.records] == [
        f"workdir = {tmp_path}: its file system has no locks, a second run here would go unnoticed"
    ]
    assert (tmp_path / ".lock").read_text().endswith(f"process {os.getpid()}\n")
