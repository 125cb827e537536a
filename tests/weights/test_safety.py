"""Paths and JSON that came from elsewhere: what is followed and what is not."""

import json
import os

import numpy as np
import pytest

from cjepa_jax.weights import files
from tests.weights.hostile import refusal, saved

A = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\nb", "a\0b", 3])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, name):
    saved(tmp_path / "w.safetensors", a=A)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refusal(lambda: files.tensors(folder), "is not a plain file name|must give each array's file")


def test_links_stay_in_the_folder_or_in_the_same_repository_of_the_cache(tmp_path):
    saved(tmp_path / "w.safetensors", a=A)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to("../w.safetensors")
    refusal(lambda: files.tensors(folder), "'model.safetensors' leads out of this folder: put the file itself")

    snapshot = tmp_path / "hub" / "models--meta--ijepa" / "snapshots" / "0123"
    blobs = snapshot.parents[1] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    saved(blobs / "abc", a=A)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    np.testing.assert_array_equal(files.tensors(snapshot)["a"], A)
    (tmp_path / "link").symlink_to(snapshot)  # a link that the user names may lead anywhere
    np.testing.assert_array_equal(files.tensors(tmp_path / "link")["a"], A)
    other = tmp_path / "hub" / "models--meta--other" / "blobs"
    other.mkdir(parents=True)
    saved(other / "abc", a=A)
    for target in ("../../../models--meta--other/blobs/abc", tmp_path / "w.safetensors", "model.safetensors"):
        (snapshot / "model.safetensors").unlink()
        (snapshot / "model.safetensors").symlink_to(target)
        if str(target) == "model.safetensors":  # a link to itself does not exist
            refusal(lambda: files.tensors(snapshot), "has none of model.safetensors")
        else:
            refusal(lambda: files.tensors(snapshot), "leads out of this folder")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path, "/dev/zero"):
        refusal(lambda path=path: files.tensors(path), "is not a regular file")
    refusal(lambda: files.tensors(tmp_path / "nothing.pth"), "No such file")
    refusal(lambda: files.tensors(tmp_path / "a\0b"), "null")
    (tmp_path / "empty.pth").write_bytes(b"")
    refusal(lambda: files.tensors(tmp_path / "empty.pth"), "neither safetensors nor a checkpoint of PyTorch")


@pytest.mark.parametrize(
    "text,match",
    [
        ("[" * 100_000, "too deeply nested"),
        ('{"a":' * 100_000, "too deeply nested"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": -Infinity}', "-Infinity is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": %s}' % ("9" * 5000), "is not JSON that can be read"),
        ("[]", "must be a JSON object, not list"),
        ("3", "must be a JSON object, not int"),
        ("", "is not JSON that can be read"),
        ('{"a": "\xff"}'.encode("latin1"), "is not JSON that can be read"),
    ],
)
def test_json_that_is_no_plain_object(tmp_path, text, match):
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refusal(lambda: files.json(tmp_path / "config.json"), match)


def test_json_over_the_limit(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1.5}')
    assert files.json(tmp_path / "config.json", limit=10) == {"a": 1.5}
    refusal(lambda: files.json(tmp_path / "config.json", limit=9), "has 10 bytes, JSON has at most 9")
