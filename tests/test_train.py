"""The training command from end to end, in real processes."""

import json
import math
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cjepa_jax.data.pipeline import scene_at
from cjepa_jax.errors import PREEMPTED
from tests import running

METRICS = (
    "loss loss/prediction loss/causal loss/sigreg loss/sigreg_floor learning_rate ema_momentum grad_norm update_norm "
    "feature_std rankme context_fraction fallback_scenes skipped skipped_total scenes_per_s data_wait eta_s "
    "step_time_ms step_time_p50_ms step_time_p95_ms step_time_p99_ms step_time_max_ms goodput compilations "
    "replaced_scenes"
).split()
GROUPS = ("count", "position", "velocity", "size")
PROBES = [f"probe/{group}_r2{beside}" for group in GROUPS for beside in ("", "_random", "_pixels")]
PROBES += [f"probe/{name}{beside}" for name in ("rankme", "feature_std", "response") for beside in ("", "_random")]


def test_it_says_what_it_will_do_then_how_it_goes_then_where_things_are(finished):
    workdir, _, out = finished
    for text in ("encoder/tokenizer/projection/kernel", "Total: ", f"run      {workdir}", "devices  1 x cpu"):
        assert text in out
    assert "data     Balls, 64 scenes, 2 x 32^2, 16 tokens, intervened by rerender" in out
    assert "steps    24 of 8 scenes" in out
    progress = [line for line in out.splitlines() if line.startswith("step ")]
    assert len(progress) == 12
    number = r"-?[\d.e+-]+"
    terms = rf"\((?=.*prediction {number})(?=.*causal {number})(?=.*sigreg {number}).*\)"
    rest = rf"{number} scenes/s  data-wait \d+ %  ETA \d+:\d\d  eff. rank {number}"
    for step, line in zip(range(2, 25, 2), progress, strict=True):
        assert re.fullmatch(rf"step {step}/24  loss {number} {terms}  {rest}", line), line
    assert f"report: {workdir / 'report.html'}" in out.splitlines()[-1] and f": {workdir}\n" in out


def test_everything_is_in_the_folder(finished):
    workdir, argv, _ = finished
    logged, probes = running.metrics(workdir)
    assert [line["step"] for line in logged] == list(range(2, 25, 2))
    assert [line["step"] for line in probes] == [12, 24]
    for line in logged:
        assert not set(METRICS) - set(line)
        assert all(np.isfinite(line[name]) for name in METRICS)
    for line in probes:
        assert not set(PROBES) - set(line)
    assert logged[-1]["skipped_total"] == logged[-1]["replaced_scenes"] == 0

    result = json.loads((workdir / "result.json").read_text())
    assert result["step"] == 24 and result["resumed_at"] == 0
    assert all(result[name] == line[name] for line in (logged[-1], probes[-1]) for name in line)
    assert json.loads((workdir / "config.json").read_text())["objective"]["encoder"]["depth"] == 1
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir())[-1] == "24"

    pictures = np.load(workdir / "report.npz", allow_pickle=False)
    assert pictures["video"].shape == (8, 2, 32, 32, 3)
    assert pictures["predicted_change"].shape == pictures["true_change"].shape == (8, 16)
    assert "<html" in (workdir / "report.html").read_text()[:200].lower()

    events = EventAccumulator(str(workdir / "tb"))
    events.Reload()
    curve = events.Scalars("loss/prediction")
    assert [event.step for event in curve] == [line["step"] for line in logged]
    assert np.allclose([event.value for event in curve], [line["loss/prediction"] for line in logged])
    assert events.Scalars("probe/rankme")[-1].step == 24


def test_the_logged_rate_and_momentum_are_the_configs(finished):
    """Means over two steps each, of 24: a warm-up of round(0.06 x 24) = 1 step to 0.001, then a cosine to 0."""
    logged, _ = running.metrics(finished[0])
    rates = [0.0, *(0.001 * (1 + math.cos(math.pi * step / 23)) / 2 for step in range(23))]
    momenta = [1 - 0.004 * (1 + math.cos(math.pi * step / 24)) / 2 for step in range(24)]
    for name, values, tolerance in (("learning_rate", rates, 1e-9), ("ema_momentum", momenta, 2e-7)):
        expected = np.reshape(values, (12, 2)).mean(1)
        np.testing.assert_allclose([line[name] for line in logged], expected, atol=tolerance, err_msg=name)


