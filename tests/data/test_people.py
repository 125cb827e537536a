"""What people's own images and annotations look like: each kind is read rightly, or refused in a line that says why."""

import io
import json
import logging
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps, TiffImagePlugin

from cjepa_jax.configuration import check
from cjepa_jax.data import inspect
from cjepa_jax.data.formats import image_bytes, image_files, rle
from cjepa_jax.data.sources import folder
from cjepa_jax.data.sources.class_folders import ClassFolders
from cjepa_jax.data.sources.coco import Coco
from cjepa_jax.data.sources.folder import Folder
from cjepa_jax.errors import ConfigError, DataError
from configs.data import coco as configs_coco

HEIGHT, WIDTH = 96, 128
IDS = np.zeros((HEIGHT, WIDTH), np.uint8)
IDS[10:50, 10:50], IDS[40:90, 70:120] = 1, 2
PHOTO = np.zeros((HEIGHT, WIDTH, 3), np.uint8)  # object 1 is white
PHOTO[IDS == 1] = 255
SQUARE = [[10, 10, 50, 10, 50, 50, 10, 50]]  # object 1


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch):
    monkeypatch.setattr(image_files, "_warned", set())


@pytest.fixture
def root(tmp_path):
    for name in ("images", "masks", "annotations"):
        (tmp_path / name).mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "images/a.png")
    return tmp_path


def masks_of(root: Path, mask: Image.Image, **options) -> np.ndarray:
    """The masks bool [K,H,W] that a map gives."""
    mask.save(root / "masks/a.png")
    return Folder(path=str(root), **options)[0]["masks"][:, 0]


def refused(call, *parts: str, error: type = DataError) -> None:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[image_bytes.ORIENTATION] = orientation
    return tags


def palette(colours: list[int], ids: np.ndarray = IDS) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(colours + [0] * (768 - len(colours)))
    return image


# Instance maps that were changed.


def discs() -> Image.Image:
    large = Image.new("L", (4 * WIDTH, 4 * HEIGHT))
    draw = ImageDraw.Draw(large)
    draw.ellipse((40, 40, 200, 200), fill=255)
    draw.ellipse((280, 160, 480, 360), fill=120)
    return large


@pytest.mark.parametrize("how", [Image.LANCZOS, Image.BILINEAR, Image.BOX])
def test_a_smoothed_map_is_refused(root, how):
    refused(lambda: masks_of(root, discs().resize((WIDTH, HEIGHT), how)), "masks/a.png", "rims", "nearest")
    assert len(masks_of(root, discs().resize((WIDTH, HEIGHT), Image.NEAREST))) == 2


def test_a_map_that_was_a_jpeg_once_is_refused(root):
    lossy = io.BytesIO()
    discs().resize((WIDTH, HEIGHT), Image.NEAREST).save(lossy, "JPEG", quality=90)
    refused(lambda: masks_of(root, Image.open(lossy)), "masks/a.png", "rims")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_png_that_is_something_lossy_inside_is_refused(root, kind):
    Image.fromarray(IDS).convert("RGB").save(root / "masks/a.png", kind)
    refused(lambda: Folder(path=str(root))[0], "masks/a.png", f"lossy {kind}", "PNG")


def test_small_and_thin_objects_are_no_rims(root):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for k in range(12):
        ids[4 * k : 4 * k + 2, 8 * k : 8 * k + 2] = k + 1
    assert len(masks_of(root, Image.fromarray(ids))) == 12
    ids[:], ids[:, ::2] = 0, np.arange(HEIGHT)[:, None] // 12 + 100  # lines, one pixel wide
    assert len(masks_of(root, Image.fromarray(ids))) == 8


# Palettes.


@pytest.mark.parametrize(
    "colours",
    [[0, 0, 0, 200, 0, 0, 200, 0, 0], [255, 255, 255, 255, 0, 0, 0, 255, 0], []],
    ids=["two indices of one colour", "a white ground", "all black"],
)
def test_a_palette_is_read_by_index(root, colours):
    assert (masks_of(root, palette(colours)) == [IDS == 1, IDS == 2]).all()


def test_transparency_deletes_no_object(root):
    image = palette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.info["transparency"] = 1
    assert (masks_of(root, image) == [IDS == 1, IDS == 2]).all()


