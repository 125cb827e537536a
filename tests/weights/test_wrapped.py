"""State dicts as people save them: names that wrappers put in, prefixes of other trainers, cleaned encoders."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.canonical import to_canonical
from cjepa_jax.weights.read import read
from tests.weights.test_read import equal, names, prefixed, saved

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
PLAIN = names()
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def within(tensors, wrapper):
    """The names with a wrapper around each block."""
    return {name.replace("blocks.0.", f"blocks.0.{wrapper}."): array for name, array in tensors.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "module.backbone.", "encoder.", "model.", "model.encoder.", "student.", "net."]
    + ["state_dict.model.encoder.", "student.module.backbone.", "encoder.module.model."]
    + [f"{wrapper}.module." for wrapper in WRAPPERS]
    + [f"module.{wrapper}.backbone." for wrapper in WRAPPERS],
)
def test_prefixes_are_removed(tmp_path, prefix):
    equal(read(saved(tmp_path / "w.safetensors", prefixed(prefix, PLAIN)), heads=2).params, read_plain(tmp_path))


def read_plain(tmp_path):
    return read(saved(tmp_path / "plain.safetensors", PLAIN), heads=2).params


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_inside_a_name_are_removed(tmp_path, wrapper):
    path = saved(tmp_path / "w.safetensors", within(prefixed("encoder.", PLAIN), wrapper))
    equal(read(path, heads=2).params, read_plain(tmp_path))


def test_student_and_teacher_are_encoder_and_target(tmp_path):
    other = {name: array + 1 if name == "norm.bias" else array for name, array in PLAIN.items()}
    both = prefixed("student.module.backbone.", PLAIN) | prefixed("teacher.backbone.", other)
    found = read(saved(tmp_path / "w.safetensors", both), heads=2)
    bias = [found.params[part]["stack"]["norm"]["bias"] for part in ("encoder", "target")]
    np.testing.assert_allclose(bias[1], bias[0] + 1)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    both = prefixed("encoder.", PLAIN) | prefixed("model.encoder.", PLAIN)
    with pytest.raises(CheckpointError, match="have one name without their prefixes"):
        read(saved(tmp_path / "w.safetensors", both), heads=2)


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.", "model.backbone.", "target_encoder."])
def test_positions_of_clips_are_asked_for_in_every_spelling(tmp_path, prefix):
    """A cleaned V-JEPA 2 encoder still holds positions that it does not use: nothing in it says so."""
    path = saved(tmp_path / "w.safetensors", prefixed(prefix, names(8)))
    with pytest.raises(CheckpointError, match="layout='vjepa2' if not, else layout='vjepa', or 'timm'"):
        read(path, heads=2)
    assert read(path, heads=2, layout="vjepa2").encoder["positions"] == "rope_tile"
    assert read(path, heads=2, layout="timm").encoder["positions"] == "sincos"
    without = {name: array for name, array in prefixed(prefix, names(8)).items() if not name.endswith("pos_embed")}
    assert read(saved(path, without), heads=2).layout == "vjepa2"  # the only one that stores none


def test_a_pointer_of_git_lfs_says_so(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123\n")
    with pytest.raises(CheckpointError, match="model.safetensors: is a pointer of Git LFS"):
        read(file)


@pytest.mark.needs("torch")
def test_a_folder_from_before_safetensors(tmp_path):
    import torch

    torch.save(
        {name: torch.tensor(np.asarray(array, np.float32)) for name, array in PLAIN.items()},
        tmp_path / "pytorch_model.bin",
    )
    equal(read(tmp_path, heads=2).params, read_plain(tmp_path))


@pytest.mark.needs("torch")
def test_what_is_no_weights_says_how_to_save_them_alone(tmp_path):
    import argparse

    import torch

    torch.save({"encoder": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"'argparse Namespace'.*save the state dicts alone, torch.save"):
        read(tmp_path / "w.pt")


@pytest.mark.needs("torch")
def test_a_checkpoint_that_lightning_wrote():
    """Written by the library itself: version and digest are in the JSON beside it."""
    about = json.loads((GOLDEN / "lightning.json").read_text())
    file = GOLDEN / "lightning.ckpt"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == about["sha256"]
    found = read(file, heads=3)
    assert found.encoder["variant"] == "12x1x3x20/4" and list(found.params) == ["encoder"]
    tensors = to_canonical(found.params["encoder"], 4, 1)
    assert tensors.keys() == about["sums"].keys()  # the head and the optimiser are left out
    for name, array in tensors.items():
        assert float(array.astype(np.float64).sum()) == pytest.approx(about["sums"][name], abs=1e-9), name