@pytest.fixture
def copied(finished, tmp_path):
    """(folder, argv) of a copy to write into."""
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    return workdir, [word.replace(str(finished[0]), str(workdir)) for word in finished[1]]


def test_a_finished_run_only_prints_its_result(finished, copied):
    (workdir, argv), out = copied, finished[2]
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.name not in (".lock", "config.json")}
    again, err = running.run(argv)
    result = out[out.index("probe at step 24: ") :].splitlines()[0].removeprefix("probe at step 24: ")
    assert again == f"finished already: {workdir}\n{result}\n" and err == ""
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_config_is_refused_by_name_and_harmless_keys_may_change(copied):
    workdir, argv = copied
    line = running.error([*argv, "--config.optim.peak=0.5", "--config.seed=3"], 2)
    assert "belongs to another config (optim.peak: 0.001 -> 0.5, seed: 0 -> 3)" in line
    harmless = ("data.workers=1", "log.every=5", "checkpoint.keep=7", "data.prefetch=1", "probe.every=0")
    running.run([*argv, *(f"--config.{value}" for value in harmless)])


@pytest.mark.parametrize("restarted", [False, True])
def test_a_signal_before_jax_is_even_imported_is_a_stop_like_any_other(tmp_path, restarted):
    slow = f"""import os, time
def get_config():
    if ("hugetlb" in os.environ.get("GLIBC_TUNABLES", "")) is {restarted}:  # set where the command restarts itself
        print("here", flush=True)
        time.sleep(60)
    from configs import clips
    return clips.get_config()
"""
    (tmp_path / "slow.py").write_text(slow)
    process = running.start(running.command(tmp_path / "run", tmp_path / "slow.py"), begin="python")
    running.read_until(process, "here")
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == PREEMPTED


def test_the_example_folder_trains(tmp_path):
    small = {key.replace(".", "__"): None for key in running.SMALL}
    small |= {"train__steps": 3, "probe__every": 0, "log__every": 1, "log__tensorboard": False, "data__size": 32}
    small |= {"objective__encoder__depth": 1, "objective__predictor__depth": 1, "log__report": False}
    small |= {"data__row_lengths": (1.0,)}
    running.run(running.command(tmp_path, "configs/folder.py", **small))
    logged, probes = running.metrics(tmp_path)
    assert [line["step"] for line in logged] == [1, 2, 3] and probes[-1]["probe/count_r2_pixels"] <= 1


@pytest.mark.slow
def test_eight_devices_give_the_loss_of_one(finished, tmp_path):
    running.run(running.command(tmp_path), devices=8)
    eight, one = (running.metrics(folder)[0][0] for folder in (tmp_path, finished[0]))
    for name in ("loss", "loss/prediction", "loss/causal", "loss/sigreg", "rankme"):
        assert eight[name] == pytest.approx(one[name], rel=1e-5), name