def test_the_border_of_class_maps_can_be_ignored(root):
    ids = IDS.copy()
    ids[60:64] = 255
    assert len(masks_of(root, palette([], ids))) == 3
    assert (masks_of(root, palette([], ids), ignore=255) == [ids == 1, ids == 2]).all()


# Orientation.


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_format_is_turned_by_one_rule(root, ending, orientation):
    (root / "images/a.png").unlink()
    file = root / f"images/a.{ending}"
    Image.fromarray(PHOTO).save(file, exif=exif(orientation), **({"lossless": True} if ending == "webp" else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    pixels, found = image_files.read(file)
    assert found == orientation and pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 1
    assert image_files.read(file, "ignore")[0].shape == PHOTO.shape

    mask = Image.fromarray(IDS)
    refused(lambda: masks_of(root, mask), file.name, f"orientation {orientation}", "data.options.exif")
    scene = Folder(path=str(root), exif="ignore")[0]
    assert scene["video"][0][scene["masks"][0, 0]].mean() > 250
    turned = image_bytes.turned(IDS, orientation)
    Image.fromarray(np.ascontiguousarray(turned)).save(root / "masks/a.png")
    scene = Folder(path=str(root), exif="apply")[0]
    assert scene["video"][0][scene["masks"][0, 0]].mean() > 250
    if orientation >= 5:
        refused(lambda: Folder(path=str(root), exif="ignore")[0], "128x96", "EXIF")


def test_an_option_for_orientation_is_checked():
    refused(lambda: Folder(path="x", exif="yes"), "data.options.exif is 'yes'", error=ConfigError)
    refused(lambda: Folder(path="x", white=1 << 16), "data.options.white is 65536", error=ConfigError)


# Damage and range.


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_damaged_inside_is_named(root, mode, capfd):
    (root / "images/a.png").unlink()
    data, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 255, PHOTO.shape, np.uint8)
    Image.fromarray(noise).convert(mode).save(data, "JPEG")
    damaged = bytearray(data.getvalue())
    begin = damaged.find(image_bytes.JPEG_SCAN) + 40
    del damaged[begin : begin + 200]
    (root / "images/a.jpg").write_bytes(bytes(damaged))
    Image.fromarray(IDS).save(root / "masks/a.png")
    refused(lambda: Folder(path=str(root))[0], "images/a.jpg", "damaged")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["MPO", "a film after the picture"])
def test_pictures_of_phones_with_more_in_their_file(root, kind):
    """MPO holds a second picture, and a motion photo a film. The first picture is read, and its damage is noticed."""
    (root / "images/a.png").unlink()
    data, image = io.BytesIO(), Image.fromarray(PHOTO)
    if kind == "MPO":
        image.save(data, "MPO", save_all=True, append_images=[image.resize((20, 16))], exif=exif(6), quality=95)
        data = data.getvalue()
    else:
        image.save(data, "JPEG", exif=exif(6), quality=95)
        data = data.getvalue() + b"\0\0\0\x18ftypmp42" + image_bytes.JPEG_SCAN + bytes(99)
    (root / "images/a.jpg").write_bytes(data)
    pixels, orientation = image_files.read(root / "images/a.jpg")
    assert orientation == 6 and np.abs(pixels.astype(int) - np.rot90(PHOTO, -1)).max() < 40
    assert image_bytes.head(data, "it").lossy
    (root / "masks/a.png").write_bytes(data)
    refused(lambda: image_files.read_map(root / "masks/a.png"), "a.png", "lossy JPEG")
    at = data.index(image_bytes.JPEG_SCAN) + 40
    (root / "images/a.jpg").write_bytes(data[:at] + data[at + 60 :])
    refused(lambda: image_files.read(root / "images/a.jpg"), "images/a.jpg", "damaged")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_anywhere_is_cut_short(mode, progressive):
    data, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(data, "JPEG", progressive=progressive)
    data = data.getvalue()
    assert image_bytes.picture(data, "it").shape == (20, 24, 3)
    for end in range(2, len(data)):
        refused(lambda end=end: image_bytes.picture(data[:end], "it"), "it ", "cut short")


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_decoded_as_opencv_does(subsampling, progressive):
    import cv2

    data, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = Image.fromarray(noise).resize((131, 77), Image.BICUBIC)
    image.save(data, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
    ours = image_bytes.picture(data.getvalue(), "it")
    assert (ours == cv2.imdecode(np.frombuffer(data.getvalue(), np.uint8), cv2.IMREAD_COLOR)).all()
    for mode in ("L", "CMYK"):
        data = io.BytesIO()
        image.convert(mode).save(data, "JPEG")
        ours = image_bytes.picture(data.getvalue(), "it")
        assert (ours == cv2.imdecode(np.frombuffer(data.getvalue(), np.uint8), cv2.IMREAD_COLOR)).all()


def test_12_bits_in_16_warn_once_and_have_a_white(root, caplog):
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 4096).astype(np.uint16)
    Image.fromarray(values).save(root / "images/a.png")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            masks_of(root, Image.fromarray(IDS))
    assert [record.message.count("4095") for record in caplog.records] == [1]
    assert "data.options.white" in caplog.text and "images/a.png" in caplog.text
    caplog.clear()
    scene = Folder(path=str(root), white=4095)[0]
    np.testing.assert_array_equal(scene["video"][0, :, :, 0], np.rint(values / 4095 * 255))
    assert not caplog.records


