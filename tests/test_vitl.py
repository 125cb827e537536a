"""The reference configuration itself, at full width, depth and resolution, on the CPU."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from cjepa_jax.runtime.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_real_steps_of_vitl(tmp_path):
    """Only the batch, the number of steps and the probe's scenes are cut. In a separate process: one device."""
    cut = {
        "train.batch": 2,
        "train.steps": 2,
        "optim.warmup_share": 0.5,
        "data.workers": 0,
        "probe.train": 2,
        "probe.test": 2,
        "probe.batch": 2,
        "checkpoint.every": 100,
        "log.every": 1,
        "log.report": False,
    }
    command = [sys.executable, "-m", "cjepa_jax.train", "--config=configs/vitl.py", f"--workdir={tmp_path}"]
    command += [f"--config.{key}={value}" for key, value in cut.items()]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Total: 3" in done.stdout  # about 316 million parameters, trained ones only
    steps = [row for row in Workdir(tmp_path).read_metrics() if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(np.isfinite(row["loss"]) and row["skipped"] == 0 for row in steps)
    assert steps[0]["update_norm"] == 0 < steps[1]["update_norm"]  # warm-up starts at 0
