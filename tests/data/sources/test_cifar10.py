"""CIFAR-10's binary version, in files of the published layout."""

import pickle

import numpy as np
import pytest

from cjepa_jax.data.sources import cifar10
from cjepa_jax.data.sources.cifar10 import Cifar10
from cjepa_jax.errors import ConfigError, DataError

EACH = 3  # records of a file. Published are 10,000


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Picture n of all is n red, 100 + n green, and its blue values count rows and columns."""
    monkeypatch.setattr(cifar10, "PER_FILE", EACH)
    number = 0
    for name in [name for names in cifar10.FILES.values() for name in names]:
        data = b""
        for _ in range(EACH):
            rows, columns = np.indices((32, 32), np.uint8)
            planes = [
                np.full((32, 32), number, np.uint8),
                np.full((32, 32), 100 + number, np.uint8),
                4 * rows + columns,
            ]
            data += bytes([number % 10]) + np.stack(planes).tobytes()
            number += 1
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_the_published_size():
    assert (cifar10.RECORD, cifar10.PER_FILE) == (3073, 10_000)
    assert [len(names) for names in cifar10.FILES.values()] == [5, 1]


def test_pictures_and_classes(root):
    source = Cifar10(path=str(root))
    assert (
        len(source) == 15
        and len(Cifar10("eval", path=str(root))) == EACH
        and len(Cifar10(path=str(root), count=4)) == 4
    )
    for n in (0, 7, 14):
        scene = source[n]
        assert scene["class"] == n % 10 and scene["video"].shape == (1, 32, 32, 3) and len(scene["masks"]) == 0
        assert scene["video"][0, 5, 9].tolist() == [n, 100 + n, 29]
    assert Cifar10("eval", path=str(root))[0]["video"][0, 0, 0].tolist() == [15, 115, 0]
    assert len(pickle.loads(pickle.dumps(source))) == 15
    with pytest.raises(IndexError, match="scene 15"):
        source[15]


def test_what_is_not_it_is_refused(root):
    (root / "data_batch_3.bin").write_bytes(b"\0" * (EACH * 3073 - 1))
    with pytest.raises(DataError, match="data_batch_3.bin: has 9218 bytes, must be 9219"):
        Cifar10(path=str(root))
    (root / "data_batch_3.bin").unlink()
    (root / "data_batch_1").write_bytes(pickle.dumps({b"data": 1}, 2))
    with pytest.raises(DataError, match="data_batch_3.bin: no such file: this is the Python version, .* pickles"):
        Cifar10(path=str(root))
    (root / "test_batch.bin").write_bytes(bytes([10]) + b"\0" * (EACH * 3073 - 1))
    with pytest.raises(DataError, match="test_batch.bin: record 0 .* class is above 9"):
        Cifar10("eval", path=str(root))[0]
    for bad, text in (
        ({"frames": 2}, "frames"),
        ({"split": "test"}, "split"),
        ({"path": ""}, "path"),
        ({"count": -1}, "count"),
    ):
        with pytest.raises(ConfigError, match=f"data.{text} is"):
            Cifar10(**{"path": str(root)} | bad)
