"""Folders of classes, as Imagenette is published."""

import pickle

import numpy as np
import pytest
from PIL import Image

from cjepa_jax.data.sources.class_folders import ClassFolders
from cjepa_jax.errors import ConfigError, DataError

CLASSES = ("n01440764", "n02102040", "n03888257")  # Imagenette's: tench, English springer, parachute


@pytest.fixture
def root(tmp_path):
    """Two train pictures and one val picture of each class. Their colour is their class, and rank."""
    for split, count in (("train", 2), ("val", 1)):
        for k, name in enumerate(CLASSES):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(count):
                file = tmp_path / split / name / f"{name}_{100 * n}.JPEG"
                Image.new("RGB", (160 + 8 * n, 213), (80 * k, 100 * n, 50)).save(file, "JPEG", quality=95)
    (tmp_path / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
    return tmp_path


def test_pictures_and_classes(root):
    source = ClassFolders(path=str(root), size=64)
    assert source.classes == CLASSES and len(source) == 6
    for i, scene in enumerate(map(source.__getitem__, range(6))):
        assert scene["class"] == i // 2 and scene["video"].shape[0] == 1 and scene["masks"].shape[0] == 0
        assert min(scene["video"].shape[1:3]) == 128  # reduced to 2 x size
        colour = scene["video"][0, 60, 60].astype(int)
        assert np.abs(colour - [80 * (i // 2), 100 * (i % 2), 50]).max() <= 4
    held = ClassFolders("eval", path=str(root))
    assert [held[i]["class"] for i in range(len(held))] == [0, 1, 2] and held[0]["video"].shape == (1, 213, 160, 3)
    assert [source.names[i].split("/")[0] for i in range(6)] == [name for name in CLASSES for _ in range(2)]
    assert ClassFolders(path=str(root), count=4).names == (
        source.names[0],
        source.names[1],
        source.names[2],
        source.names[4],
    )
    assert pickle.loads(pickle.dumps(source)).names == source.names


def test_the_white_of_16_bits_can_be_said(root):
    values = (np.arange(64 * 64).reshape(64, 64) % 4096).astype(np.uint16)
    file = root / "train" / CLASSES[0] / "a.png"
    Image.fromarray(values).save(file)
    scene = ClassFolders(path=str(root), white=4095)[0]
    np.testing.assert_array_equal(scene["video"][0, ..., 1], np.rint(values / 4095 * 255))
    with pytest.raises(ConfigError, match="data.options.white is -1"):
        ClassFolders(path=str(root), white=-1)


def test_what_does_not_fit_is_refused(root):
    with pytest.raises(DataError, match="elsewhere/train: no such folder"):
        ClassFolders(path=str(root / "elsewhere"))
    (root / "val/n9").mkdir()
    Image.new("RGB", (8, 8)).save(root / "val/n9/a.png")
    with pytest.raises(DataError, match="val/n9: .*train has no such class"):
        ClassFolders("eval", path=str(root))
    Image.new("RGB", (8, 8)).save(root / "train/a.png")
    with pytest.raises(DataError, match="train/a.png: is in no class"):
        ClassFolders(path=str(root))
    (root / "train/a.png").unlink()
    file = root / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError, match="n01440764_0.JPEG"):
        ClassFolders(path=str(root))[0]
    for bad, text in (
        ({"frames": 2}, "frames"),
        ({"split": "val"}, "split"),
        ({"path": ""}, "path"),
        ({"size": 4}, "size"),
    ):
        with pytest.raises(ConfigError, match=f"data.{text} is"):
            ClassFolders(**{"path": str(root)} | bad)
