"""Exports of this package, read back: what was written comes back, and what does not fit is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.canonical import to_canonical
from cjepa_jax.weights.read import read
from tests.weights.test_canonical import SIZE, encoder, equal, filled, predictor

ENCODER = {"variant": SIZE, "tubelet": 2, "gelu": "tanh", "positions": "sincos", "position_grid": (), "epsilon": 1e-5}
ENCODER |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "depth": 0}
PREDICTOR = {"depth": 2, "width": 16, "heads": 2, "attention": "cross", "max_objects": 3, "gelu": "exact"}
PREDICTOR |= {"positions": "sincos", "position_grid": (), "epsilon": 1e-6}
CONFIG = {"format": "cjepa_jax", "version": 1, "encoder": ENCODER, "predictor": PREDICTOR, "licence": "MIT"}
SEEN = {"size": 8, "frames": 4}
CONFIG |= {"input": SEEN, "source": "runs/tiny", "digest": "abc", "about": {"step": 3}}


def exported(folder: Path, change=None, drop=(), **config):
    """An export of a small model of clips, as the format says; `change` to its arrays, `config` to its settings."""
    trees = {"encoder": encoder(4), "target": filled(encoder(4), 1), "predictor": predictor("cross")}
    arrays = {f"{part}.{name}": a for part, tree in trees.items() for name, a in to_canonical(tree, 4, 2).items()}
    arrays = {name: array for name, array in (arrays | (change or {})).items() if not name.startswith(tuple(drop))}
    save_file(arrays, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "model.safetensors.sha256").write_text(f"{digest}  model.safetensors\n")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return trees


def test_everything_comes_back(tmp_path):
    trees = exported(tmp_path)
    found = read(tmp_path)
    assert (found.layout, found.source, found.digest, found.licence) == ("cjepa_jax", "runs/tiny", "abc", "MIT")
    assert (found.encoder, found.predictor) == (ENCODER, PREDICTOR)
    left_out = {"anchor": 0, "names_objects": True, "encoder_input": "context"}
    assert found.input == SEEN | left_out and found.about == {"step": 3}
    equal(found.params, trees)


def test_there_may_be_an_encoder_only(tmp_path):
    exported(tmp_path, drop=("target.", "predictor."), predictor=None)
    found = read(tmp_path)
    assert found.predictor is None and list(found.params) == ["encoder"]


def test_changed_weights_are_refused(tmp_path):
    exported(tmp_path)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the file that was written: its SHA-256 is another"):
        read(tmp_path)


@pytest.mark.parametrize(
    "config,message",
    [
        ({"version": 2}, "version = 2: this package reads version 1"),
        ({"encoder": None}, "encoder: must be a table"),
        ({"encoder": ENCODER | {"variant": "5x1"}}, "encoder.variant = '5x1': must be SIZE/PATCH"),
        ({"encoder": ENCODER | {"variant": 5}}, "encoder.variant = '5': must be text"),
        ({"encoder": ENCODER | {"gelu": "relu"}}, "encoder.gelu = 'relu': must be one of exact, tanh"),
        ({"encoder": ENCODER | {"depth": 10**6}}, "depth = 1000000: must be 1..1000"),
        ({"encoder": ENCODER | {"mean": [0.1, "x"]}}, "encoder.mean = .*: must be numbers in range"),
        ({"encoder": ENCODER | {"std": [1, 1]}}, "encoder.std = .*: must be numbers in range"),
        ({"encoder": ENCODER | {"trick": 1}}, "encoder.trick: is none of"),
        ({"encoder": ENCODER | {"depth": 2}}, "encoder: is not this model: 12 not in the model: blocks.2"),
        ({"predictor": PREDICTOR | {"heads": 3}}, "predictor.width = 16: must be a multiple of predictor.heads = 3"),
        ({"predictor": PREDICTOR | {"max_objects": 4}}, r"object_embedding is \[3, 16\], must be \[4, 16\]"),
        ({"predictor": PREDICTOR | {"attention": "joint"}}, "predictor: is not this model: 16 not in the model"),
        ({"encoder": ENCODER | {"tubelet": 0}}, "encoder.tubelet = '0': must be a whole number in range"),
        ({"encoder": ENCODER | {"position_grid": [1, 2.5, 2]}}, "encoder.position_grid = .*: must be numbers in range"),
        ({"encoder": ENCODER | {"positions": "table"}}, r"encoder.position_grid = \(\): must be three numbers"),
        ({"predictor": PREDICTOR | {"positions": "table"}}, r"predictor.position_grid = \(\): must be three numbers"),
        ({"input": {"size": None, "frames": 4}}, "input.size = 'None': must be a whole number"),
        ({"input": SEEN | {"anchor": "1"}}, "input.anchor = '1': must be a whole number"),
        ({"input": SEEN | {"anchor": -1}}, "input.anchor = '-1': must be a whole number"),
        ({"input": SEEN | {"names_objects": 1}}, "input.names_objects = '1': must be true or false"),
        ({"input": SEEN | {"encoder_input": "zero"}}, "encoder_input = 'zero': must be one of context, zeroed"),
        ({"licence": 3}, "licence = '3': must be text"),
        ({"licence": "MIT\n: all is well"}, "licence and about.notes: must be text of one line"),
        ({"about": {"notes": 3}}, "licence and about.notes: must be text of one line"),
        ({"about": []}, "about = .*: must be a table"),
        ({"about": {"training": [1]}}, "about.training and about.metrics: must be tables"),
        ({"about": {"metrics": "text"}}, "about.training and about.metrics: must be tables"),
        ({"about": {"metrics": {"a": 10**400}}}, "about.metrics: 'a': must be a number with a short name"),
        ({"about": {"metrics": {"\n# A": 1}}}, "must be a number with a short name"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, config, message):
    exported(tmp_path, **config)
    with pytest.raises(CheckpointError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    exported(tmp_path, {"other.norm.bias": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match="'other.norm.bias': belongs to none of encoder, target, predictor"):
        read(tmp_path)
    exported(tmp_path, drop=("target.blocks.1.",))
    with pytest.raises(CheckpointError, match="target: is not this model: 12 missing: blocks.1"):
        read(tmp_path)
