"""The command: a suite of almost no size from its first cell to the table, stopped and gone on with."""

import json
import os
import signal
import sys
import time
import types

import pytest

from cjepa_jax.compare import __main__ as compare
from cjepa_jax.compare.cell import CellError, CellStopped, Lab, cores
from cjepa_jax.errors import ConfigError
from tests.compare.test_suite import MICRO
from tests.running import SMALL, children, gone, start

SUITE = '''
"""Two methods and the untrained network, on one world."""

def get_suite():
    return {{
        "about": "a test",
        "flops": 6e8,
        "seeds": (1, 2),
        "shared": {shared},
        "worlds": {{"balls": {{"label": "Balls", "overrides": {{}}}}}},
        "methods": {{
            "random": {{"label": "random init", "config": "configs.clips", "steps": 0}},
            "cjepa": {{"label": "Causal-JEPA", "config": "configs.clips"}},
            "ijepa": {{"label": "I-JEPA", "config": "configs.baselines.ijepa"}},
        }},
        "tuning": {{"key": "optim.peak", "values": (1e-3, 2e-3), "share": 0.5, "seed": 0, "world": "balls"}},
        "evals": {{
            "fit": 24, "test": 16, "random_inits": 1, "batch": 8,
            "protocols": {{"states": {{"type": "cjepa_jax.evals.states:States", "objects": False}}}},
        }},
        "columns": {{"count": ("states", "scene/count")}},
        "contrasts": [("cjepa", "ijepa")],
    }}
'''
LEFT_OUT = ("train.steps", "data.frames", "optim.peak", "mask.anchor", "mask.area", "mask.max_objects")


@pytest.fixture
def suite(tmp_path):
    shared = {key: value for key, value in SMALL.items() if key not in LEFT_OUT}
    (tmp_path / "small.py").write_text(SUITE.format(shared=repr(shared)))
    return tmp_path / "small.py"


def argv(suite, folder, *more):
    return [sys.executable, "-m", "cjepa_jax.compare", f"--suite={suite}", f"--workdir={folder}", *more]


@pytest.mark.slow
def test_a_comparison_is_stopped_and_goes_on_to_its_table(suite, tmp_path):
    folder = tmp_path / "out"
    process = start(argv(suite, folder))
    records = folder / "records"
    until = time.monotonic() + 240
    while len(list(records.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    mine = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(mine, seconds=60)  # the cell that it was at
    before = {file.name: file.read_text() for file in records.glob("*.json")}
    assert len(before) >= 2 and not (folder / "table.md").exists()

    jobs = min(2, len(cores()))
    process = start(argv(suite, folder, f"--jobs={jobs}"))
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert {name: (records / name).read_text() for name in before} == before  # finished cells are kept
    cells = [json.loads(file.read_text()) for file in records.glob("*seed*.json")]
    assert len(cells) == 6 and len(list(records.glob("*tune*.json"))) == 4
    trained = [cell for cell in cells if cell["steps"]]
    assert all(abs(cell["flops"] - 6e8) <= 0.51 * cell["flops"] / cell["steps"] for cell in trained)  # to half a step
    assert all(cell["tuned"] and cell["result"]["step"] == cell["steps"] for cell in trained)
    assert len({cell["steps"] for cell in trained}) > 1
    table = (folder / "table.md").read_text()
    assert "| Causal-JEPA (2) |" in table and "| random init (2) |" in table and "| Causal-JEPA − I-JEPA |" in table
    assert str(folder / "table.md") in out and (folder / "table.svg").exists()
    assert str(tmp_path) not in json.dumps(cells)  # records can be published: they name no folder of this machine


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_go_on(suite, tmp_path):
    text = suite.read_text().replace('"config": "configs.clips"}', '"config": "configs.clips", "steps": 3}')
    suite.write_text(text.replace('"fit": 24', '"fit_split": "test", "fit": 24'))
    process = start(argv(suite, tmp_path / "out", "--phase=cells", "--index=1"))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    assert (
        "balls-cjepa-seed1 failed: balls-cjepa-seed1: cjepa_jax.evaluate ended with 2: error:" in out
        and "evals.test_split" in out
    )


class FakeLab:
    """Cells that are their own result: an exception, or None."""

    def __init__(self, stopping=bool):
        self.stopping, self.begun = stopping, []

    def finished(self, cell):
        return None

    def run(self, cell):
        self.begun.append(cell.name)
        if cell.error:
            raise cell.error


def cells_of(*errors):
    return [types.SimpleNamespace(name=f"cell {i}", error=error) for i, error in enumerate(errors)]


def test_after_a_cell_that_was_stopped_none_is_begun_and_its_code_is_kept(capsys):
    lab = FakeLab()
    stopped = CellStopped("cell 2: cjepa_jax.train ended with 75: SIGTERM")
    assert compare.run(lab, cells_of(None, CellError("cell 1: no"), stopped, None), 1) == [0, 1, 75, 75]
    assert lab.begun == ["cell 0", "cell 1", "cell 2"]
    out = capsys.readouterr().out
    assert "cell 1 failed: cell 1: no" in out and "cell 2 stopped: cell 2: cjepa_jax.train ended with 75" in out
    assert compare.run(FakeLab(stopping=lambda: True), cells_of(None, None), 1) == [75, 75]


def test_a_comparison_of_which_a_cell_was_stopped_ends_with_75(monkeypatch, suite, tmp_path, capsys):
    def stop(lab, cell):
        os.kill(os.getpid(), signal.SIGTERM)  # as SLURM does, to every process of the job
        while not lab.stopping():
            time.sleep(0.01)
        raise CellStopped(f"{cell.name}: ended with 75")

    monkeypatch.setattr(Lab, "run", stop)
    assert compare.main([f"--suite={suite}", f"--workdir={tmp_path / 'out'}"]) == 75
    assert capsys.readouterr().out.endswith("stopped by a signal. The same command resumes\n")
    assert not (tmp_path / "out" / "table.md").exists()


def test_wrong_arguments_are_one_line(tmp_path, capsys):
    base = [f"--suite={MICRO}", f"--workdir={tmp_path}"]
    for more, message in (
        (["--jobs=0"], "--jobs=0: must be 1 to"),
        (["--phase=cells", "--index=1000"], "--index=1000: needs --phase=tune or cells"),
        (["--index=0"], "--index=0: needs --phase"),
        (["--phase=tun"], "invalid choice: 'tun'"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare.main(base + more)
    assert compare.main([*base, "--list"]) == 0
    out = capsys.readouterr().out
    assert "tune: 15" in out and "balls-cjepa-seed1" in out and not list(tmp_path.iterdir())
