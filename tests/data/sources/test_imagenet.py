"""ImageNet read from ArrayRecord that TFDS itself has written, with masks as `segment` writes them."""

import functools
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cjepa_jax.data import pipeline
from cjepa_jax.data.formats import rle
from cjepa_jax.data.sources import folder
from cjepa_jax.data.sources.imagenet import ImageNet
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import objects
from tests.data import shards

COUNT = {"train": 8, "validation": 4}
BROKEN = 3  # of the train split: cut short


def name(split: str, i: int) -> str:
    return f"n{i % 3:08d}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{i + 1:08d}.JPEG"


def picture(i: int) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (6, 8 + i % 3, 3), np.uint8)
    pixels = cv2.resize(pixels, None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    return data[: len(data) // 2] if i == BROKEN else data


class Imagenet2012(tfds.core.GeneratorBasedBuilder):
    """The features of TFDS's own builder, which needs the archives and tensorflow."""

    VERSION = tfds.core.Version("5.1.0")
    code_path = None  # where TFDS would look for the checksums of downloads, with a package that it does not install

    def _info(self):
        label = tfds.features.ClassLabel(num_classes=1000)
        image = tfds.features.Image(encoding_format="jpeg")
        features = tfds.features.FeaturesDict({"image": image, "label": label, "file_name": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, _):
        return {split: self._generate_examples(split) for split in COUNT}

    def _generate_examples(self, split):
        for i in range(COUNT[split]):
            image = picture(i + 10 * (split != "train"))
            yield i, {"image": image, "label": (7 * i) % 1000, "file_name": name(split, i)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    builder = Imagenet2012(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    return str(builder.data_dir)


def write_masks(out: Path, found: list[np.ndarray], file: str, height: int = 48, width: int = 64) -> Path:
    """As `python -m cjepa_jax.data.segment` writes the masks of an image."""
    target = out / f"{file}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"segmentation": rle.encode(mask), "area": int(mask.sum())} for mask in found]
    image = {"file_name": file, "height": height, "width": width}
    target.write_text(json.dumps({"image": image, "annotations": entries}))
    return target


def masks_of(height: int, width: int) -> list[np.ndarray]:
    found = np.zeros((2, height, width), bool)
    found[0, 4:20, 8:30] = found[1, 24:40, 20:44] = True
    return list(found)


@pytest.fixture(scope="module")
def masks(root, tmp_path_factory):
    """Of all train images below their class's folder, of the validation images in one folder."""
    out = tmp_path_factory.mktemp("segments")
    for split, count in COUNT.items():
        for i in range(count):
            width = 8 * (8 + (i + 10 * (split != "train")) % 3)
            file = name(split, i)
            below = f"{file.split('_')[0]}/{file}" if split == "train" else file
            write_masks(out, masks_of(48, width), below, 48, width)
    return str(out)


def file_names(root: str, split: str) -> list[str]:
    """In the order of the shards, which TFDS shuffles."""
    source = tfds.builder_from_directory(root).as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return [example["file_name"].decode() for example in source]


def number(file: str) -> int:
    return int(file.split("_")[-1].split(".")[0])


def test_scenes_are_what_tfds_reads(root):
    names = file_names(root, "train")
    source = ImageNet(path=root, size=64)
    assert len(source) == 8 and sorted(names) == sorted(name("train", i) for i in range(8))
    for i, file in enumerate(names):
        if number(file) == BROKEN:
            continue
        found, expected = source[i], cv2.imdecode(np.frombuffer(picture(number(file)), np.uint8), 1)[..., ::-1]
        assert np.array_equal(found["video"], expected[None]) and found["video"].flags.c_contiguous
        assert found["class"] == 7 * number(file) and found["class"].dtype == np.int64
        assert found["masks"].shape == (0, 1, *expected.shape[:2]) and found["labels"].shape == (0,)
    held_out = ImageNet(path=root, split="eval", count=2)
    assert len(held_out) == 2 and held_out[0]["class"] == 7 * (number(file_names(root, "validation")[0]) - 1)


def test_masks_of_ones_own(root, masks):
    for split in ("train", "eval"):
        source = ImageNet(path=root, size=64, split=split, masks=masks)
        i = next(i for i, file in enumerate(file_names(root, source.records.split)) if number(file) not in (BROKEN, 4))
        found = source[i]
        assert np.array_equal(found["masks"][:, 0], masks_of(*found["video"].shape[1:3]))
        assert np.array_equal(found["labels"], folder.labels(found["masks"][:, 0])) and found["labels"][0] == 2
    small = ImageNet(path=root, size=12, masks=masks)
    found = small[next(i for i, file in enumerate(file_names(root, "train")) if number(file) != BROKEN)]
    assert min(found["video"].shape[1:3]) == 24 and found["masks"].shape[2:] == found["video"].shape[1:3]


def test_a_broken_picture_names_file_and_record(root):
    i = [number(file) for file in file_names(root, "train")].index(BROKEN)
    with pytest.raises(DataError, match=rf"-of-00002: record \d: '{name('train', BROKEN)}' is damaged or cut short"):
        ImageNet(path=root)[i]


def copy(root: str, out: Path) -> str:
    for file in Path(root).iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return str(out)


def test_damaged_and_missing_shards(root, tmp_path):
    path = copy(root, tmp_path)
    file = tmp_path / "imagenet2012-validation.array_record-00000-of-00002"
    data = bytearray(file.read_bytes())
    for place in range(200, min(len(data) - 200, 1000)):
        data[place] ^= 0x5A
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"^{file}: record 0 cannot be read: "):
        ImageNet(path=path, split="eval")[0]
    file.with_name(file.name.replace("00000-of", "00001-of")).write_bytes(b"")
    with pytest.raises(DataError, match="00001-of-00002: holds 0 records, it should hold 2"):
        ImageNet(path=path, split="eval")[3]
    file.unlink()
    with pytest.raises(DataError, match=f"1 of the 2 shards needed are not there: {file.name}"):
        ImageNet(path=path, split="eval")


def test_a_shard_with_more_records_than_described(root, tmp_path):
    info = Path(copy(root, tmp_path)) / "dataset_info.json"
    described = json.loads(info.read_text())
    for split in described["splits"]:
        split["shardLengths"] = ["1"] * 2
    info.write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"-of-00002: holds \d records, it should hold 1"):
        ImageNet(path=str(tmp_path))[0]


def test_prepared_as_tfrecord(root, tmp_path):
    feature = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=1000),
            "file_name": tfds.features.Text(),
        }
    )
    example = {"image": picture(0), "label": 12, "file_name": "n00000000_0.JPEG"}
    record = shards.serialise(feature, example)
    shards.write_tfrecord(tmp_path / "imagenet2012-train.tfrecord-00000-of-00001", [record])
    shards.write_info(tmp_path, "imagenet2012", {"train": [1]})
    assert ImageNet(path=str(tmp_path))[0]["class"] == 12


