"""The doctor on folders as the trainer leaves them: what it says, its exit code, and that it changes nothing."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from cjepa_jax import doctor
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import CjepaError, ConfigError
from cjepa_jax.runtime import run_manifest
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.runtime.workdir import Workdir
from configs import clips
from tests.running import ROOT


def make(path, steps=20, saves=(10, 20), seed=0):
    """A run's folder, made by the parts that the trainer makes it with."""
    config = clips.get_config()
    config.seed = seed
    with Workdir(path, config) as workdir:
        entry = run_manifest.open_run(workdir, config, Balls(seed=seed), jax.devices(), 0)
        checkpoints = Checkpoints(workdir.checkpoints)
        for step in range(1, steps + 1):
            if step % config.log.every == 0:
                workdir.append_metrics({"step": step, "loss": 1 / step + seed, "step_time_ms": 3.0})
            if step in saves:
                checkpoints.save(step, {"w": jnp.full(9, step)})
        checkpoints.close()
        workdir.finish({"step": steps})
        entry.close("done", steps)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def ask(capsys, *arguments):
    """(exit code, what is printed). Nothing in the folder may change."""
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in sorted_files(arguments[0])}
    code = doctor.main([str(argument) for argument in arguments])
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in sorted_files(arguments[0])} == before
    return code, capsys.readouterr().out


def forget_the_end(run):
    content = json.loads((run / run_manifest.RUN).read_text())
    del content["starts"][-1]["reason"]
    (run / run_manifest.RUN).write_text(json.dumps(content))


def sorted_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_finished_run_is_healthy(run, capsys):
    code, text = ask(capsys, run)
    assert code == 0 and "WRONG" not in text and text.endswith("Healthy and finished: there is nothing to do.\n")
    for line in ("Ended at step 20: done", "steps 10 to 20, none missing", "step 20 ", "whole: ", "free: nobody"):
        assert line in text


def test_a_damaged_checkpoint_is_named_with_what_to_do(run, capsys):
    largest = max(sorted_files(run / "checkpoints" / "20" / "default"), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    code, text = ask(capsys, run)
    name = largest.relative_to(run / "checkpoints" / "20").as_posix()
    assert code == 4 and f"damaged: {name} is altered" in text and "It resumes from step 10 " in text
    for file in sorted_files(run / "checkpoints" / "10"):
        file.unlink()
    code, text = ask(capsys, run)
    assert code == 4 and "step 10, step 20 damaged, and no checkpoint is whole: the run cannot resume." in text


def test_traces_of_kills_are_explained_and_healthy(run, capsys):
    (run / "result.json").unlink()
    forget_the_end(run)
    (run / "checkpoints" / "20" / run_manifest.SUMS).unlink()
    for name in ("5.bad", "30.orbax-checkpoint-tmp"):
        (run / "checkpoints" / name).mkdir()
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "lo')
    code, text = ask(capsys, run)
    assert code == 0 and "Healthy. The same command resumes from step 20." in text
    for part in (
        "Half a line at the end",
        "5.bad",
        "is not used",
        "was not saved completely",
        "no sha256.json",
        "killed",
    ):
        assert part in text


def test_metrics_that_lack_repeat_or_garble_steps(run, capsys):
    lines = [f'{{"step": {step}, "loss": 1.0}}\n' for step in (10, 20, 20, 50)]
    (run / "metrics.jsonl").write_text("".join([*lines, "?\n"]))
    code, text = ask(capsys, run)
    assert code == 1 and "1 lines are unreadable; twice: steps 20; missing: steps 30, 40" in text
    (run / "metrics.jsonl").write_text(lines[0] + "[]\n")
    code, text = ask(capsys, run)
    assert code == 1 and "1 lines are unreadable; missing: steps 20" in text  # there is a checkpoint of step 20
    (run / "metrics.jsonl").unlink()
    code, text = ask(capsys, run)
    assert code == 1 and "missing: steps 10, 20" in text


@pytest.mark.parametrize("starts", [5, [1], [None], {"a": 1}, "text", 1.5])
def test_a_config_that_looks_like_a_manifest_is_looked_at(run, capsys, starts):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"starts": starts}))
    assert ask(capsys, run)[0] == 0