# ---------------------------------------------------------------------- numbers that are not


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A config whose steps 3, 4 and 7 are not finite, and how to run it."""
    file = tmp_path_factory.mktemp("config") / "poisoned.py"
    file.write_text(
        "from configs import clips\n\n\ndef get_config():\n    config = clips.get_config()\n"
        "    config.objective.type = 'tests.broken_objective:NanAt'\n"
        "    with config.unlocked():\n        config.objective.at = (3, 4, 7)\n    return config\n"
    )

    def command(workdir, **values):
        # Rows of one length: a second one would be another program of this objective's own.
        kept = {"log__every": 1, "checkpoint__every": 1, "checkpoint__keep": 9, "data__row_lengths": (1.0,)}
        return running.command(
            workdir, file, **kept | {"train__steps": 8, "probe__train": 1, "probe__test": 1} | values
        )

    return command


def test_steps_that_are_not_finite_change_nothing_and_are_counted(poisoned, tmp_path):
    _, err = running.run(poisoned(tmp_path))
    assert err.count("warning: update skipped") == 3
    logged, _ = running.metrics(tmp_path)
    assert [line["skipped"] for line in logged] == [0, 0, 1, 1, 0, 0, 1, 0]
    assert [line["skipped_total"] for line in logged] == [0, 0, 1, 2, 2, 2, 3, 3]
    assert [line["loss"] == "nan" for line in logged] == [0, 0, 1, 1, 0, 0, 1, 0]
    states = {step: running.arrays(tmp_path, step) for step in range(1, 9)}
    for step in range(2, 9):
        changed = {name for name, array in states[step].items() if not np.array_equal(array, states[step - 1][name])}
        changed.discard("['checksums']")
        if step in (3, 4, 7):
            assert changed == {"['state']['step']", "['state']['skipped']"}
        else:
            assert "['state']['skipped']" not in changed and len(changed) > 50
    assert states[8]["['state']['skipped']"] == 3 and states[8]["['state']['step']"] == 8
    assert all(np.isfinite(array).all() for array in states[8].values())


def test_past_the_budget_the_run_stops_and_says_where_and_why(poisoned, tmp_path):
    argv = poisoned(tmp_path, train__nonfinite_budget=1, checkpoint__every=2)
    line = running.error(argv, 5)
    culprit, _ = scene_at(3 * 8 + 1, 64, 0)
    text = rf"2 non-finite steps, train.nonfinite_budget = 1: step 4: loss nan, gradient norm nan. Scenes {culprit}. "
    text += r"Last finite: step 2, loss [\d.]+, grad_norm [\d.]+, learning_rate [\d.e-]+"
    assert re.fullmatch(f"error: {text}", line), line
    logged, _ = running.metrics(tmp_path)
    assert [line["step"] for line in logged] == [1, 2, 3, 4], "the steps before the stop are logged, the last included"


# ---------------------------------------------------------------------- data that is not


def faulty(workdir, **values):
    options = {name: values.pop(name) for name in ("broken", "buggy", "deadly") if name in values}
    few = {"probe__train": 1, "probe__test": 1, "probe__every": 0, "checkpoint__every": 24}
    values = few | {"data__max_replaced": 1.0, "data__options": options} | values
    return running.command(workdir, data__source="tests.broken_source:Faulty", **values)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_unreadable_scenes_are_replaced_and_counted(tmp_path, workers):
    _, err = running.run(faulty(tmp_path, broken=(3, 40), data__workers=workers))
    assert "scene 3 replaced by the next: scene 3 is cut short" in err
    assert sum(line["replaced_scenes"] for line in running.metrics(tmp_path)[0]) == 6  # three epochs


def test_too_many_unreadable_scenes_end_the_run(tmp_path):
    line = running.error(faulty(tmp_path, broken=tuple(range(0, 64, 4)), data__max_replaced=0.1), 3)
    assert re.search(r"\d+ of \d+ scenes could not be read: more than data.max_replaced = 0.1", line)


@pytest.mark.slow
def test_no_readable_scene(tmp_path):
    assert "is cut short" in running.error(faulty(tmp_path, broken=tuple(range(64))), 3)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_mistake_in_a_source_names_the_scene(tmp_path, workers):
    line = running.error(faulty(tmp_path, buggy=(9,), data__workers=workers), 3)
    assert "scene 9: ZeroDivisionError: integer division or modulo by zero" in line


def test_a_killed_data_worker_ends_the_run_clearly(tmp_path):
    line = running.error(faulty(tmp_path, deadly=(9,), data__workers=1), 3)
    assert "a data worker" in line and "exit code -9" in line


@pytest.mark.slow
def test_a_killed_data_worker_ends_the_run_soon(tmp_path):
    process = running.start(running.command(tmp_path, data__workers=1, train__steps=5000, log__every=1))
    running.read_until(process, "step 3/")
    workers = running.children(process.pid)
    os.kill(next(pid for pid in workers if "spawn_main" in running.title(pid)), signal.SIGKILL)
    killed = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 10
    assert process.returncode == 3 and "a data worker" in err and err.count("\n") == 1, err
    assert running.gone(workers)