# Annotations.


def coco(root: Path, entries: list, encoding: str = "utf-8", name: str = "a.png", **options) -> Coco:
    image = {"id": 0, "width": WIDTH, "height": HEIGHT, "file_name": name}
    for number, entry in enumerate(entries):
        entry.setdefault("id", number)
    content = {"images": [image], "annotations": [{"image_id": 0} | entry for entry in entries]}
    (root / "annotations/x.json").write_text(json.dumps(content, ensure_ascii=False), encoding)
    return Coco(path=str(root), masks="annotations/x.json", images="images", **options)


@pytest.mark.parametrize("value", ["0", "1", 2, 0.0, None, [0]])
def test_a_crowd_is_yes_or_no(root, value):
    refused(lambda: coco(root, [{"iscrowd": value, "segmentation": SQUARE}]), "x.json", "iscrowd", "0 or 1")


def test_crowds_are_left_out_and_counted(root, caplog):
    with caplog.at_level(logging.INFO):
        source = coco(root, [{"iscrowd": crowd, "segmentation": SQUARE} for crowd in (0, 1, True, False)])
    assert len(source[0]["masks"]) == 2
    assert "2 annotations of crowds" in caplog.text


BOX_ONLY, CORNERS = {"segmentation": []}, {"segmentation": [[1, 1, 9, 9]]}
FAR = {"segmentation": [[10, 10, 1e6, 10, 50, 50]]}


@pytest.mark.parametrize("bad", [BOX_ONLY, CORNERS, FAR, {}], ids=["box", "two corners", "far outside", "nothing"])
def test_a_bad_annotation_is_left_out_and_said(root, bad, caplog):
    source = coco(root, [dict(bad, id=77), {"segmentation": SQUARE}])
    assert source[0]["masks"].sum() == (IDS == 1).sum() and len(source[0]["masks"]) == 1
    assert "annotation 77" in caplog.text and "left out" in caplog.text
    refused(lambda: coco(root, [dict(bad)])[0], "x.json", "annotation 0")


@pytest.mark.parametrize("shift", [(-1.5, 0), (90.25, 0), (0, 60.5), (-30, -30), (100, 70)])
def test_a_polygon_is_cut_off_at_the_border(shift):
    """As if the frame were larger and the picture were cut out of it."""
    outline = (np.array([10, 10, 50, 14, 44, 50, 12, 40.0]).reshape(-1, 2) + shift).ravel()
    whole = rle.draw([(outline.reshape(-1, 2) + [WIDTH, HEIGHT]).ravel().tolist()], 3 * HEIGHT, 3 * WIDTH, "it")
    assert (rle.draw([outline.tolist()], HEIGHT, WIDTH, "it") == whole[HEIGHT:-HEIGHT, WIDTH:-WIDTH]).all()


@pytest.mark.parametrize("ids", [("7", 7), (1.5, 1.5), (0, 0), (None, {"x": 1})])
def test_ids_of_annotations_only_name_them(root, ids):
    source = coco(root, [{"id": key, "segmentation": SQUARE} for key in ids])
    assert len(source[0]["masks"]) == 2


