"""How a trained model is brought back: what is read of its run, and what is refused."""

import json

import numpy as np
import pytest

from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.evals.base import Hidden
from cjepa_jax.loading import model
from configs import clips
from tests.running import SMALL


def config(**values):
    """Of running.SMALL. Keys have __ for the dot."""
    return config_lib.override(clips.get_config(), SMALL | {k.replace("__", "."): v for k, v in values.items()})


def run_folder(folder, text):
    """What is left of a run without its checkpoints."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(text)
    return str(folder)


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8, 9])
def test_the_last_short_batch_is_as_if_each_row_came_alone(count):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(count, 5)), rng.integers(0, 9, (count, 2))
    seen = []

    def function(a, b):
        seen.append(len(a))
        return {"sum": a.sum(1) + b[:, 0], "none": None}, a[:, :2] * b

    found = model.in_batches(4, function, a, b)
    assert set(seen) == {4} and len(seen) == -(-count // 4)
    assert found[0]["none"] is None
    np.testing.assert_array_equal(found[0]["sum"], a.sum(1) + b[:, 0])
    np.testing.assert_array_equal(found[1], a[:, :2] * b)


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", "null", '{"data": {}, "objective": 3}', '{"objective": {}, "data": 1}']
)
def test_a_damaged_config_of_the_run_is_one_line(tmp_path, text):
    with pytest.raises(CheckpointError, match="config.json: is not readable as a run's config") as caught:
        model.Restored.of(config(), run_folder(tmp_path / "run", text))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 4


def test_another_model_is_refused_with_the_keys_that_differ(tmp_path):
    saved = json.dumps(config_lib.resolve(config()))
    run = run_folder(tmp_path / "run", saved)
    with pytest.raises(CheckpointError) as caught:
        model.Restored.of(config(objective__encoder__depth=2, data__size=48), run)
    assert str(caught.value).endswith(
        "belongs to another model: data.size: 32 -> 48; objective.encoder.depth: 1 -> 2 (run -> config)"
    )
    with pytest.raises(CheckpointError, match="objective.causal_weight: 0.005 -> 0.5 "):
        model.Restored.of(config(objective__causal_weight=0.5), run)


def test_a_run_from_before_causal_tokens_is_the_same_model(tmp_path):
    old = config_lib.resolve(config())
    del old["objective"]["causal_tokens"]
    with pytest.raises(ConfigError, match="there is no checkpoint in"):  # it came to the weights
        model.Restored.of(config(), run_folder(tmp_path / "run", json.dumps(old)))


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(ConfigError, match="run has neither a folder checkpoints nor weights"):
        model.Restored.of(config(), str(tmp_path / "run"))
    run = run_folder(tmp_path / "run", json.dumps(config_lib.resolve(config())))
    with pytest.raises(ConfigError, match="there is no checkpoint in .*run/checkpoints"):
        model.Restored.of(config(), run)
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == ["checkpoints", "config.json"]


def test_a_model_of_named_objects_sees_them_and_what_else_is_hidden_stays_hidden():
    plain = config()
    named = plain.copy_and_resolve_references().unlock()
    named.objective.predictor.name_context, named.mask.type = True, "cjepa_jax.masks.displaced:named"
    video = np.random.default_rng(0).integers(0, 256, (4, 2, 32, 32, 3), np.uint8)
    patches = np.zeros((4, 2, 16), bool)
    patches[:, 0, 3:6] = True
    removed = np.array([[1, 0]] * 2 + [[0, 0]] * 2, bool)  # of the last two scenes only tokens are hidden
    hidden = Hidden(video, ~patches[:, 0], patches, removed)
    plain, named = (model.Restored.of(c, "random").trained(4).hide(hidden) for c in (plain, named))
    assert not plain.context[:, 3:6].any() and not named.context[2:, 3:6].any()
    assert named.context[:2, 3:6].any(-1).all() and plain.context[:, 6:].any()
    np.testing.assert_array_equal(named.context[2:], plain.context[2:])
