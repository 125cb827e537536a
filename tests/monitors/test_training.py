"""A custom monitor in real runs: a file beside the user's config, in metrics.jsonl, resumed without loss."""

import functools
import json
import pathlib

import pytest

from tests import running

MONITORS = """
import os
import jax
import jax.numpy as jnp

def lines(state, batch, metrics):
    return {"loss": metrics["loss"], "scenes": batch.video.shape[0]}

class Norms:
    def __init__(self, parts):
        self.parts, self.calls = parts, 0

    def begin(self, run, state):
        self.first = {part: float(self.norm(state.params[part])) for part in self.parts}

    def resume(self, rows):
        self.calls = sum("norms/calls" in row for row in rows)

    def norm(self, tree):
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))

    def __call__(self, state, batch, metrics):
        if "FAIL_AT" in os.environ and int(state.step) == int(os.environ["FAIL_AT"]):
            raise RuntimeError("not today")
        self.calls += 1
        moved = {part: self.norm(state.params[part]) - self.first[part] for part in self.parts}
        return {"step": state.step, "calls": self.calls, "loss": metrics["loss"], **moved}
"""
CONFIG = """
from ml_collections import ConfigDict
from cjepa_jax.configs import clips

def get_config():
    config = clips.get_config()
    config.monitors = ConfigDict({
        "norms": {"type": "norms:Norms", "every": 3, "parts": ("encoder",)},
        "lines": {"type": "norms:lines"},
    })
    return config
"""


def rows(folder):
    return [json.loads(line) for line in pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Gives argv of a run in tmp_path/run whose monitor fails at step 12."""
    (tmp_path / "norms.py").write_text(MONITORS)
    (tmp_path / "watched.py").write_text(CONFIG)
    monkeypatch.setenv("FAIL_AT", "12")
    small = dict(probe__every=0, checkpoint__every=4)
    return functools.partial(running.command, tmp_path / "run", tmp_path / "watched.py", **small)


def test_it_is_logged_until_it_fails(tmp_path, command):
    line = running.error(command(), 2)  # of as many steps as other tests' runs, hence their program
    number = MONITORS.splitlines().index('            raise RuntimeError("not today")') + 1
    assert line == f"error: monitors.norms at step 12: RuntimeError: not today (norms.py, line {number})"
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found if "norms/calls" in row] == [3, 6, 9]
    assert [row["step"] for row in found if "lines/loss" in row] == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_it_is_resumed_without_loss(tmp_path, command, monkeypatch):
    folder, argv = tmp_path / "run", command(train__steps=14)
    running.error(argv, 2)
    before = [row for row in rows(folder) if row["step"] <= 8]  # the newest checkpoint
    monkeypatch.delenv("FAIL_AT")
    running.run(argv)
    found = rows(folder)
    assert [row for row in found if row["step"] <= 8] == before
    norms = [row for row in found if "norms/calls" in row]
    assert [row["step"] for row in norms] == [3, 6, 9, 12, 14] == [row["norms/step"] for row in norms]
    assert [row["norms/calls"] for row in norms] == [1, 2, 3, 4, 5]
    assert len({row["norms/encoder"] for row in norms}) == 5
    logged = {row["step"]: row["loss"] for row in found if "loss" in row}
    lines = {row["step"]: row for row in found if "lines/loss" in row}
    assert {step: row["lines/loss"] for step, row in lines.items()} == logged and sorted(logged) == [
        2,
        4,
        6,
        8,
        10,
        12,
        14,
    ]
    assert all(row["lines/scenes"] == 8 for row in lines.values())
    result = json.loads((folder / "result.json").read_text())
    assert result["norms/calls"] == 5 and "probe/rankme" in result
    assert json.loads((folder / "config.json").read_text())["monitors"]["norms"]["every"] == 3
