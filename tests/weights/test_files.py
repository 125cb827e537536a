"""What is read of weights that came from elsewhere, and that what means harm does none."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files, safetensors_file
from tests.weights import hostile
from tests.weights.hostile import refusal, refused_or_read, saved

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(5,)).astype(np.float32)
needs_torch = pytest.mark.needs("torch")


def raw(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


# ---------------------------------------------------------------------- what is read


def test_safetensors_of_every_kind_of_number_become_float32(tmp_path):
    half, brain = A.astype(np.float16), A.astype(ml_dtypes.bfloat16)
    path = tmp_path / "w.safetensors"
    saved(
        path,
        a=A,
        half=half,
        brain=brain,
        double=A.astype(np.float64),
        none=A[:0],
        one=A[0, :1].reshape(()),
        whole=np.arange(3),
    )
    found = files.tensors(path)
    assert found.shapes["a"] == (3, 4) and found.shapes["one"] == () and found.shapes["none"] == (0, 4)
    for name, wanted in (("a", A), ("half", half), ("brain", brain), ("double", A), ("none", A[:0]), ("one", A[0, 0])):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], np.asarray(wanted, np.float32))
    refusal(lambda: found["whole"], "'whole': is I64, weights are one of F64, F32, F16, BF16")
    with pytest.raises(KeyError):
        found["nothing"]
    found["a"][:] = 0  # a copy: the file and the next reading are untouched
    np.testing.assert_array_equal(found["a"], A)


def test_a_folder_with_one_file_and_one_with_shards(tmp_path):
    saved(tmp_path / "model.safetensors", a=A)
    np.testing.assert_array_equal(files.tensors(tmp_path)["a"], A)
    os.rename(tmp_path / "model.safetensors", tmp_path / "1.safetensors")
    saved(tmp_path / "2.safetensors", b=B, unlisted=B)
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = files.tensors(tmp_path)
    assert found.shapes == {"a": (3, 4), "b": (5,)}
    np.testing.assert_array_equal(found["b"], B)
    index["weight_map"]["c"] = "2.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refusal(lambda: files.tensors(tmp_path), "2.safetensors: has no 'c', which model.safetensors.index.json says")


@needs_torch
@pytest.mark.parametrize("name", ["w.pth.tar", "w.pth", "w.pt", "pytorch_model.bin"])
def test_published_checkpoints_are_flattened_and_what_is_no_tensor_is_left_out(tmp_path, name):
    import torch

    module = torch.nn.Linear(4, 3)
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3, 4), "exp_avg_sq": torch.zeros(3, 4)}
    content = {
        "encoder": {f"module.{key}": value for key, value in module.state_dict().items()},
        "predictor": module.state_dict(),  # an OrderedDict with an attribute
        "target_encoder": {"half": torch.tensor(A).half(), "brain": torch.tensor(A).bfloat16(), "t": torch.tensor(A).T},
        "parameter": torch.nn.Parameter(torch.ones(2, requires_grad=True)),
        "opt": {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]},
        "scaler": {"scale": 65536.0, "_growth_tracker": 0},
        **dict(epoch=300, loss=0.5, batch_size=2048, world_size=16, lr=1e-3, none=None, flags=[True, (1, "x")]),
    }
    torch.save(content, tmp_path / name)
    found = files.tensors(tmp_path / name)
    assert {key for key in found if not key.startswith("opt.")} == {
        *("encoder.module.weight", "encoder.module.bias", "predictor.weight", "predictor.bias", "parameter"),
        *("target_encoder.half", "target_encoder.brain", "target_encoder.t"),
    }
    assert found.shapes["opt.state.0.exp_avg"] == (3, 4)
    np.testing.assert_array_equal(found["encoder.module.weight"], module.weight.detach().numpy())
    np.testing.assert_array_equal(found["target_encoder.t"], A.T)
    for key, kind in (("half", np.float16), ("brain", ml_dtypes.bfloat16)):
        np.testing.assert_array_equal(found[f"target_encoder.{key}"], A.astype(kind).astype(np.float32))


# ---------------------------------------------------------------------- what means harm


def test_a_pickle_that_runs_something_never_does(tmp_path):
    made = tmp_path / "made"
    evil = pickle.dumps({"a": hostile.Harm(made)}, protocol=2)
    cases = {
        "in-zip.pth": lambda path: hostile.archive(path, evil),
        "newer.pth": lambda path: hostile.archive(path, pickle.dumps({"a": hostile.Harm(made)}, protocol=4)),
        "old.pth.tar": lambda path: path.write_bytes(evil),
        "named.safetensors": lambda path: path.write_bytes(evil),
        "zipped.safetensors": lambda path: hostile.archive(path, evil),
        "array.npy": lambda path: np.save(path, np.array([hostile.Harm(made)]), allow_pickle=True),
        "arrays.npz": lambda path: np.savez(path, a=np.array([hostile.Harm(made)])),
        "model.bin": lambda path: path.write_bytes(b"\x80\x02" + evil),
    }
    for name, make in cases.items():
        make(tmp_path / name)
        refusal(lambda name=name: files.tensors(tmp_path / name))
        assert not made.exists(), name
    refusal(lambda: files.tensors(tmp_path / "in-zip.pth"), "its pickle asks for '(posix|nt) mkdir'")
    refusal(lambda: files.tensors(tmp_path / "old.pth.tar"), "PyTorch's format from before 1.6")
    pickle.loads(evil)  # it would have worked
    assert made.exists()


def called_with(name, argument):
    """A pickle of {"a": name(argument)}."""
    return b"\x80\x02}" + hostile.text("a") + hostile.called(name) + hostile.whole(argument) + b"\x85Rs."


@pytest.mark.parametrize("name", ["__builtin__ bytearray", "torch.storage UntypedStorage", "torch Tensor"])
def test_a_pickle_that_asks_for_memory_or_anything_but_tensors(tmp_path, name):
    hostile.archive(tmp_path / "w.pth", called_with(name, 1 << 40))
    refusal(lambda: files.tensors(tmp_path / "w.pth"), f"its pickle asks for '{name}', no part of saved weights")


@needs_torch
@pytest.mark.parametrize(
    "size,stride,numel,match",
    [
        ((1 << 40, 1 << 10), (0, 0), 12, "'a': claims 4503599627370496 bytes"),
        ((1 << 62, 1 << 62), (0, 0), 12, "not readable by torch.load"),
        ((1 << 20,), (1,), 12, "not readable by torch.load"),
        ((1 << 20,), (1,), 1 << 40, "not readable by torch.load"),
        ((-4,), (1,), 12, "not readable by torch.load"),
        ((1,) * 9, (1,) * 9, 12, "'a': has 9 axes, at most 8"),
    ],
)
def test_tensors_that_claim_more_than_there_is(tmp_path, size, stride, numel, match):
    hostile.archive(tmp_path / "w.pth", hostile.tensor(size, stride, numel=numel))
    tracemalloc.start()
    refusal(lambda: files.tensors(tmp_path / "w.pth"), match)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@needs_torch
def test_many_names_for_one_tensor_claim_as_much_as_many_tensors(tmp_path):
    import torch

    one = torch.zeros(10_000)
    torch.save({"a": one, "b": one}, tmp_path / "w.pth")
    assert len(files.tensors(tmp_path / "w.pth")) == 2
    torch.save({str(i): one for i in range(100)}, tmp_path / "w.pth")
    refusal(lambda: files.tensors(tmp_path / "w.pth"), "claims 40000 bytes .* with those before")


@needs_torch
@pytest.mark.parametrize("kind", ["sparse", "complex", "whole", "nan", "list", "loop"])
def test_what_is_no_plain_finite_array(tmp_path, kind):
    import torch

    loop = {"b": torch.ones(2)}
    loop["a"] = loop
    content = {
        "sparse": {"a": torch.eye(3).to_sparse()},
        "complex": {"a": torch.ones(2, dtype=torch.complex64)},
        "whole": {"a": torch.arange(3)},
        "nan": {"a": torch.tensor([1.0, float("nan")])},
        "list": [torch.ones(2)],
        "loop": loop,
    }
    match = {
        "sparse": "its pickle asks for 'torch._utils _rebuild_sparse_tensor'",
        "complex": "its pickle asks for 'torch ComplexFloatStorage'",
        "whole": "'a': is torch.int64, weights are floating-point",
        "nan": "'a': has numbers that are not finite",
        "list": "must hold a dict of tensors, not list",
        "loop": "nested deeper than 12",
    }
    torch.save(content[kind], tmp_path / "w.pth")
    refusal(lambda: files.tensors(tmp_path / "w.pth")["a"], match[kind])


@needs_torch
def test_dicts_in_dicts_in_dicts_that_hold_each_other_end(tmp_path):
    doubled = b"}q\x00" + b"".join(  # each holds the one before ten times: 10^8 entries in a few hundred bytes
        b"}q" + bytes([level]) + b"".join(hostile.text(str(i)) + b"h" + bytes([level - 1]) + b"s" for i in range(10))
        for level in range(1, 9)
    )
    hostile.archive(tmp_path / "w.pth", b"\x80\x02" + doubled + b".")
    refusal(lambda: files.tensors(tmp_path / "w.pth"), "has more than 100000 entries")


def test_archives_that_are_not_what_torch_save_makes(tmp_path):
    path, good = tmp_path / "w.pth", hostile.tensor((3, 4), (4, 1))
    hostile.archive(path, good, [("data/0", bytes(10 << 20))], compression=zipfile.ZIP_DEFLATED)
    refusal(lambda: files.tensors(path), "is compressed, which torch.save never does")
    for name in ("../data.pkl", "a//b", "a/./b", "a\\b", "data.PKL", "ö"):
        refusal(lambda name=name: files.tensors(hostile.archive(path, good, [(name, b"")])), "name")
    refusal(lambda: files.tensors(hostile.archive(path, good, root="")), "'data.pkl' is not a record's name")
    refusal(lambda: files.tensors(hostile.archive(path, good, [("constants.pkl", b"")])), "TorchScript is not read")
    refusal(lambda: files.tensors(hostile.archive(path, good, [("byteorder", b"big")])), "byteorder: must be little")
    refusal(lambda: files.tensors(hostile.archive(path, bytes(5 << 20))), "more than 4194304 bytes")
    hostile.archive(path, good)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + whole)  # a second beginning: two readers could see two archives
    refusal(lambda: files.tensors(path), "its list of records is not where it should be")
    path.write_bytes(whole + b"x")
    refusal(lambda: files.tensors(path), "not readable as an archive")


def test_a_list_of_records_as_large_as_the_file_claims_is_not_read(tmp_path):
    path = tmp_path / "w.pth"
    with open(path, "wb") as file:  # sparse: a gigabyte that takes no room
        file.write(b"PK\3\4")
        file.seek(1 << 30)
        file.write(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 9, 9, (1 << 30) - 4, 4, 0))
    assert not refused_or_read(path)


@pytest.mark.parametrize(
    "header,match",
    [
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, "its header tells of"),
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 48]}}, "data_offsets: must span what F32"),
        ({"a": {"dtype": "F32", "shape": [-12], "data_offsets": [0, 48]}}, "shape: must be at most 8 whole numbers"),
        ({"a": {"dtype": "F32", "shape": [True] * 2, "data_offsets": [0, 4]}}, "shape: must be at most 8 whole"),
        ({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, "shape: must be at most 8 whole"),
        ({"a": {"dtype": "C64", "shape": [6], "data_offsets": [0, 48]}}, "dtype = 'C64': must be one of F64"),
        ({"a": {"dtype": ["F32"], "shape": [12], "data_offsets": [0, 48]}}, "dtype = .*: must be one of"),
        ({"a": {"dtype": "F32", "shape": [12]}}, "data_offsets: must span"),
        ({"a": [1, 2]}, "dtype = 'None': must be one of"),
        ({name: {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]} for name in "abc"}, "a gap or an overlap"),
        ({"a": {"dtype": "F32", "shape": [11], "data_offsets": [4, 48]}}, "'a': begins at byte 4, not 0"),
        ({"a" * 300: {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}}, "and at most 256 letters"),
        ({"": {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}}, "'': a name has at least one"),
        ([], "must be a JSON object, not list"),
        (b"{" * 100_000, "the header: is not JSON"),
        (b"[" * 100_000, "the header: is not JSON that can be read: too deeply nested"),
    ],
)
def test_headers_that_lie(tmp_path, header, match):
    path = raw(tmp_path / "w.safetensors", header, bytes(48))
    refusal(lambda: files.tensors(path), match)
    assert not refused_or_read(path)


def test_a_header_longer_than_the_file_or_the_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refusal(lambda: files.tensors(path), "a header of 4611686018427387904 bytes in 10")
    path.write_bytes(b"{}")
    refusal(lambda: files.tensors(path), "is not a safetensors file")
    monkeypatch.setattr(safetensors_file, "MOST_HEADER", 10)
    refusal(lambda: files.tensors(saved(path, a=A)), "is not a safetensors file: a header of")


@pytest.mark.parametrize("notes", [False, True])
def test_a_header_of_too_many_names_is_refused(tmp_path, monkeypatch, notes):
    monkeypatch.setattr(safetensors_file, "MOST_ENTRIES", 3)
    none = {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(3)}
    texts = {str(i): "" for i in range(3)}
    path = raw(tmp_path / "w.safetensors", {"__metadata__": texts} | dict(list(none.items())[:2]))
    assert len(files.tensors(path)) == 2
    raw(path, {"__metadata__": texts | {"more": ""}} if notes else none | {"more": none["0"]})
    refusal(lambda: files.tensors(path), "its header has more than 3 names")


def test_a_pipe_that_takes_a_file_s_place_is_not_waited_for(tmp_path):
    path = tmp_path / "model.safetensors"
    raw(path, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4)
    found = files.tensors(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        found["a"]


def test_not_finite_weights_and_a_file_that_shrinks_are_refused_by_name(tmp_path):
    path = saved(tmp_path / "w.safetensors", a=np.array([1, np.inf], np.float32), b=np.array([1e300]))
    found = files.tensors(path)
    for name in "ab":
        refusal(lambda name=name: found[name], f"'{name}': has numbers that are not finite")
    os.truncate(path, path.stat().st_size - 4)
    refusal(lambda: found["a"], "'a'")
    refusal(lambda: files.tensors(path), "cut short or damaged")


# ---------------------------------------------------------------------- damage at random


def survivors(path, original, count, **options):
    """How many of the damaged variants are still read."""
    found = 0
    for data in hostile.damaged(original, count):
        path.write_bytes(data)
        found += refused_or_read(path, **options)
    assert found < count
    return found


def test_damaged_safetensors_are_refused_or_read_within_bounds(tmp_path):
    path = saved(tmp_path / "w.safetensors", a=A, b=B, half=A.astype(np.float16))
    assert survivors(path, path.read_bytes(), 250) > 0


def test_damaged_json_is_refused_or_read(tmp_path):
    text = json.dumps({"weight_map": {"a": "1.safetensors"}, "list": [1, 2.5, None, {"b": "c"}], "n": -1e-3})
    assert survivors(tmp_path / "w.json", text.encode(), 200, read=files.json) > 0


@needs_torch
def test_damaged_checkpoints_are_refused_or_read_within_bounds(tmp_path):
    import torch

    path = tmp_path / "w.pth"
    torch.save({"encoder": {"a": torch.tensor(A), "b": torch.tensor(B).half()}, "epoch": 3}, path)
    with zipfile.ZipFile(path) as archive:
        data = archive.read("w/data.pkl")
    assert survivors(path, path.read_bytes(), 100) > 0
    wrapped = tmp_path / "wrapped.pth"
    for variant in hostile.damaged(data, 120):  # a whole archive around a damaged pickle
        refused_or_read(hostile.archive(wrapped, variant, [("data/0", bytes(48)), ("data/1", bytes(10))]))


def test_what_people_have_in_place_of_weights_says_what_to_do(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"<!doctype html><html>404</html>")
    refusal(lambda: files.tensors(tmp_path / "w.pt"), "It is a web page: download the file itself")
    (tmp_path / "w.pt").write_bytes(b"PK\3\4" + b"\0" * 400)
    refusal(lambda: files.tensors(tmp_path / "w.pt"), "Copy it again if it was cut short")
    (tmp_path / "saved").mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (tmp_path / "saved" / name).write_bytes(b"x")
    refusal(lambda: files.tensors(tmp_path / "saved"), "dcp_to_torch FOLDER FILE.pt")
