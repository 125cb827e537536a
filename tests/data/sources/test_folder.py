"""Folders of images and instance maps: every kind of file, every way to get it wrong."""

import filecmp
import pickle
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cjepa_jax.data.sources import folder as module
from cjepa_jax.data.sources.folder import Folder
from cjepa_jax.errors import ConfigError, DataError

ROOT = Path(__file__).parents[3]


def save(root: Path, name: str, image: np.ndarray, ids: np.ndarray, suffix: str = ".png", sub: str = "") -> None:
    """Write an image (OpenCV channel order) and its map."""
    for kind, array, ending in (("images", image, suffix), ("masks", ids, ".png")):
        (root / sub / kind).mkdir(parents=True, exist_ok=True)
        (root / sub / kind / f"{name}{ending}").write_bytes(cv2.imencode(ending, array)[1].tobytes())


def picture(height: int = 24, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A picture with two objects, ids 3 and 7."""
    ids = np.zeros((height, width), np.uint8)
    ids[2:8, 6:12], ids[10:20, 14:24] = 7, 3
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return image, ids


@pytest.fixture
def root(tmp_path):
    for name in "abc":
        save(tmp_path, name, *picture())
    return tmp_path


def one(root: Path, **options) -> dict:
    return Folder(path=str(root), **options)[0]


def test_scene(tmp_path):
    image, ids = picture()
    save(tmp_path, "a", image, ids)
    scene = one(tmp_path)
    assert (scene["video"] == image[None, ..., ::-1]).all() and scene["video"].dtype == np.uint8
    assert (scene["masks"] == np.stack([ids == 3, ids == 7])[:, None]).all()
    assert scene["labels"].dtype == np.float32 and len(scene["labels"]) == len(Folder.label_names)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG"])
def test_suffixes(tmp_path, suffix):
    save(tmp_path, "a", *picture(), suffix=suffix)
    assert one(tmp_path)["video"].shape == (1, 24, 32, 3)


def test_kinds_of_images(tmp_path):
    image, ids = picture()
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:12] = 0
    save(tmp_path, "a_grey", image[..., 0], ids)
    save(tmp_path, "b_alpha", np.concatenate([image, alpha], 2), ids)
    save(tmp_path, "c_deep", image.astype(np.uint16) * 257, ids)
    save(tmp_path, "d_deep_grey", image[..., 0].astype(np.uint16) * 257, ids)
    source = Folder(path=str(tmp_path))
    videos = {Path(source.names[i][0]).stem[0]: source[i]["video"][0] for i in range(len(source))}
    videos |= {
        Path(name).stem[0]: Folder("eval", str(tmp_path))[0]["video"][0]
        for name, _ in Folder("eval", str(tmp_path)).names[:1]
    }
    grey, rgb = np.repeat(image[..., :1], 3, 2), image[..., ::-1]
    expected = {"a": grey, "b": np.where(alpha > 0, rgb, 0), "c": rgb, "d": grey}
    assert videos.keys() == expected.keys()
    for name, video in videos.items():
        assert (video == expected[name]).all(), name


def test_palette_image_and_map(tmp_path):
    """Palette files are what many annotation tools write. Pillow is only here to make one."""
    _, ids = picture()
    save(tmp_path, "a", *picture())
    indexed = Image.fromarray(ids).convert("P")
    palette = [0, 0, 0] * 256
    palette[3 * 3 : 3 * 3 + 3], palette[7 * 3 : 7 * 3 + 3] = [10, 200, 30], [250, 0, 0]
    indexed.putpalette(palette)
    indexed.putdata(ids.ravel().tolist())
    indexed.save(tmp_path / "masks/a.png")
    indexed.save(tmp_path / "images/a.png")
    scene = one(tmp_path)
    assert (scene["masks"][:, 0] == np.stack([ids == 3, ids == 7])).all()
    assert (scene["video"][0][ids == 3] == [10, 200, 30]).all()


def test_kinds_of_maps(tmp_path):
    image, ids = picture()
    colour = np.zeros((24, 32, 3), np.uint8)
    colour[ids == 3], colour[ids == 7] = (0, 0, 9), (1, 0, 9)
    clear = np.concatenate([colour, np.where(ids > 0, 255, 0)[..., None].astype(np.uint8)], 2)
    clear[ids == 0, :3] = 77
    deep = ids.astype(np.uint16) * 5000
    expected = np.stack([ids == 3, ids == 7])[:, None]
    for kind in (colour, clear, deep, np.repeat(ids[..., None], 3, 2)):
        save(tmp_path, "a", image, kind)
        assert (one(tmp_path)["masks"] == expected).all()


def test_no_objects_and_full_frame(tmp_path):
    image, ids = picture()
    save(tmp_path, "a", image, ids * 0)
    scene = one(tmp_path)
    assert scene["masks"].shape == (0, 1, 24, 32) and (scene["labels"] == 0).all()
    save(tmp_path, "a", image, ids * 0 + 1)
    scene = one(tmp_path)
    assert scene["masks"].all() and np.allclose(scene["labels"], [1, 0.5, 0.5, 1])


def test_labels_describe_the_centred_square():
    masks = np.zeros((3, 20, 40), bool)
    masks[0, :10, 10:20] = True  # the square is columns 10..30: its upper left quarter
    masks[1, 10:, 25:30] = True
    masks[2, :, :9] = True  # outside
    assert np.allclose(module.labels(masks), [2, (0.25 + 0.875) / 2, (0.25 + 0.75) / 2, (100 + 50) / 400])


def test_large_images_are_reduced_to_twice_the_size(tmp_path):
    save(tmp_path, "a", *picture(200, 300))
    assert one(tmp_path, size=32)["video"].shape == (1, 64, 96, 3)
    assert one(tmp_path, size=32)["masks"].shape == (2, 1, 64, 96)
    assert one(tmp_path, size=100)["video"].shape == (1, 200, 300, 3)


def test_splits_never_overlap_and_are_stable(tmp_path):
    names = [f"img{i}" for i in range(200)]
    held = module.hold_out(names)
    assert 8 <= len(held) <= 35 and held < set(names)
    assert module.hold_out(names[:150]) == held & set(names[:150])
    for n in range(2, 8):
        assert 1 <= len(module.hold_out(names[:n])) < n
    for name in names[:7]:
        save(tmp_path, name, *picture())
    train, held = (Folder(split, str(tmp_path)).names for split in ("train", "eval"))
    assert not set(train) & set(held) and len(train) + len(held) == 7
    assert list(train) == sorted(train)


def test_one_image_is_in_both_splits(tmp_path):
    save(tmp_path, "a", *picture())
    assert len(Folder("train", str(tmp_path))) == len(Folder("eval", str(tmp_path))) == 1


def test_own_eval_folder_and_count(root):
    save(root, "z", *picture(), sub="eval")
    assert [Path(image).stem for image, _ in Folder(path=str(root)).names] == ["a", "b", "c"]
    assert [Path(image).stem for image, _ in Folder("eval", str(root)).names] == ["z"]
    assert len(Folder(path=str(root), count=2)) == 2 and len(Folder(path=str(root), count=99)) == 3


def test_pickles_and_is_deterministic(root):
    source = Folder(path=str(root))
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source and all((copy[0][key] == source[0][key]).all() for key in source[0])


def test_hidden_and_foreign_files_are_ignored(root):
    (root / "images/._a.png").write_bytes(b"x")
    (root / "masks/.DS_Store").write_bytes(b"x")
    (root / "images/readme.txt").write_text("x")
    assert len(Folder(path=str(root))) + len(Folder("eval", str(root))) == 3


def break_nothing_there(root):
    return root / "missing"


def break_file(root):
    return root / "images/a.png"


def break_no_masks(root):
    (root / "masks").rename(root / "other")


def break_no_images(root):
    for file in (root / "images").iterdir():
        file.unlink()


def break_lone_images(root):
    for i in range(7):
        save(root, f"n{i}", *picture())
        (root / f"masks/n{i}.png").unlink()


def break_lone_mask(root):
    (root / "images/b.png").unlink()


def break_twins(root):
    save(root, "a", *picture(), suffix=".jpg")


@pytest.mark.parametrize(
    "damage, message",
    [
        (break_nothing_there, "missing: no such folder"),
        (break_file, "a.png: not a folder"),
        (break_no_masks, "masks: no such folder"),
        (break_no_images, "images: no images"),
        (break_lone_images, "7 image without a mask: n0, n1, n2, n3, n4, ..."),
        (break_lone_mask, "1 mask without an image: b"),
        (break_twins, "another file has this name"),
    ],
)
def test_bad_folders(root, damage, message):
    path = damage(root) or root
    with pytest.raises(DataError) as caught:
        Folder(path=str(path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("damage", ["empty", "half", "tail", "text"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_bad_files_are_named(tmp_path, kind, damage, suffix):
    image, ids = picture()
    save(tmp_path, "a", image, ids, suffix=suffix)
    file = next((tmp_path / kind).iterdir())
    data = file.read_bytes()
    cut = {"empty": b"", "half": data[: len(data) // 2], "tail": data[:-5], "text": b"not an image at all"}[damage]
    file.write_bytes(cut)
    with pytest.raises(DataError) as caught:
        one(tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_vanished(root):
    source = Folder(path=str(root))
    Path(source.names[0][1]).unlink()
    with pytest.raises(DataError, match="No such file"):
        source[0]


def test_sizes_must_agree(tmp_path):
    image, ids = picture()
    save(tmp_path, "a", image, ids[:-1])
    with pytest.raises(DataError, match=r"a.png: the mask is 32x23 pixels, its image 32x24"):
        one(tmp_path)


def test_a_photograph_is_no_instance_map(tmp_path):
    image, _ = picture()
    save(tmp_path, "a", image, image)
    with pytest.raises(DataError, match=r"7\d\d objects, at most 256"):
        one(tmp_path)


@pytest.mark.parametrize(
    "bad, message", [({"frames": 4}, "frames is 4"), ({"path": ""}, "path"), ({"split": "x"}, "split")]
)
def test_bad_options(root, bad, message):
    with pytest.raises(ConfigError, match=message):
        Folder(**{"path": str(root)} | bad)


def test_example_is_what_its_script_draws(tmp_path):
    runpy.run_path(str(ROOT / "examples/make_folder.py"))["main"](tmp_path)
    for sub in ("", "eval"):
        for kind in ("images", "masks"):
            made, kept = (base / sub / kind for base in (tmp_path, ROOT / "examples/folder"))
            files = sorted(file.name for file in made.iterdir())
            assert files == sorted(file.name for file in kept.iterdir())
            for name in files:
                pixels = [cv2.imread(str(base / name), cv2.IMREAD_UNCHANGED).astype(int) for base in (made, kept)]
                # Another version of OpenCV rounds some corners and shadows differently.
                assert (np.abs(pixels[0] - pixels[1]) > (0 if kind == "masks" else 6)).mean() < 0.01
    assert not filecmp.dircmp(tmp_path, ROOT / "examples/folder").right_only


def test_example_has_objects_to_remove():
    source, held = (Folder(split, str(ROOT / "examples/folder"), size=64) for split in ("train", "eval"))
    assert (len(source), len(held)) == (12, 8)
    assert all(2 <= len(source[i]["masks"]) <= 5 for i in range(12))
