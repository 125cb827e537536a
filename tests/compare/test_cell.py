"""One cell's parts without running it: the tuned value, the budget's steps, what a stopped training leaves."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from cjepa_jax import __version__
from cjepa_jax.compare import cell as cells
from cjepa_jax.compare import suite as suites
from cjepa_jax.compare.cell import CellError, CellStopped, Lab
from cjepa_jax.compare.suite import Cell
from cjepa_jax.compare.table import validation_score
from cjepa_jax.configuration import locate
from cjepa_jax.errors import PREEMPTED, ConfigError
from cjepa_jax.runtime import foreign
from tests.compare.test_suite import MICRO
from tests.running import gone

ROOT = pathlib.Path(__file__).parents[2]
GRID = (5e-4, 1e-3, 2e-3)


@pytest.fixture
def lab(tmp_path):
    return Lab(suites.load(str(MICRO)), tmp_path)


def tune(lab, method, value, result):
    cell = Cell("balls", method, 0, value)
    overrides = json.loads(json.dumps(lab.suite.overrides(cell, 10, value)))
    record = {"suite": "micro", "cell": vars(cell), "overrides": overrides, "steps": 10, "flops": 1.35e12}
    lab.record(cell).parent.mkdir(exist_ok=True)
    lab.record(cell).write_text(json.dumps(record | {"tuned": {"optim.peak": value}, "result": result}))


def scored(value):
    return {"probe/count_r2": value, "probe/position_r2": value, "probe/count_r2_random": 9.0, "probe/rankme": 99.0}


def test_the_tuned_value_is_the_best_of_the_grid_and_serves_the_pair(lab):
    for value, score in zip(GRID, (0.1, 0.3, "nan"), strict=True):
        tune(lab, "cjepa_anchor", value, scored(score))
    for method in ("cjepa_anchor", "objects", "displaced"):
        assert lab.settled(Cell("blocks", method, 1)) == 1e-3
    assert lab.settled(Cell("blocks", "random", 1)) is None and lab.settled(Cell("balls", "ijepa", 0, 2e-3)) == 2e-3


def test_a_value_that_diverged_is_passed_over_and_three_are_refused(lab):
    tune(lab, "ijepa", GRID[0], {})
    tune(lab, "ijepa", GRID[1], scored(-0.5))
    with pytest.raises(ConfigError, match="run --phase=tune first. balls-ijepa-tune0.002 missing"):
        lab.settled(Cell("balls", "ijepa", 1))
    tune(lab, "ijepa", GRID[2], {})
    assert lab.settled(Cell("balls", "ijepa", 1)) == 1e-3
    tune(lab, "ijepa", GRID[1], {})
    with pytest.raises(ConfigError, match="diverged at every value"):
        lab.settled(Cell("balls", "ijepa", 1))


def test_steps_follow_from_the_budget(lab):
    cost = {"flops": 1e10}
    assert lab.steps(Cell("balls", "cjepa", 1), cost) == 338 and lab.steps(Cell("balls", "cjepa", 0, 1e-3), cost) == 135
    assert lab.steps(Cell("balls", "random", 1), cost) == 0 and lab.steps(Cell("balls", "byol", 1), cost) == 60


def test_a_method_may_have_another_ones_steps_with_every_seed_and_without_tuning(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MICRO.read_text().replace('"steps": 60}', '"steps_of": "cjepa"}'))
    suite = suites.load(str(tmp_path / "mine.py"))
    lab = Lab(suite, tmp_path)
    monkeypatch.setattr(Lab, "cost", lambda self, cell: {"flops": {"cjepa": 1e10, "byol": 3e10}[cell.method]})
    cell = Cell("balls", "byol", 2)
    assert lab.steps(cell, lab.cost(cell)) == lab.steps(Cell("balls", "cjepa", 2), {"flops": 1e10}) == 338
    assert sum(cell.method == "byol" for cell in suite.cells()) == 6 and not suite.smoke("byol")
    assert "byol" not in {cell.method for cell in suite.tuned()}


def test_a_training_that_was_stopped_is_no_finished_cell(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(
        Lab, "_command", lambda self, home, module, *arguments: 0
    )  # ends with 0 when it is asked to stop
    with pytest.raises(CellError, match="was stopped"):
        lab._train(Cell("balls", "cjepa", 1), tmp_path / "home")


PRETENDING = "tests.compare.pretending"


@pytest.fixture
def home(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize("how", ["75", "130", "SIGTERM", "SIGUSR1"])
def test_a_command_that_a_signal_stopped_is_not_one_that_failed(lab, home, how):
    with pytest.raises(CellStopped, match=f"home: {PRETENDING} ended with") as caught:
        lab._command(home, PRETENDING, f"--end={how}")
    assert caught.value.exit_code == PREEMPTED


def test_a_command_that_fails_says_so_and_knows_its_parent(lab, home):
    assert lab._command(home, PRETENDING, "--end=3") == 3
    assert (home / "log.txt").read_text() == f"parent {os.getpid()}\n"


@pytest.mark.parametrize("told", [False, True])
def test_a_comparison_that_is_to_stop_tells_its_command_once(lab, home, monkeypatch, told):
    monkeypatch.setattr(cells, "LOOK", 0.1)
    monkeypatch.setattr(cells, "HEARD", 0.3)
    asked = []

    def stopping():
        asked.append("told" if "ready" in (home / "log.txt").read_text() else "")
        return bool(asked[-1])

    # One that SLURM has signalled as well says that it saves, and ends by itself. A second signal would be "at once".
    lab = dataclasses.replace(lab, stopping=lambda: (home / "log.txt").exists() and stopping())
    with pytest.raises(CellStopped, match="ended with 75: got 0 signals" if told else "ended with 75: got 1 signals"):
        lab._command(home, PRETENDING, "--told" if told else "--wait")


def test_nothing_is_begun_by_a_comparison_that_is_to_stop(lab, home):
    with pytest.raises(CellStopped, match="not begun"):
        dataclasses.replace(lab, stopping=lambda: True)._command(home, PRETENDING, "--end=0")
    assert not (home / "log.txt").exists()


def test_a_command_ends_with_whoever_started_it():
    code = f"""
