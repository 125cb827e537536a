"""Scenes without an object to remove: one warning in the console, and a line of the report and of doctor."""

import json
import logging

import pytest

from cjepa_jax import doctor
from cjepa_jax.monitors.fallbacks import Fallbacks
from cjepa_jax.reports import training
from cjepa_jax.runtime import fallbacks
from tests import run_folders

CONFIG = {
    "train": {"batch": 8},
    "mask": {"type": "cjepa_jax.masks.objects:draw"},
    "objective": {"causal_weight": 0.5},
}
ROWS = [
    {"step": step, "loss": 1.0, "fallback_scenes": count} for step, count in ((10, 0), (20, 40), (30, 41), (40, 80))
]


def test_the_share_is_of_the_scenes_since_the_last_line():
    assert [fallbacks.share(row, row["step"] - 10, 8) for row in ROWS] == [0, 0.5, 41 / 80, 1]
    assert fallbacks.share({"step": 10}, 0, 8) == fallbacks.share({"step": 3, "fallback_scenes": 9}, 3, 8) == 0


def test_the_worst_line_is_named():
    assert fallbacks.worst(ROWS[:2], CONFIG) == ""  # one half is not most
    assert fallbacks.worst(ROWS[:3], CONFIG).startswith("at step 30 51% of the scenes had no object to remove")
    assert fallbacks.worst([{"step": 5, "probe/x": 1}, *ROWS], CONFIG).startswith("at step 40 100%")


@pytest.mark.parametrize(
    "other",
    [
        {"mask": {"type": "cjepa_jax.masks.multiblock:draw"}},
        {"objective": {"causal_weight": 0.0}},
        {"objective": None},
        {"train": {"batch": "8"}},
    ],
)
def test_runs_that_remove_no_objects_on_purpose_say_nothing(other):
    assert fallbacks.worst(ROWS, CONFIG | other) == ""


def test_one_warning_in_the_console(caplog):
    monitor = Fallbacks(8, expected=False)
    monitor.resume(ROWS[:1])
    with caplog.at_level(logging.WARNING):
        for row in [*ROWS[1:], {"step": 50, "fallback_scenes": 80}]:
            assert monitor(None, None, row) is None
    assert [record.message.partition(" of the")[0] for record in caplog.records] == ["at step 30 51%"]
    caplog.clear()
    silent = Fallbacks(8, expected=True)
    silent(None, None, ROWS[-1])
    assert not caplog.records


def test_report_and_doctor_say_it_too(tmp_path, capsys):
    config = run_folders.config(train__batch=8, objective__causal_weight=0.5, log__every=10)
    folder = run_folders.write(tmp_path / "run", config, steps=())
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "metrics.jsonl").write_text(rows)
    doctor.main([str(folder)])
    assert "at step 40 100% of the scenes had no object to remove" in capsys.readouterr().out
    assert "at step 40 100% of the scenes had no object to remove" in training.write(folder).read_text()