def test_an_annotation_without_an_id_is_named_by_its_image(root, caplog):
    coco(root, [{"segmentation": SQUARE}, {"id": None, "segmentation": []}])[0]
    assert "mask 1 of a.png" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_encodings_that_windows_writes(root, encoding):
    name = "ä日本🙂.png"
    (root / "images/a.png").rename(root / "images" / name)
    source = coco(root, [{"segmentation": SQUARE, "note": "日本🙂"}, {"segmentation": SQUARE}], encoding, name)
    assert source.index.names == (name,) and len(source[0]["masks"]) == 2


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_another_unicode_form(root, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (root / "images/a.png").rename(root / "images" / unicodedata.normalize(other, "é.png"))
    source = coco(root, [{"segmentation": SQUARE}], name=unicodedata.normalize(form, "é.png"))
    assert len(source[0]["masks"]) == 1
    Image.fromarray(IDS).save(root / "masks" / unicodedata.normalize(form, "é.png"))
    assert len(Folder(path=str(root))[0]["masks"]) == 2


def test_images_that_are_listed_but_not_there(root, caplog):
    content = {"images": [], "annotations": []}
    for number, name in enumerate(("a.png", "gone.png", "sub/b.png")):
        content["images"].append({"id": number, "width": WIDTH, "height": HEIGHT, "file_name": name})
        content["annotations"].append({"id": number, "image_id": number, "segmentation": SQUARE})
    (root / "images/deeper").mkdir()
    Image.fromarray(PHOTO).save(root / "images/deeper/c.png")
    (root / "annotations/train.json").write_text(json.dumps(content))
    options = {"path": str(root), "masks": "annotations/{split}.json", "images": "images"}
    refused(lambda: Coco(**options), "2 images are not in", "gone.png, sub/b.png", "data.options.missing")
    source = Coco(**options, missing="skip")
    assert len(source) == 1 and source[0]["masks"].any() and "2 images are not in" in caplog.text
    refused(lambda: Coco(**options, missing="maybe"), "data.options.missing is 'maybe'", error=ConfigError)
    content["images"][1]["file_name"] = "c.png"  # only one file has this name, in a sub-folder
    (root / "annotations/train.json").write_text(json.dumps(content))
    source = Coco(**options, missing="skip")
    assert len(source) == 2 and source[1]["masks"].any()


def test_images_may_have_texts_as_ids(root):
    """One list may hold a number, the other its text."""
    content = {"images": [], "annotations": []}
    for number, key in enumerate((0, "1", "3f2a-77")):
        Image.fromarray(PHOTO).save(root / f"images/{number}.png")
        content["images"].append({"id": key, "width": WIDTH, "height": HEIGHT, "file_name": f"{number}.png"})
    content["annotations"] += [{"image_id": key, "segmentation": SQUARE} for key in ("0", 1, "1", "3f2a-77")]
    save = (root / "annotations/train.json").write_text
    save(json.dumps(content))
    source = Coco(path=str(root), masks="annotations/{split}.json", images="images")
    assert [len(source[i]["masks"]) for i in range(3)] == [1, 2, 1]
    content["images"][1]["id"] = "0"
    save(json.dumps(content))
    refused(lambda: Coco(path=str(root), masks="annotations/{split}.json", images="images"), "the id 0", "twice")
    content["images"][1]["id"] = 1.0
    save(json.dumps(content))
    refused(lambda: Coco(path=str(root), masks="annotations/{split}.json", images="images"), "id is 1.0", "whole")


def test_a_polygon_may_be_a_list_of_numbers(root):
    source = coco(root, [{"segmentation": SQUARE[0]}])
    assert (source[0]["masks"][:, 0] == [IDS == 1]).all()
    refused(lambda: coco(root, [{"segmentation": [1, 2, "3", 4, 5, 6]}])[0], "annotation 0", "polygon 0")


@pytest.mark.parametrize("before", ["images/", "images\\", "C:\\data\\images\\", "/data/upload/3/"])
def test_names_with_the_folders_of_another_machine(root, before):
    content = {"images": [], "annotations": []}
    for number, name in enumerate(("a.png", "deep/a.png", "deep/b.png")):
        (root / "images/deep").mkdir(exist_ok=True)
        Image.fromarray(np.full_like(PHOTO, 50 * number)).save(root / "images" / name)
        listed = before + name.replace("/", before[-1])
        content["images"].append({"id": number, "width": WIDTH, "height": HEIGHT, "file_name": listed})
    (root / "annotations/train.json").write_text(json.dumps(content))
    options = {"path": str(root), "masks": "annotations/{split}.json", "images": "images"}
    source = Coco(**options)
    assert [source[i]["video"].max() for i in range(3)] == [0, 50, 100]
    (root / "images/deep/a.png").unlink()
    refused(lambda: Coco(**options), "images are not in", "a.png", "data.options.missing")
    content["images"].append({"id": 9, "width": WIDTH, "height": HEIGHT, "file_name": "deep/b.png"})
    (root / "annotations/train.json").write_text(json.dumps(content))
    source = Coco(**options, missing="skip")  # a file that is listed by its own name is not that of another scene
    assert source.index.names[-1] == "deep/b.png" and len(source) == 1


def test_a_folder_that_some_names_have_and_others_have_not_means_another_picture(root):
    """cam2/a.png is missing. The file a.png is another picture, since the other names are those of files."""
    Image.fromarray(PHOTO).save(root / "images/b.png")
    names = ("b.png", "cam2/a.png")
    images = [{"id": k, "width": WIDTH, "height": HEIGHT, "file_name": name} for k, name in enumerate(names)]
    (root / "annotations/train.json").write_text(json.dumps({"images": images, "annotations": []}))
    options = {"path": str(root), "masks": "annotations/{split}.json", "images": "images"}
    refused(lambda: Coco(**options), "1 images are not in", "cam2/a.png")
    assert len(Coco(**options, missing="skip")) == 1


# Names and folders.


def test_sub_folders_endings_and_masks_called_mask(root):
    (root / "images/a.png").unlink()
    for where, image, mask in (
        ("", "a.tif", "a.png"), ("one", "a.TIFF", "a_mask.png"), ("one/two", "b_mask.jpg", "b_mask.png"),
    ):  # fmt: skip
        for kind, name, pixels in (("images", image, PHOTO), ("masks", mask, IDS)):
            (root / kind / where).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / where / name)
    sources = [Folder(split, path=str(root)) for split in ("train", "eval")]
    assert sorted(Path(image).name for source in sources for image, _ in source.names) == [
        "a.TIFF",
        "a.tif",
        "b_mask.jpg",
    ]
    for source in sources:
        for i in range(len(source)):
            assert (source[i]["masks"][:, 0] == [IDS == 1, IDS == 2]).all()
    Image.fromarray(IDS).save(root / "masks/one/a.png")
    refused(lambda: Folder(path=str(root)), "another file has this name")


