"""Runs of slots through the commands: 8 devices, a resumed run, and what each entry point makes of one."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

import cjepa_jax
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.loading import slot_weights
from cjepa_jax.loading.model import Restored
from cjepa_jax.runtime import foreign
from cjepa_jax.weights import slots
from tests import running

SMALL = {
    "train.batch": 8,
    "train.steps": 6,
    "data.count": 32,
    "data.eval_count": 16,
    "data.workers": 0,
    "data.frames": 4,
    "data.max_objects": 4,
    "data.options.of_options.objects": (2, 3),
    "data.options.slots": 4,
    "data.options.width": 16,
    "objective.future": 1,
    "objective.slot_predictor.depth": 1,
    "objective.slot_predictor.heads": 2,
    "objective.slot_predictor.units": 16,
    "checkpoint.every": 3,
    "log.every": 1,
    "log.report": False,
    "log.tensorboard": False,
}
pytestmark = pytest.mark.slow
ROLLOUT = {"history": 3, "future": 1, "horizon": 2}


def train(workdir, **changes):
    overrides = [f"--config.{key}={value}" for key, value in (SMALL | changes).items()]
    command = [sys.executable, "-m", "cjepa_jax.train", "--config=configs/slots/balls.py"]
    return [*command, f"--workdir={workdir}", *overrides]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on 8 devices."""
    folder = tmp_path_factory.mktemp("slots") / "run"
    out, _ = running.run(train(folder), devices=8)
    assert "8 x cpu" in out
    return folder


def test_slots_train_on_8_devices_as_on_one(run, tmp_path):
    running.run(train(tmp_path / "one"), devices=1)
    eight, one = ([entry["loss"] for entry in running.metrics(folder)[0]] for folder in (run, tmp_path / "one"))
    assert len(one) == 6
    np.testing.assert_allclose(eight, one, rtol=1e-4)


def test_a_resumed_run_of_slots_has_the_same_bits(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "6")
    (folder / "result.json").unlink()  # as if it had been stopped after step 3
    running.run(train(folder), devices=8)
    assert running.digest(folder, 6) == running.digest(run, 6)


def test_evaluate_scores_a_run_of_slots(run, tmp_path):
    more = [f"--config.evals.protocols.rollout.{name}={value}" for name, value in ROLLOUT.items()]
    long = ROLLOUT | {"horizon": 3}
    more += [f"--config.evals.protocols.rollout_long.{name}={value}" for name, value in long.items()]
    more += ["--config.evals.test=8", "--config.evals.fit=8", "--config.evals.batch=8", "--config.evals.random_inits=1"]
    argv = [sys.executable, "-m", "cjepa_jax.evaluate", "--config=configs/evals/rollout.py", f"--checkpoint={run}"]
    running.run([*argv, f"--workdir={tmp_path / 'scores'}", *more])
    results = (tmp_path / "scores" / "results.json").read_text()
    assert "rmse/position touching" in results and json.loads(results)


def test_the_doctor_reads_a_run_of_slots_and_no_one_exports_or_loads_it(run, tmp_path):
    out, _ = running.run([sys.executable, "-m", "cjepa_jax.doctor", str(run)])
    assert "step 6           whole" in out and "Healthy and finished" in out
    argv = [sys.executable, "-m", "cjepa_jax.export", f"--checkpoint={run}", f"--out={tmp_path / 'out'}"]
    text = "must be 'encoder', and may be 'predictor' too, for its weights to be loaded"
    assert text in running.error(argv, 4) and not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match=text):
        cjepa_jax.load(run)


def test_the_published_state_dict_of_a_run(run, tmp_path):
    """Its arrays are those of the checkpoint, under names that give the same model again."""
    running.run(train(tmp_path / "run", **{"objective.slot_predictor.norm_attention": False}))
    state = slot_weights.published(str(tmp_path / "run"))
    found = slots.from_state(state)
    assert (found.frames, found.depth, found.width, found.units) == (4, 1, 16, 16)
    restored = Restored.of(foreign.read(tmp_path / "run" / "config.json"), str(tmp_path / "run"))
    assert jax.tree.structure(restored.state.params) == jax.tree.structure(found.params)
    jax.tree.map(np.testing.assert_array_equal, restored.state.params, found.params)
    with pytest.raises(CheckpointError, match="no norm before its attention$"):
        slot_weights.published(str(run))
    with pytest.raises(ConfigError, match="must be a run's folder$"):
        slot_weights.published(str(tmp_path))


def test_rollouts_of_a_run_of_slots_are_written(run, tmp_path):
    from cjepa_jax.data.slot_files import writing
    from cjepa_jax.extract import rollout

    with writing(tmp_path / "slots") as write:
        write("train", "a", np.random.default_rng(0).standard_normal((9, 4, 16)).astype(np.float32))
    given = [f"--checkpoint={run}", f"--slots={tmp_path / 'slots'}", "--frames=3", "--batch=1"]
    assert rollout.main([*given, f"--out={tmp_path / 'out'}"]) == 0
    made = np.load(tmp_path / "out" / "slots.npy")
    assert made.shape == (12, 4, 16) and np.isfinite(made).all()
    np.testing.assert_array_equal(made[:9], np.load(tmp_path / "slots" / "slots.npy"))
