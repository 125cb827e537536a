"""V-JEPA 2.1's files with all that they hold: levels, both tokenisers, the predictor."""

import dataclasses
import importlib
import json
import struct

import jax
import numpy as np
import pytest

from cjepa_jax import experiment
from cjepa_jax.configuration import check
from cjepa_jax.errors import CheckpointError
from cjepa_jax.loading import init_from
from cjepa_jax.loading.model import Network
from cjepa_jax.models import transformer
from cjepa_jax.weights import levels, published
from cjepa_jax.weights.read import read
from tests.objectives import family
from tests.objectives.test_dense import encoder_parameters, predictor_parameters
from tests.running import SMALL


def stored():
    """A file's arrays by their public names, as the numbers in tests/golden/family have them."""
    numbers, _ = family.stored("vjepa2_1")
    of = {part: family.parameters(numbers[part], numbers["seeds"][part]) for part in ("encoder", "predictor")}
    of["target_encoder"] = {name: array + 1 for name, array in of["encoder"].items()}
    return of


def save(path, of):
    """A safetensors file of these parts, named as in the published training code's checkpoints."""
    arrays = {f"{part}.module.backbone.{name}": a for part, named in of.items() for name, a in named.items()}
    header, end = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in arrays.values()))
    return path


def equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_all_levels_are_read_with_the_predictor(tmp_path):
    of = stored()
    found = read(save(tmp_path / "vitg.safetensors", of), heads=2, levels=True)
    assert (found.layout, found.licence, found.about["encoder"]) == ("vjepa2.1", "MIT", "encoder")
    assert found.encoder["levels"] == (2, 5, 8, 11) and found.encoder["variant"] == "24x12x2x48/16"
    assert found.encoder["position_grid"] == found.predictor["position_grid"] == (1, 16, 16)
    assert found.predictor["embed_units"] == 24 and found.predictor["scene_code"]
    equal(found.params["encoder"], encoder_parameters(of["encoder"]))
    equal(found.params["target"], encoder_parameters(of["target_encoder"]))
    wanted = predictor_parameters(of["predictor"])
    wanted["mask_token"] = of["predictor"]["mask_tokens.1"].ravel()  # number 1 is the default of all layouts
    equal(found.params["predictor"], wanted | {"object_embedding": np.zeros((3, 24), np.float32)})
    last = read(tmp_path / "vitg.safetensors", heads=2)
    assert "levels" not in last.encoder and last.predictor is None


def test_a_distilled_predictor_is_left_out(tmp_path):
    of = stored()
    names = ("predictor_embed.0.weight", "predictor_embed.0.bias", "predictor_embed.2.weight")
    of["predictor"] = {n: a for n, a in of["predictor"].items() if n not in names}
    of["predictor"]["predictor_embed.weight"] = np.zeros((24, 24), np.float32)  # one level
    found = read(save(tmp_path / "vitb.safetensors", of), heads=2, levels=True)
    assert found.predictor is None and any("left out" in note for note in found.about["notes"])


def test_what_is_missing_is_named(tmp_path):
    of = stored()
    del of["encoder"]["norms_block.1.weight"], of["target_encoder"]
    with pytest.raises(CheckpointError, match=r"norms_block\.1\.weight"):
        read(save(tmp_path / "vitg.safetensors", of), heads=2, levels=True)


def test_levels_of_the_published_depths():
    assert [levels.of(depth, 4) for depth in (12, 24, 40, 48)] == [
        (2, 5, 8, 11),
        (5, 11, 17, 23),
        (9, 19, 29, 39),
        (11, 23, 37, 47),
    ]


@pytest.mark.slow
def test_a_run_starts_from_them_and_predicts(tmp_path, monkeypatch):
    monkeypatch.setattr(transformer, "UNROLLED", 0)
    layout = dataclasses.replace(published.LAYOUTS["vjepa2.1"], predictor_heads=2)
    monkeypatch.setitem(published.LAYOUTS, layout.name, layout)  # 12 heads of a width of 24 would be too narrow
    config = importlib.import_module("configs.family.vjepa2_1").get_config().copy_and_resolve_references().unlock()
    own = dict(check.flatten(config))
    config.update_from_flattened_dict({key: value for key, value in SMALL.items() if key in own})
    path = save(tmp_path / "vitg.safetensors", stored())
    few = {"depth": 4, "width": 24, "heads": 2, "max_objects": 3, "embed_units": 24, "position_grid": (1, 16, 16)}
    config.update_from_flattened_dict({f"objective.predictor.{name}": value for name, value in few.items()})
    config.init_from = str(path)
    reading = init_from.Reading(heads=2)
    found, lines = init_from.prepare(config, tmp_path / "run", reading=reading)
    assert lines[-1] == "predictor: taken" and tuple(config.objective.encoder.levels) == (2, 5, 8, 11)
    run = experiment.assemble(config)
    batch = run.example()
    state = init_from.start(config, run.init(batch), found)
    equal(jax.tree.map(np.asarray, state.params["encoder"]), found.params["encoder"])
    equal(jax.tree.map(np.asarray, state.params["predictor"]), found.params["predictor"])
    equal(jax.tree.map(np.asarray, state.target), found.params["target"])
    network = Network.of_weights(dataclasses.replace(found, source="x"), "float32")
    shape = jax.eval_shape(network.objective.encode, network.state.params, batch.video).shape
    assert shape == (8, 4, 24)
