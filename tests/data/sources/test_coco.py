"""COCO-style folders: the published layout and that of `segment`, and every way to get them wrong.

The fixtures have COCO's paths, keys and kinds of masks, and pictures of 48 x 36 pixels.
"""

import json
import pickle
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from cjepa_jax.data.formats import rle
from cjepa_jax.data.sources import annotations
from cjepa_jax.data.sources.coco import Coco
from cjepa_jax.errors import ConfigError, DataError

HEIGHT, WIDTH = 36, 48
BOX = [5.0, 4.0, 20.0, 4.0, 20.0, 30.0, 5.0, 30.0]  # 15 x 26 pixels, a quarter of the frame


def blob() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 25:40] = True
    return mask


def published(root: Path, split: str = "train", count: int = 4) -> dict:
    """Write `count` pictures and return their annotations as COCO spells them; `save` writes those."""
    rng = np.random.default_rng(0)
    (root / f"{split}2017").mkdir(parents=True)
    images, entries = [], []
    for i in range(count):
        name = f"{i + 7:012d}.jpg"
        cv2.imwrite(str(root / f"{split}2017/{name}"), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        images.append(
            {"license": 4, "file_name": name, "coco_url": f"http://images.cocodataset.org/{split}2017/{name}",
             "height": HEIGHT, "width": WIDTH, "date_captured": "2013-11-14 17:02:52", "id": i + 7}
        )  # fmt: skip
        kinds = [([BOX, [1.0, 1.0, 3.0, 1.0, 3.0, 3.5]], 0), (rle.encode(blob()), 0), ({"size": [HEIGHT, WIDTH],
                 "counts": [HEIGHT * WIDTH]}, 1)]  # fmt: skip
        for k, (segmentation, crowd) in enumerate(kinds[: i % 4] if i else kinds):
            entries.append(
                {"segmentation": segmentation, "area": 390.0, "iscrowd": crowd, "image_id": i + 7,
                 "bbox": [5, 4, 15, 26], "category_id": 18, "id": 1000 - 10 * i - k}
            )  # fmt: skip
    info = {"description": "COCO 2017 Datas\u00e9t", "url": "http://cocodataset.org", "version": "1.0", "year": 2017}
    return {"info": info, "licenses": [], "images": images, "annotations": entries, "categories": [{"id": 18}]}


def save(root: Path, content: dict | str, split: str = "train") -> Path:
    file = root / f"annotations/instances_{split}2017.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        save(tmp_path, published(tmp_path, split, count), split)
    return tmp_path


def test_scene_is_what_pycocotools_reads(root):
    source, reference = Coco(path=str(root)), COCO(str(root / "annotations/instances_train2017.json"))
    assert len(source) == 4 and [len(source[i]["masks"]) for i in range(4)] == [2, 1, 2, 2]
    for i, image in enumerate(reference.getImgIds()):
        scene = source[i]
        found = reference.loadAnns(reference.getAnnIds(image, iscrowd=False))
        assert (scene["masks"][:, 0] == np.stack([reference.annToMask(one) for one in found])).all()
        pixels = cv2.imread(str(root / "train2017" / reference.imgs[image]["file_name"]))
        assert (scene["video"][0] == pixels[..., ::-1]).all() and scene["video"].shape == (1, HEIGHT, WIDTH, 3)
        assert scene["labels"].dtype == np.float32 and scene["labels"][0] == len(scene["masks"])


def test_splits_count_and_large_images(root):
    assert len(Coco("eval", str(root))) == 2 and len(Coco(path=str(root), count=3)) == 3
    scene = Coco(path=str(root), size=9)[0]
    assert scene["video"].shape == (1, 18, 24, 3) and scene["masks"].shape == (2, 1, 18, 24)
    assert (scene["masks"][1, 0] == blob()[1::2, 1::2]).all()


def test_pickles_small_and_is_deterministic(root):
    source = Coco(path=str(root))
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source and all((copy[0][key] == source[0][key]).all() for key in source[0])
    assert len(pickle.dumps(source)) < 2000 + 200 * len(source)


def test_annotations_are_found_however_the_file_is_laid_out(root):
    """Indented, not ASCII, sections in another order, file names in folders."""
    plain = [scene["masks"] for scene in map(Coco(path=str(root)).__getitem__, range(4))]
    content = published(root / "other")
    (root / "other/train2017/a\u00e9").mkdir()
    for image in content["images"]:
        name = "a\u00e9/" + image["file_name"]
        (root / "other/train2017" / image["file_name"]).rename(root / "other/train2017" / name)
        image["file_name"] = name
    backwards = {key: content[key] for key in reversed(content)}
    for ascii_only in (True, False):
        save(root / "other", json.dumps(backwards, indent=2, ensure_ascii=ascii_only))
        source = Coco(path=str(root / "other"))
        assert source.index.names[0].startswith("a\u00e9/")
        assert all((source[i]["masks"] == plain[i]).all() for i in range(4))


def test_other_names_hold_out_a_tenth(root):
    options = dict(path=str(root), masks="annotations/instances_train2017.json", images="train2017")
    train, held = Coco("train", **options), Coco("eval", **options)
    assert sorted([*train.scenes, *held.scenes]) == [0, 1, 2, 3] and len(held) >= 1


def drop_image(root, content):
    (root / "train2017/000000000007.jpg").unlink()


def leave(root, content):
    cv2.imwrite(str(root / "secret.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    content["images"][0]["file_name"] = "../secret.jpg"


def two_lines(root, content):
    content["images"][0]["file_name"] = "a\nb.jpg"


def twice(kind):
    def damage(root, content):
        content[kind].append(content[kind][0])

    return damage


def same_file(root, content):
    content["images"][1]["file_name"] = content["images"][0]["file_name"]


def orphan(root, content):
    content["annotations"][0]["image_id"] = 99


def no_list(root, content):
    del content["annotations"]


def no_id(root, content):
    content["images"][2]["id"] = 7.5


def not_a_record(root, content):
    content["annotations"][1] = 5


def no_images(root, content):
    content["images"].clear(), content["annotations"].clear()


@pytest.mark.parametrize(
    "damage, message",
    [
        (drop_image, "1 images are not in .*train2017: 000000000007.jpg"),
        (leave, r"1 images are not in .*train2017: \.\./secret.jpg"),
        (two_lines, r"file_name is 'a\\nb.jpg': must be a file's name"),
        (twice("images"), "entry 4 of images: the id 7 stands there twice"),
        (same_file, "under the same file name"),
        (orphan, "an annotation is of image 99"),
        (no_list, "must hold the lists"),
        (no_id, "entry 2 of images: id is 7.5: must be a whole number"),
        (not_a_record, "entry 1 of annotations: image_id is None"),
        (no_images, "0 images in split train"),
    ],
)
def test_bad_data_sets(tmp_path, damage, message):
    content = published(tmp_path)
    damage(tmp_path, content)
    file = save(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        Coco(path=str(tmp_path))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_corrupt_json(tmp_path):
    text = json.dumps(published(tmp_path))
    for bad in (*(text[:end] for end in range(0, len(text), 97)), text[:-1] + "x", "[" * 10**5, "[]", "{}", "\ud800"):
        file = tmp_path / "annotations/instances_train2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bad.encode("utf-8", "surrogatepass"))
        with pytest.raises(DataError, match="instances_train2017.json: (not a COCO|must hold)"):
            Coco(path=str(tmp_path))


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ({"size": [HEIGHT * 9, WIDTH], "counts": [HEIGHT * 9 * WIDTH]}, r"size is \[324, 48\], its frame's \[36, 48\]"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPYo1"}, "counts"),
        ([[0, 0, 900, 0, 900, 900]], "polygon 0 is far outside its frame of 48x36"),
        ([], "run lengths or a list of polygons"),
        ("mask", "run lengths or a list of polygons"),
        (None, "run lengths or a list of polygons"),
    ],
)
def test_bad_masks_are_named(tmp_path, segmentation, message):
    content = published(tmp_path)
    image = content["annotations"][0]["image_id"]
    for annotation in content["annotations"]:
        if annotation["image_id"] == image:
            annotation["segmentation"] = segmentation
    save(tmp_path, content)
    source = Coco(path=str(tmp_path))
    with pytest.raises(DataError, match=f"instances_train2017.json: annotation 1000: .*{message}"):
        source[0]
    assert source[1]["masks"].any()


def test_annotations_of_another_name_are_shown(root):
    (root / "annotations/instances_train2017.json").rename(root / "annotations/instances_default.json")
    text = "instances_train2017.json: no such file: data.options.masks names the annotations, here: "
    with pytest.raises(DataError, match=f"{text}annotations/instances_default.json"):
        Coco(path=str(root))
    shutil.rmtree(root / "annotations")
    with pytest.raises(DataError, match="no such file.*For pictures without masks: cjepa_jax.data.segment"):
        Coco(path=str(root))


def test_bad_scenes_are_named(root):
    source = Coco(path=str(root))
    image = root / "train2017/000000000007.jpg"
    cv2.imwrite(str(image), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(DataError, match="000000000007.jpg: 30x20 pixels, its annotations are for 48x36"):
        source[0]
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(DataError, match="000000000007.jpg: "):
        source[0]
    image.unlink()
    image.symlink_to(root / "val2017/000000000007.jpg")
    with pytest.raises(DataError, match="leads out of"):
        source[0]
    with pytest.raises(DataError, match="2 objects, at most 1 "):
        Coco(path=str(root), max_masks=1)[2]
    save(root, "{}")
    with pytest.raises(DataError, match="has changed"):
        source[2]


def segmented(root: Path, names: tuple[str, ...] = ("a.jpg", "in/b.png")) -> Path:
    """Pictures and masks as `segment` lays them out."""
    for name in names:
        for kind in ("images", "segments"):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "images" / name), np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
        record = {
            "image": {"file_name": name, "height": HEIGHT, "width": WIDTH},
            "annotations": [{"segmentation": rle.encode(blob()), "area": int(blob().sum())}],
        }
        (root / f"segments/{name}.json").write_text(json.dumps(record))
    (root / "segments/settings.json").write_text("{}")
    return root


def test_own_images(tmp_path):
    train, held = (Coco(split, str(segmented(tmp_path))) for split in ("train", "eval"))
    assert train.index.names == ("a.jpg", "in/b.png") and len(train) == len(held) == 1
    scene = train[0]
    assert (scene["masks"] == blob()).all() and scene["masks"].shape == (1, 1, HEIGHT, WIDTH)
    assert (scene["video"] == 9).all() and train.label_names[0] == "count" and scene["labels"][0] == 1
    assert pickle.loads(pickle.dumps(train)) == train
    elsewhere = Coco(path=str(tmp_path), masks=str(tmp_path / "segments"), images=str(tmp_path / "images"))
    assert (elsewhere[0]["video"] == scene["video"]).all()


@pytest.mark.parametrize("bad", ["", "{", "[]", "5", '{"image": {}}', '{"image": {"height": 36}, "annotations": []}'])
def test_bad_own_masks(tmp_path, bad):
    segmented(tmp_path, ("a.jpg",))
    (tmp_path / "segments/a.jpg.json").write_text(bad)
    with pytest.raises(DataError, match="a.jpg.json: "):
        Coco(path=str(tmp_path))[0]


def test_own_image_missing(tmp_path):
    segmented(tmp_path)
    (tmp_path / "images/in/b.png").unlink()
    with pytest.raises(DataError, match="1 images are not in .*images: in/b.png"):
        Coco(path=str(tmp_path))


@pytest.mark.parametrize(
    "bad, error, message",
    [
        ({"frames": 4}, ConfigError, "frames is 4"),
        ({"path": ""}, ConfigError, "data.path is empty"),
        ({"split": "test"}, ConfigError, "split is 'test'"),
        ({"path": "/nowhere"}, DataError, "/nowhere: no such folder"),
        ({"count": 5}, DataError, "4 images in split train, data.count is 5"),
        ({"masks": "nothing.json"}, DataError, "nothing.json: no such file"),
        ({"images": "nothing"}, DataError, "nothing: no such folder"),
    ],
)
def test_bad_options(root, bad, error, message):
    with pytest.raises(error, match=message):
        Coco(**{"path": str(root)} | bad)


def test_nothing_but_the_place_of_an_annotation_is_held(tmp_path):
    content = published(tmp_path)
    content["annotations"][0]["segmentation"] = [BOX * 5000]
    save(tmp_path, content)
    index = annotations.OneFile(str(tmp_path / "annotations/instances_train2017.json"))
    assert sum(sys.getsizeof(value) for value in vars(index).values()) < 2000
    assert len(index.read(0)[0][0]["segmentation"][0]) == 40000
