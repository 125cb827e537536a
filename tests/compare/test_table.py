"""The table against numbers done by hand."""

import dataclasses
import json

import numpy as np
import pytest

from cjepa_jax.compare import suite as suites
from cjepa_jax.compare import table
from cjepa_jax.compare.suite import Cell
from cjepa_jax.errors import ConfigError, DataError
from tests.compare.test_suite import MICRO


@pytest.fixture(scope="module")
def micro():
    suite = suites.load(str(MICRO))
    return dataclasses.replace(
        suite, columns={"x": ("p", "acc"), "wrong": ("p", "acc", "wrong object")}, contrasts=(("cjepa", "ijepa"),)
    )


def record(suite, world, method, seed, value):
    scores = [
        {"metric": "acc", "row": "trained", "value": value, "interval": 0.1, "kind": "result"},
        {"metric": "acc", "row": "query only", "value": 0.5, "interval": 0.02, "kind": "floor"},
        {"metric": "acc", "row": "random init", "value": 0.4, "interval": float("nan"), "kind": "floor"},
        {"metric": "acc", "row": "wrong object", "value": value / 2, "interval": 0.02, "kind": "floor"},
        {"metric": "other", "row": "trained", "value": 9.0, "interval": float("nan"), "kind": "result"},
    ]
    return {
        "cell": {"world": world, "method": method, "seed": seed, "value": None}, "protocols": {"p": {"scores": scores}},
        "steps": 10, "flops": 3.3e12, "parameters": {"encoder": 1000}, "tuned": {"optim.peak": 1e-3}, "suite": "micro",
        "overrides": json.loads(json.dumps(suite.overrides(Cell(world, method, seed), 10, 1e-3))), "trained by": "abc",
    }  # fmt: skip


@pytest.fixture
def records(micro, tmp_path):
    values = {"cjepa": (0.5, 0.6, 0.7), "ijepa": (0.45, 0.6, 0.6)}
    for value, result in ((5e-4, {"probe/a_r2": 0.2, "probe/b_r2": 0.4, "probe/a_r2_random": 9.0}), (1e-3, {})):
        cell = Cell("balls", "cjepa", 0, value)
        found = record(micro, "balls", "cjepa", 0, 0.0) | {"result": result, "flops": 1.35e12}
        del found["protocols"]
        found["cell"]["value"], found["tuned"] = value, {"optim.peak": value}
        found["overrides"] = json.loads(json.dumps(micro.overrides(cell, 10, value)))
        (tmp_path / f"{cell.name}.json").write_text(json.dumps(found))
    for method, row in values.items():
        for seed, value in enumerate(row, 1):
            found = record(micro, "balls", method, seed, value)
            (tmp_path / f"balls-{method}-seed{seed}.json").write_text(json.dumps(found))
    (tmp_path / "balls-byol-seed1.json").write_text(json.dumps(record(micro, "balls", "byol", 1, 0.3)))
    (tmp_path / "balls-random-seed1.json").write_text(json.dumps(record(micro, "balls", "random", 1, 0.58)))
    return tmp_path


def test_means_intervals_and_paired_differences(micro, records):
    balls = table.summarise(micro, table.read(micro, records))["worlds"]["balls"]
    cell = balls["methods"]["cjepa"]["x"]
    assert cell["mean"] == pytest.approx(0.6)
    assert cell["interval"] == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-6)  # t(2), sd 0.1, three runs
    (difference,) = balls["contrasts"]
    assert difference["x"]["values"] == pytest.approx([0.05, 0.0, 0.1])
    assert difference["x"]["interval"] == pytest.approx(4.302653 * 0.05 / np.sqrt(3), rel=1e-6)
    assert balls["methods"]["cjepa"]["wrong"]["mean"] == pytest.approx(0.3)  # a row of the model's own
    assert balls["baselines"] == {
        "query only": {"kind": "floor"} | {title: {"mean": 0.5, "interval": 0.02} for title in ("x", "wrong")}
    }
    assert balls["methods"]["byol"]["x"]["interval"] is None  # one run


def test_the_files(micro, records, tmp_path):
    path = table.write(micro, records, tmp_path / "out")
    text = path.read_text()
    assert "| Causal-JEPA (3) | 0.600 ± 0.248 |" in text and "| BYOL, smoke (1) | 0.300 ↓ | 0.150 ↓ |" in text
    assert (
        "| I-JEPA (3) | 0.550 ± 0.215 ↓ | 0.275 ± 0.108 ↓ |" in text and "| random init (1) | 0.580 | 0.290 |" in text
    )
    assert (
        "| Causal-JEPA − I-JEPA | +0.050 ± 0.124 | +0.025 ± 0.062 |" in text
        and "| query only (floor) | 0.500 ± 0.020 |" in text
    )
    assert "| Causal-JEPA | encoder 1,000 | 330.0 | 10 | 3.30 | optim.peak 0.001 (0.0005: 0.300, 0.001: -inf) |" in text
    assert json.loads((tmp_path / "out/table.json").read_text())["commits"] == ["abc"]
    assert "<svg" in (tmp_path / "out/table.svg").read_text()
    again = table.write(micro, records, tmp_path / "again")
    assert again.read_text() == text


def test_no_record_is_said(micro, tmp_path):
    with pytest.raises(DataError, match="no record of a finished cell of the suite 'micro'"):
        table.write(micro, tmp_path, tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"suite": "vits"}, "made by other settings .suite."),
        ({"flops": 1e12}, "made by other settings .flops."),
        ({"tuned": {"optim.peak": 9.0}}, "made by other settings .optim.peak."),
        ({"overrides": {}}, "other settings .*data.size"),
    ],
)
def test_a_record_of_other_settings_is_refused(micro, records, change, message):
    file = records / "balls-cjepa-seed1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        table.read(micro, records)
