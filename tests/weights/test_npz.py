"""NumPy archives: what is read, and that what means harm does none."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from cjepa_jax.errors import DataError
from cjepa_jax.weights import npz
from tests.weights import hostile


def refusal(path, match=": ", **options):
    tracemalloc.start()
    with pytest.raises(DataError, match=match) as caught:
        npz.read(path, **options)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


def npy(header):
    """An .npy file with this header and 48 bytes."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)


def archive(path, *records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, data in records:
            out.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    content = {
        "a": np.arange(12.0).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "text": np.array("[1, 2]"),
        "none": np.zeros((0, 3), np.uint8),
        "one": np.array(True),
    }
    save(tmp_path / "a.npz", **content)
    found = npz.read(tmp_path / "a.npz")
    assert list(found) == list(content)
    for name, array in content.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    found["a"][0] = 0  # ours to write to


def test_a_pickle_in_an_archive_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([hostile.Harm(tmp_path / "made")]))
    refusal(tmp_path / "a.npz", "an array that is not a plain one")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "header,match",
    [
        (
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}",
            "an array of 8796093022208 bytes in 48",
        ),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-6,)}", "not a plain one"),
        ("{'descr': '<U90000000', 'fortran_order': False, 'shape': ()}", "bytes in 48"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (6,)}", "not a plain one"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (6,), 'other': __import__('os')}", "not readable"),
        ("(" * 5000, "not readable"),
        ("", "not readable"),
    ],
)
def test_headers_that_lie(tmp_path, header, match):
    refusal(archive(tmp_path / "a.npz", ("a.npy", npy(header))), match)


def test_little_that_becomes_much(tmp_path):
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(40 << 20, np.uint8))
    path = archive(tmp_path / "a.npz", ("a.npy", zeros.getvalue()), compression=zipfile.ZIP_DEFLATED)
    del zeros
    assert path.stat().st_size < 1 << 20
    refusal(path, "1 arrays of 41943168 bytes, at most 10000 of 1048576 are read", most=1 << 20)
    refusal(tmp_path / "nothing.npz", "there is no such file")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_archives_are_refused_or_read(tmp_path, method):
    path = tmp_path / "a.npz"
    records = [(name, io.BytesIO()) for name in ("a.npy", "b.npy")]
    for (_, file), value in zip(records, (np.arange(12.0), np.array("text")), strict=True):
        np.save(file, value)
    archive(path, *((name, file.getvalue()) for name, file in records), compression=method)
    read = 0
    for data in hostile.damaged(path.read_bytes(), 200):
        path.write_bytes(data)
        try:
            npz.read(path)
            read += 1
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert 0 < read < 200
