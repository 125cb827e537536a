"""Writers: real files, read back by TensorBoard's own reader."""

import io
import json
import math
import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cjepa_jax.errors import ConfigError
from cjepa_jax.runtime.workdir import Workdir
from cjepa_jax.runtime.writers import Console, Writers, format_progress, format_seconds
from configs import clips


def config(**log):
    config = clips.get_config()
    config.log.update(log)
    return config


def scalars(path, name):
    events = EventAccumulator(str(path / "tb"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_every_writer_gets_the_numbers(tmp_path):
    with Workdir(tmp_path, config()) as workdir:
        writers = Writers(workdir, config())
        writers.write(10, {"loss": np.float32(0.5), "rankme": 3, "note": "text"})
        writers.write(20, {"loss": math.nan})
        writers.close()
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 0.5, "rankme": 3, "note": "text"}, {"step": 20, "loss": "nan"}]
    (first, second) = scalars(tmp_path, "loss")
    assert first == (10, 0.5) and second[0] == 20 and math.isnan(second[1])
    assert scalars(tmp_path, "rankme") == [(10, 3.0)]


def test_tensorboard_forgets_what_came_after_the_restored_step(tmp_path):
    with Workdir(tmp_path, config()) as workdir:
        first = Writers(workdir, config())
        for step in (10, 20, 30):
            first.write(step, {"loss": float(step)})
        first.close()
        second = Writers(workdir, config(), step=20)
        second.write(30, {"loss": 3.0})
        second.close()
    assert scalars(tmp_path, "loss") == [(10, 10.0), (20, 20.0), (30, 3.0)]


def test_tensorboard_forgets_a_run_that_was_killed_before_its_first_checkpoint(tmp_path):
    with Workdir(tmp_path, config()) as workdir:
        for values in ({10: 1.0, 20: 2.0}, {10: 3.0}):
            writers = Writers(workdir, config())
            for step, value in values.items():
                writers.write(step, {"loss": value})
            writers.close()
            time.sleep(1.1)  # a new second, a new file
    assert scalars(tmp_path, "loss") == [(10, 3.0)]


def test_tensorboard_can_be_left_out(tmp_path):
    with Workdir(tmp_path, config()) as workdir:
        writers = Writers(workdir, config(tensorboard=False))
        writers.write(1, {"loss": 1.0})
        writers.close()
    assert not (tmp_path / "tb").exists() and (tmp_path / "metrics.jsonl").exists()


WANDB = """
calls = []
class Run:
    def log(self, metrics, step):
        calls.append((step, metrics))
        if step > 1:
            raise RuntimeError("no connection")
    def finish(self):
        calls.append("finish")
def init(**keywords):
    calls.append(keywords)
    if keywords["config"]["seed"] == 9:
        raise RuntimeError("not logged in")
    return Run()
"""


def fake_wandb(folder, monkeypatch):
    (folder / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "wandb", None)  # noted, so that afterwards no stand-in is left behind
    del sys.modules["wandb"]
    import wandb

    return wandb


def test_wandb_that_fails_is_left_out_with_one_warning(tmp_path, monkeypatch, caplog):
    wandb = fake_wandb(tmp_path, monkeypatch)
    with Workdir(tmp_path / "run", config()) as workdir:
        writers = Writers(workdir, config(wandb=True))
        for step in (1, 2, 3):
            writers.write(step, {"loss": 1.0})
        writers.close()
        assert len(workdir.read_metrics()) == 3
    start, *calls = wandb.calls
    assert start["resume"] == "allow" and start["id"].startswith("run-") and start["config"]["train"]["batch"] == 32
    assert calls == [(1, {"loss": 1.0}), (2, {"loss": 1.0})]
    assert [record.getMessage() for record in caplog.records] == [
        "wandb failed and is left out from here on: no connection"
    ]


def test_wandb_that_cannot_start_is_left_out(tmp_path, monkeypatch, caplog):
    fake_wandb(tmp_path, monkeypatch)
    asked = config(wandb=True)
    asked.seed = 9
    with Workdir(tmp_path / "run", asked) as workdir:
        Writers(workdir, asked).write(1, {"loss": 1.0})
        assert len(workdir.read_metrics()) == 1
    assert "not logged in" in caplog.text


def test_wandb_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python itself does for "not there"
    with (
        Workdir(tmp_path, config()) as workdir,
        pytest.raises(ConfigError, match="log.wandb = True: needs the package wandb"),
    ):
        Writers(workdir, config(wandb=True))


METRICS = {
    "loss": np.float32(5.1234),
    "loss/prediction": 4.9,
    "loss/causal": 0.31,
    "loss/sigreg": 1.9,
    "loss/sigreg_floor": 2.5,
    "grad_norm": 7.0,
    "scenes_per_s": 412.3,
    "data_wait": 0.03,
    "eta_s": 151.0,
    "rankme": 41.23,
}


def test_progress_line():
    assert format_progress(120, 1000, METRICS) == (
        "step 120/1000  loss 5.123 (prediction 4.9 causal 0.31 sigreg 1.9)  412 scenes/s  data-wait 3 %  ETA 2:31  "
        "eff. rank 41.2"
    )


def test_progress_line_with_little_and_with_trouble():
    assert format_progress(0, 10, {}) == "step 0/10"
    assert format_progress(3, 10, {"loss": math.nan, "eta_s": math.inf, "skipped_total": 2}) == (
        "step 3/10  loss nan  ETA ?  skipped 2"
    )


@pytest.mark.parametrize("seconds,text", [(0, "0:00"), (59.6, "1:00"), (151, "2:31"), (3751, "1:02:31"), (-3, "0:00")])
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream,text", [
    (io.StringIO(), "a\nb\nkept\nc\n"),
    (Terminal(), "\r\033[Ka\r\033[Kb\nkept\n\r\033[Kc"),
])  # fmt: skip
def test_console(stream, text):
    console = Console(stream)
    console.progress("a")
    console.progress("b")
    console.print("kept")
    console.progress("c")
    assert stream.getvalue() == text