@pytest.mark.parametrize("reader", ["folder", "classes", "segment"])
def test_pictures_of_other_formats_are_said_to_be_left_out(root, reader, caplog):
    Image.fromarray(IDS).save(root / "masks/a.png")
    for name in ("IMG_1.HEIC", "IMG_2.heic", "notes.txt"):
        (root / "images" / name).write_bytes(b"ftypheic")
    (root / "train").mkdir()
    (root / "images").rename(root / "train/images") if reader == "classes" else None
    read = {
        "folder": lambda: len(Folder(path=str(root))),
        "classes": lambda: len(ClassFolders(path=str(root))),
        "segment": lambda: len(folder.pictures(root / "images")),
    }[reader]
    assert read() == read() == 1
    (said,) = (record.message for record in caplog.records)
    assert "2 pictures are left out, such as " in said and "IMG_1.HEIC: save them as JPEG or PNG" in said


# Lines that decoders print themselves, without the file's name.


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(before: bytes = b"", **damage) -> bytes:
    """A PNG of PHOTO with other chunks before its pixels, or with bytes {place from the pixels' chunk: value}."""
    data = io.BytesIO()
    Image.fromarray(PHOTO).save(data, "PNG")
    data = data.getvalue()
    at = data.index(b"IDAT") - 4
    data = bytearray(data[:at] + before + data[at:])
    for place, value in damage.items():
        data[at + len(before) + int(place[1:])] ^= value
    return bytes(data)


