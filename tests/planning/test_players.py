"""Who plays: runs of worlds that were written to disk and of recorded episodes, from their folders to the table."""

import json

import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import agent
from cjepa_jax.planning import __main__ as command
from configs.family import jepa2022, lewm
from tests import run_folders

FEW = "--episodes=2 --steps=4 --samples=8 --elites=4 --iterations=1 --horizon=2 --inits=1 --task=room"
VALUES = {"objective__predictor__depth": 1, "data__frames": 3, "data__size": 16}


def run_of(folder, base=lewm, **values):
    """A run's folder, without the training."""
    return run_folders.write(folder, run_folders.config(base, **VALUES | values), steps=(2,))


def played(run, words=""):
    assert command.main([f"--checkpoint={run}", *FEW.split(), *words.split()]) == 0
    found = json.loads((run / "control/results.json").read_text())
    return found["about"], {row["name"]: row["kind"] for row in found["rows"]}


def test_an_agent_does_not_learn_before_its_report_has_a_folder(tmp_path, monkeypatch):
    run, learned = run_of(tmp_path / "run", jepa2022, data__frames=6), []
    monkeypatch.setattr(agent, "learn", lambda *given, **named: learned.append(given))
    with pytest.raises(ConfigError, match="^--workdir=/proc/nowhere: cannot be used as a run folder"):
        command.main([f"--checkpoint={run}", "--agent", *FEW.split(), "--workdir=/proc/nowhere"])
    assert not learned