import os, subprocess, sys
from cjepa_jax.runtime import preemption as signals
environment = os.environ | {{signals.PARENT: str(os.getpid())}}
child = subprocess.Popen([sys.executable, "-m", {PRETENDING!r}, "--wait"], env=environment, stdout=subprocess.PIPE)
child.stdout.readline(), child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert gone([child], seconds=30)


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"steps": "x"}', "[" * 5000, ""])
def test_a_damaged_record_is_one_line(lab, content):
    cell = Cell("balls", "ijepa", 0, 1e-3)
    tune(lab, "ijepa", 1e-3, scored(0.5))
    assert lab.finished(cell)
    lab.record(cell).write_text(content)
    with pytest.raises(ConfigError, match="balls-ijepa-tune0.001.json: is no") as caught:
        lab.finished(cell)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "field, value", [("steps", "ten"), ("tuned", {"optim.peak": "x"}), ("cell", None), ("flops", [])]
)
def test_a_record_with_text_for_a_number_is_one_line(lab, field, value):
    cell = Cell("balls", "ijepa", 0, 1e-3)
    tune(lab, "ijepa", 1e-3, scored(0.5))
    record = json.loads(lab.record(cell).read_text()) | {field: value}
    lab.record(cell).write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=f"is not a record of a cell .*{field}"):
        lab.finished(cell)


@pytest.mark.parametrize(
    "field, value",
    [("flops", 10**400), ("flops", float("nan")), ("tuned", {"optim.peak": 10**400}), ("parameters", 5)],
    ids=str,
)
def test_a_record_with_numbers_that_cannot_be_is_one_line(lab, field, value):
    cell = Cell("balls", "ijepa", 0, 1e-3)
    tune(lab, "ijepa", 1e-3, scored(0.5))
    lab.record(cell).write_text(json.dumps(json.loads(lab.record(cell).read_text()) | {field: value}))
    with pytest.raises(ConfigError, match=f"is not a record of a cell .*{field}"):
        lab.finished(cell)


@pytest.mark.parametrize("value", ["x", [], None, 10**400, "nan"], ids=str)
def test_a_probe_without_a_number_counts_as_one_that_diverged(value):
    assert validation_score({"result": {"probe/a_r2": 0.5, "probe/b_r2": value}}) == float("-inf")
    assert validation_score({"result": {"probe/a_r2": 0.5, "probe/b_r2": 1}}) == 0.75
    found = {"result": {"probe/a_r2": 0.5, "removals/do_contrast": 0.2}}
    assert validation_score(found, "removals/do_contrast") == 0.2
    assert validation_score(found, "removals/other") == 0.5  # a method that does not log it


@pytest.mark.parametrize("content", ["null", "[1]", "{", "nan"])
def test_a_damaged_result_is_one_line(lab, home, monkeypatch, content):
    monkeypatch.setattr(Lab, "_command", lambda self, home, module, *arguments: 0)
    (home / "run").mkdir()
    (home / "run" / "result.json").write_text(content)
    with pytest.raises(ConfigError, match="result.json: is no"):
        lab._train(Cell("balls", "cjepa", 1), home)
    (home / "evaluation").mkdir()
    (home / "evaluation" / "results.json").write_text('{"about": null}')
    with pytest.raises(CellError, match="results.json: is not the results"):
        lab._evaluate(home, "random")


def test_a_wheel_has_a_version_and_not_the_commit_of_what_its_environment_lies_in(monkeypatch):
    monkeypatch.setattr(locate, "clone", lambda: None)
    assert cells.commit() == f"cjepa_jax {__version__}"


def test_outside_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert cells.commit() == ""


def test_a_cells_own_code_is_trusted_in_its_run_and_no_other(lab, tmp_path, monkeypatch):
    text = MICRO.read_text().replace('"mask.type": "cjepa_jax.masks.displaced:draw"', '"mask.type": "mine:draw"')
    (tmp_path / "own.py").write_text(text)
    own = Lab(suites.load(str(tmp_path / "own.py")), tmp_path, trust=("theirs",))
    seen = []
    monkeypatch.setattr(Lab, "_command", lambda self, *_: seen.append(self.trust) or 1)
    for method in ("displaced", "cjepa"):
        with pytest.raises(CellError):
            (tmp_path / "log.txt").write_text("error: no\n")
            own.trusting(Cell("balls", method, 1))._evaluate(tmp_path, tmp_path / "run")
    assert seen == [("theirs", "mine:draw"), ("theirs",)]
    assert foreign.trusted(",".join(seen[0])) == seen[0]