def tiff_with(kind: str | None = None, **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(PHOTO).save(data, "TIFF", compression=kind, **options)
    return data.getvalue()


GEOGRAPHIC = TiffImagePlugin.ImageFileDirectory_v2()
GEOGRAPHIC[42112], GEOGRAPHIC[33550] = "<GDALMetadata/>", (1.0, 1.0, 0.0)
GEOGRAPHIC.tagtype[33550] = 12  # doubles
WHOLE = {
    "a broken colour profile": png_with(chunk(b"iCCP", b"\0" * 40)),
    "bits and gamma of 0": png_with(chunk(b"gAMA", b"\0" * 4) + chunk(b"sBIT", b"\xff\xff\xff")),
    "tags of a map": tiff_with(tiffinfo=GEOGRAPHIC),
}
BROKEN = {
    "a damaged pixel": png_with(n30=255),
    "an unknown chunk": png_with(chunk(b"ABCD", b"xx")),
    "a PNG cut short": png_with()[:200],
    "a TIFF cut short": tiff_with()[:9000],
    "a JPEG in a TIFF": tiff_with("jpeg").replace(b"\xff\xda", b"\xff\xd9"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_notes_in_a_file_print_nothing_and_change_nothing(case, tmp_path, capfd):
    file = tmp_path / "a.bin"
    file.write_bytes(WHOLE[case])
    assert (image_files.read(file)[0] == PHOTO).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("case", BROKEN)
def test_damage_is_said_once_with_the_files_name(case, tmp_path, capfd):
    file = tmp_path / "a.bin"
    file.write_bytes(BROKEN[case])
    refused(lambda: image_files.read(file), str(file))
    assert capfd.readouterr() == ("", "")


# What labelling tools write, inspected and trained on from the documentation alone.


def test_a_small_export_of_a_labelling_tool_is_inspected(tmp_path, capsys):
    """CVAT's export: names with spaces and capitals, empty texts, attributes, fewer images than eval_count."""
    (tmp_path / "images/default").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    content = {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {}, "images": [], "annotations": []}
    content["categories"] = [{"id": 1, "name": "cell", "supercategory": ""}]
    for number in range(1, 5):
        name = f"IMG 2024 {number:03}.JPG"
        Image.fromarray(PHOTO).save(tmp_path / "images/default" / name, "JPEG")
        usual = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
        content["images"].append({"id": number, "width": WIDTH, "height": HEIGHT, "file_name": name} | usual)
        about = {
            "category_id": 1,
            "area": 1600.0,
            "bbox": [10, 10, 40, 40],
            "iscrowd": 0,
            "attributes": {"occluded": False},
        }
        content["annotations"].append({"id": number, "image_id": number, "segmentation": SQUARE} | about)
    (tmp_path / "annotations/instances_default.json").write_text(json.dumps(content))
    config = configs_coco.get_config()
    with config.unlocked():
        config.data.path = str(tmp_path)
        config.data.options = {"masks": "annotations/instances_default.json", "images": "images/default"}
    assert inspect.inspect(config, str(tmp_path / "out"), ("train", "eval"), 1) == 0
    said = capsys.readouterr().out
    assert "train: 3 scenes, 0 unreadable, 1 to 1 objects" in said and "eval: 1 scenes, 0 unreadable" in said
    assert "--config.data.eval_count=1 --config.probe.every=0" in said
    check.override(config, {"data.eval_count": 1, "probe.every": 0})  # which is accepted


# Every kind of data and weights that people have had trouble with, and the test of its right value.

ROWS = {
    "smoothed maps": "data/test_people.py::a_smoothed_map_is_refused",
    "maps that are lossy inside": "data/test_people.py::a_png_that_is_something_lossy_inside_is_refused",
    "crowds as text": "data/test_people.py::a_crowd_is_yes_or_no",
    "crowds are counted": "data/test_people.py::crowds_are_left_out_and_counted",
    "orientation": "data/test_people.py::every_format_is_turned_by_one_rule",
    "palettes": "data/test_people.py::a_palette_is_read_by_index",
    "borders of class maps": "data/test_people.py::the_border_of_class_maps_can_be_ignored",
    "tables shorter than their clip": "data/sources/test_clevrer.py::a_table_that_is_shorter_than_its_clip",
    "damage inside a JPEG": "data/test_people.py::a_jpeg_that_is_damaged_inside_is_named",
    "pictures of phones": "data/test_people.py::pictures_of_phones_with_more_in_their_file",
    "formats that are not read": "data/test_people.py::pictures_of_other_formats_are_said_to_be_left_out",
    "lines of decoders": "data/test_people.py::damage_is_said_once_with_the_files_name",
    "12 bits in 16": "data/test_people.py::12_bits_in_16_warn_once_and_have_a_white",
    "fractions of white": "loading/test_inputs.py::images_that_cannot_be_meant",
    "pixels of exported models": "export/test_modeling.py::what_cannot_be_meant_is_refused_in_a_line_that_names_it",
    "layouts by shapes": "weights/test_wrapped.py::positions_of_clips_are_asked_for_in_every_spelling",
    "layouts that are told": "loading/test_reading.py::load",
    "bad annotations": "data/test_people.py::a_bad_annotation_is_left_out_and_said",
    "polygons over the border": "data/test_people.py::a_polygon_is_cut_off_at_the_border",
    "ids of annotations": "data/test_people.py::ids_of_annotations_only_name_them",
    "ids of images": "data/test_people.py::images_may_have_texts_as_ids",
    "folders of another machine": "data/test_people.py::names_with_the_folders_of_another_machine",
    "flat polygons": "data/test_people.py::a_polygon_may_be_a_list_of_numbers",
    "missing images": "data/test_people.py::images_that_are_listed_but_not_there",
    "encodings": "data/test_people.py::encodings_that_windows_writes",
    "forms of Unicode": "data/test_people.py::names_of_another_unicode_form",
    "sub-folders": "data/test_people.py::sub_folders_endings_and_masks_called_mask",
    "prefixes of wrappers": "weights/test_wrapped.py::wrappers_inside_a_name_are_removed",
    "pickles beside weights": "weights/test_wrapped.py::what_is_no_weights_says_how_to_save_them_alone",
    "folders with a pickle": "weights/test_wrapped.py::a_folder_from_before_safetensors",
    "web pages and shards": "weights/test_files.py::what_people_have_in_place_of_weights_says_what_to_do",
    "mask tokens": "weights/test_published.py::a_mask_token_that_was_never_trained_is_not_taken",
    "own videos": "data/sources/test_videos.py::forty_files_of_five_codecs",
    "damage inside a video": "data/sources/test_videos.py::damage_inside_frames_is_named",
    "inspection": "data/test_inspect.py::counts_and_files",
    "CoPhy's tables": "data/sources/test_cophy.py::broken_contents_are_named",
    "CRAFT's tables": "data/sources/test_craft.py::masks_that_end_before_the_clip",
    "eight pictures for a model of clips": "loading/test_inputs.py::images_that_cannot_be_meant",
    "rates that fall by layers": "test_optim.py::rates_fall_by_layers_towards_the_input",
    "a constant rate and a cooldown": "test_schedules.py::with_a_cooldown_the_rate_is_constant_and_then_a_line_to_0",
    "a push to the hub": "weights/test_hub.py::an_export_of_an_address_names_it_and_a_push_makes_a_private_commit",
    "several channels": "data/test_channels.py::scenes_of_a_folder_keep_their_values",
    "transformers' folders": "export/test_huggingface.py::vjepa2_models_compute_the_same_and_are_read_back_to_the_bit",
    "mixtures": "data/sources/test_mixture.py::every_stretch_from_the_beginning_has_the_proportions",
    "the hub": "weights/test_hub.py::nothing_is_downloaded_unless_asked_and_a_cached_revision_needs_no_network",
    "small views": "objectives/test_views.py::small_views_have_their_own_size_and_share_of_the_frame",
    "CIFAR-10": "data/sources/test_cifar10.py::pictures_and_classes",
    "Imagenette": "data/sources/test_class_folders.py::pictures_and_classes",
    "SAM": "data/segmenters/test_sam.py::generation_is_that_of_transformers",
    "SAM 2": "data/segmenters/test_sam.py::generation_of_sam2_is_that_of_transformers",
    "PNGs that libpng warns of": "data/formats/test_png.py::what_libpng_ignores_changes_nothing_and_prints_nothing",
    "training that falls back": "runtime/test_fallbacks.py::one_warning_in_the_console",
    "links out of a folder": "weights/test_safety.py::links_stay_in_the_folder_or_in_the_same_repository_of_the_cache",
    "published counts": "data/test_published.py::clevrer",
    "a labelling tool's export": "data/test_people.py::a_small_export_of_a_labelling_tool_is_inspected",
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test(row):
    file, _, name = ROWS[row].partition("::")
    assert f"\ndef test_{name}(" in (Path(__file__).parents[1] / file).read_text()
