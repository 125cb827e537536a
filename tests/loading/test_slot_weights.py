"""Published state dicts of the slot predictor are scored as runs are, and refused in one line where they do not fit."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from cjepa_jax import evaluate
from cjepa_jax.data.slot_files import writing
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.evals.influence import Influence
from cjepa_jax.evals.rollout import Rollout
from cjepa_jax.loading import slot_weights
from cjepa_jax.models.slot_predictor import SlotPredictor
from cjepa_jax.weights import slots
from configs import clips
from configs.slots import balls, clevrer

FRAMES, HISTORY, WIDTH = 8, 3, 16
MODEL = SlotPredictor(FRAMES, 2, 2, units=24)


def written(root, width=WIDTH):
    """A state dict's file, and the parameters in it."""
    clip, there = np.zeros((1, FRAMES, 4, width), np.float32), np.ones((1, FRAMES, 4), bool)
    params = jax.jit(MODEL.init)(jax.random.key(0), clip, there)["params"]
    save_file(slots.state_dict({"predictor": params}), root / "net.safetensors")
    return str(root / "net.safetensors"), params


def config_of(file, root):
    """A config for these slots, whose sizes are not those of the file."""
    c = file.get_config().copy_and_resolve_references().unlock()
    c.objective.history = c.mask.history = HISTORY
    c.objective.slot_predictor.heads = 2
    c.data.workers = 0
    c.evals.test = c.evals.fit = 6
    c.evals.batch, c.evals.random_inits = 4, 1
    if file is clevrer:
        c.data.path = str(root / "slots")
        with writing(root / "slots") as write:
            rng = np.random.default_rng(0)
            for split in ("train", "eval", "test"):
                write(split, "a", rng.standard_normal((25, 4, WIDTH)).astype(np.float32))
    else:
        c.data.options.width, c.data.options.slots = WIDTH, 7
    return c.lock()


def scores(result):
    return {(score.metric, score.row): score.value for score in result.scores}


def test_rollouts_of_a_state_dict_have_the_errors_of_its_predictions(tmp_path):
    file, params = written(tmp_path)
    config = config_of(clevrer, tmp_path)
    model = slot_weights.of(config, file)
    assert model.about["weights"]["layout"] == "published slot predictor" and "3 frames given, 5" in model.notes[0]
    found = scores(Rollout(history=HISTORY, future=5).run(evaluate.make_bench(config, model)))
    source = SlotFiles("test", config.data.path, frames=FRAMES, count=6, skip=2)
    clip = np.stack([source[i]["video"][:, 0] for i in range(6)])
    visible = np.broadcast_to(np.arange(FRAMES)[:, None] < HISTORY, clip.shape[:3])
    future = MODEL.apply({"params": params}, np.where(visible[..., None], clip, 0), visible)[0][:, HISTORY:]
    wanted = np.sqrt(np.square(future - clip[:, HISTORY:]).mean())
    np.testing.assert_allclose(found["rmse/slots", "trained"], wanted, rtol=1e-4)
    with pytest.raises(ConfigError, match="rollout.future = 4: must be the run's future, 5"):
        Rollout(history=HISTORY, future=4).run(evaluate.make_bench(config, model))


@pytest.mark.slow
def test_graphs_of_a_state_dict_are_scored_on_slots_of_a_simulator(tmp_path):
    file, _ = written(tmp_path)
    config = config_of(balls, tmp_path)
    found = Influence(history=HISTORY, future=5).run(evaluate.make_bench(config, slot_weights.of(config, file)))
    named = " ".join(f"{score.metric} {score.row}" for score in found.scores)
    assert all(graph in named for graph in ("dropping", "masking", "last attention", "distance"))


def test_what_does_not_fit_is_refused_in_one_line(tmp_path):
    file, _ = written(tmp_path)
    config = config_of(clevrer, tmp_path)
    assert slot_weights.of(config, str(tmp_path)) is None and slot_weights.of(config, "random") is None
    assert slot_weights.of(config, "~nouser/net.safetensors") is None
    (tmp_path / "text.pt").write_text("no weights")
    assert slot_weights.of(config, str(tmp_path / "text.pt")) is None
    for change, error, message in (
        (None, ConfigError, "needs objective.type = cjepa_jax.objectives.slots:Slots, not .*jepa:Jepa: --training="),
        (
            {"objective.type": "cjepa_jax.objectives.ctt:Ctt"},
            ConfigError,
            "not cjepa_jax.objectives.ctt:Ctt: --training=configs/slots/clevrer.py --config.data.path=DIR$",
        ),
        ({"objective.history": 8}, ConfigError, "objective.history = 8: .* must be below its 8 frames"),
        ({"objective.slot_predictor.heads": 3}, ConfigError, "heads = 3: .* must divide its width 16"),
        ({"objective.auxiliary": ("action",)}, ConfigError, r"auxiliary = \('action',\): .*: has \(\)"),
    ):
        other = clips.get_config() if change is None else ConfigDict(config, convert_dict=False).unlock()
        other = other if change is None else other.copy_and_resolve_references()
        other.update_from_flattened_dict(change or {})
        with pytest.raises(error, match=message) as caught:
            slot_weights.of(other, file)
        assert "\n" not in str(caught.value)
    wide, _ = written(tmp_path, 24)
    with pytest.raises(CheckpointError, match=r"is \[24(, 24)?\], slots of the data need \[(16|24, 16)\]$"):
        slot_weights.of(config, wide)
