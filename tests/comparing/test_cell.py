"""One cell's parts without running it: the tuned value, the budget's steps, what a stopped training leaves."""

import json

import pytest

from cjepa_jax.comparing import cell as cells
from cjepa_jax.comparing import suite as suites
from cjepa_jax.comparing.cell import CellError, Lab
from cjepa_jax.comparing.suite import Cell
from cjepa_jax.errors import ConfigError
from tests.comparing.test_suite import MICRO

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
    with pytest.raises(ConfigError, match="run --phase=tune first; balls-ijepa-tune0.002 missing"):
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


def test_a_training_that_was_stopped_is_no_finished_cell(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(
        Lab, "_command", lambda self, home, module, *arguments: 0
    )  # ends with 0 when it is asked to stop
    with pytest.raises(CellError, match="was stopped"):
        lab._train(Cell("balls", "cjepa", 1), tmp_path / "home")


def test_outside_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert cells.commit() == ""