def test_lines_that_quote_a_file_are_of_bounded_length(run, capsys):
    (run / "metrics.jsonl").write_text(json.dumps({"step": 20, "loss": "x" * 10**6, "fallback_scenes": 10**400}) + "\n")
    content = json.loads((run / run_manifest.RUN).read_text())
    content["starts"][-1] |= {"reason": "\x1b[2J" * 10**5, "python": "y" * 10**6}
    (run / run_manifest.RUN).write_text(json.dumps(content))
    for arguments in ((run,), (run, "--diff", run)):
        text = ask(capsys, *arguments)[1]
        assert len(text) < 10**5 and text.replace("\n", "").isprintable()


def test_a_disk_that_does_not_answer_is_no_damage(run, capsys, monkeypatch):
    def fail(folder, step):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run_manifest, "verify", fail)
    code, text = ask(capsys, run)
    assert code == 1 and "step 20: cannot be read now (Input/output error), which says nothing about it" in text


def test_a_step_that_the_run_is_deleting_is_not_called_damaged(run, monkeypatch):
    looked = run_manifest.verify

    def verify(folder, step):
        (folder / "default" / "manifest.ocdbt").unlink()
        threading.Timer(0.1, shutil.rmtree, [folder]).start()
        return looked(folder, step)

    shutil.rmtree(run / "checkpoints" / "20")
    monkeypatch.setattr(run_manifest, "verify", verify)
    monkeypatch.setattr("time.sleep", lambda seconds, sleep=doctor.time.sleep: sleep(seconds / 2))
    with Workdir(run) as workdir:
        assert not any(finding.what.startswith("step") for finding in doctor.examine(workdir))


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("config.json", "{", 2), ("result.json", "5", 2), (run_manifest.RUN, '{"starts": 3}', 1)],
)
def test_damaged_files_of_the_run(run, capsys, name, content, code):
    (run / name).write_text(content)
    found, text = ask(capsys, run)
    assert found == code and text.count("WRONG") == 1 and "damaged, but there are other faults (" in text


@pytest.mark.parametrize("start", [{"config": 3}, {"config": {"log": "x"}}, {"config": {"log": {"every": "x"}}}, {}])
def test_a_manifest_with_another_config_in_it_is_looked_at(run, capsys, start):
    (run / "run_manifest.json").write_text(json.dumps({"starts": [start | {"step": "x", "began": 3}]}))
    assert doctor.main([str(run)]) == 0
    assert "manifest" in capsys.readouterr().out


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        doctor.main([str(tmp_path / "none")])
    with pytest.raises(ConfigError, match=f"not a run's folder, .*. Its folders {tmp_path}/run are"):
        doctor.main([str(tmp_path)])


def test_two_runs_are_compared(run, tmp_path, capsys):
    make(tmp_path / "other", seed=3, saves=())
    code, text = ask(capsys, run, "--diff", tmp_path / "other")
    assert code == 0 and "config:\n  seed: 0 -> 3\n" in text and "packages: the same\n" in text
    assert "data.scene_0: " in text and "  loss: 0.05 -> 3.05\n" in text and "step_time_ms" not in text
    (tmp_path / "other" / run_manifest.RUN).write_text("{")
    with pytest.raises(CjepaError, match="is damaged"):
        doctor.main([str(run), "--diff", str(tmp_path / "other")])


def test_a_run_that_goes_on_is_told_from_one_that_was_killed_without_starting_jax(run):
    code = "import sys, time; from cjepa_jax.runtime.workdir import Workdir\n"
    code += "with Workdir(sys.argv[1]): print(1, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, run], cwd=ROOT, stdout=subprocess.PIPE)
    holder.stdout.readline()
    (run / "result.json").unlink()
    forget_the_end(run)
    ask = (
        "import sys; from cjepa_jax import doctor; code = doctor.main(sys.argv[1:]); print('jax' in sys.modules, code)"
    )
    try:
        out = subprocess.run([sys.executable, "-c", ask, run], cwd=ROOT, capture_output=True, text=True).stdout
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert f", process {holder.pid} trains here" in out and "; running" in out
    assert out.endswith("Healthy, and running.\nFalse 0\n")
    assert Workdir(run).holder() is None