def test_masks_that_do_not_fit(root, tmp_path):
    names = file_names(root, "train")
    i = next(i for i, file in enumerate(names) if number(file) == 0)
    source = ImageNet(path=root, masks=str(tmp_path))
    with pytest.raises(DataError, match=f"{names[i]}.json: No such file"):
        source[i]
    file = write_masks(tmp_path, masks_of(48, 80), names[i], 48, 80)
    with pytest.raises(DataError, match=f"{names[i]}.json: for an image of 80x48 pixels, {names[i]} has 64x48"):
        source[i]
    write_masks(tmp_path, masks_of(48, 80), names[i], 48, 64)
    with pytest.raises(DataError, match=f"{names[i]}.json: mask 0: .*size"):
        source[i]
    write_masks(tmp_path, masks_of(48, 64), names[i])
    with pytest.raises(DataError, match=r"2 objects, at most 1 \(data.options.max_masks\)"):
        ImageNet(path=root, masks=str(tmp_path), max_masks=1)[i]
    for text in ("[]", '{"image": {"height": 48}, "annotations": []}', '{"image": 3}'):
        file.write_text(text)
        with pytest.raises(DataError, match=f"{names[i]}.json: must hold image"):
            source[i]


def test_what_is_asked_for_must_be_there(root):
    for options, error, message in (
        ({"split": "val"}, ConfigError, "data.split is 'val': must be one of train, eval, validation, test"),
        ({"split": "test"}, DataError, "no split test. There are train, validation"),
        ({"frames": 2}, ConfigError, "data.frames is 2: ImageNet has 1 frame per scene"),
        ({"count": 9}, DataError, "split train has 8 records, 9 are asked for"),
        ({"count": -1}, ConfigError, "data.count is -1"),
        ({"masks": "absent"}, DataError, "data.options.masks absent: no such folder"),
        ({"path": ""}, ConfigError, "data.path is empty"),
        ({"path": "absent"}, DataError, "absent/dataset_info.json: No such file"),
    ):
        with pytest.raises(error, match=message):
            ImageNet(**({"path": root} | options))
    with pytest.raises(IndexError):
        ImageNet(path=root)[8]


@pytest.mark.parametrize("with_masks", [True, False])
def test_pickling_determinism_and_the_pipeline(root, masks, with_masks):
    source = ImageNet(path=root, size=32, masks=masks if with_masks else "")
    again = pickle.loads(pickle.dumps(source))
    assert again == source and len(pickle.dumps(source)) < 5000
    i = next(i for i, file in enumerate(file_names(root, "train")) if number(file) != BROKEN)
    assert all(np.array_equal(value, again[i][key]) for key, value in source[i].items())
    mask = functools.partial(objects.draw, max_objects=2, area=(0.01, 0.9))
    scenes = pipeline.SceneMap(source, mask, 8, 1, 32, 4, "zero_pixels", 0, crop=True)
    loader = pipeline.Loader(scenes, batch=8, seed=0, shards=1, shapes=[(8, scenes.tokens)])
    (batch,) = loader.iterate(0, 1)
    assert batch["video"].shape == (8, 1, 32, 32, 3) and batch["replaced"].sum() == 1
    assert batch["object_valid"].any() == with_masks
    assert batch["labels"].shape == (8, len(source.label_names))
