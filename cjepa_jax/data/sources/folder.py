"""Your own images: a folder of pictures, each with a PNG instance map of its objects.

    DIR/images/NAME.{png,jpg,jpeg,webp,bmp,tif,tiff}    any size; colour, grey, palette, alpha, 8 or 16 bits
    DIR/masks/NAME.png or NAME_mask.png                 the same size
    DIR/eval/{images,masks}/                            optional held-out scenes

In a grey map (8 or 16 bits) 0 is background and every other value one object. The same holds for the indices of a
palette, for any colours. In a colour map black is background, and every other colour is one object. Sub-folders of
images/ have their masks in the same sub-folders of masks/.

Without DIR/eval, a tenth of the names, chosen by their hash, is held out. An image stays in its split when others are
added. Each split has at least one image. A folder with one image uses it in both.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cjepa_jax.configuration import locate
from cjepa_jax.data.formats import bands, image_bytes, image_files
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.data.sources import annotations
from cjepa_jax.data.transforms import centre_square
from cjepa_jax.errors import ConfigError, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".gif", ".dng")  # pictures too, which are not read
MASK = "_mask"  # may end a mask's name
HELD_OUT = 0.1  # share of the names in the eval split of a folder without eval/


@dataclass(frozen=True)
class Folder:
    """Images with instance masks, sorted by name. A source of scenes with T = 1.

    Scenes have the size H x W of their image. A crop (data/transforms.py) brings them to size x size. An image whose
    short side exceeds 2 x size is first reduced to 2 x size (area for the image, nearest for the map), so that large
    photographs stay cheap and a crop of a third keeps its resolution.

    Labels describe the centred square, which a scene without a random crop shows: the number of objects in it, the mean
    x and y of their centroids, and the share of it that they cover. All except the first are in [0, 1] (0 if there is
    no object).

    Options:
      max_masks: a map with more values is refused: it is a photograph or was smoothed, not an instance map.
      ignore: a value of the maps that marks no object, such as 255 in VOC's. -1: none.
      exif: "apply" or "ignore" a file's EXIF orientation, for the image and for the mask. Without it a picture with an
        orientation is refused, because no file says whether its mask is already turned.
      white: the value that is white in 16-bit images (0: 65535).
      channels, pixels: 3 and "uint8" for pictures. With other values, images/ has files of several bands, of formats
        and values as in data/formats/bands.py, NAME.npy among them. `pixels` is then "uint8" or "float32".

    Raises ConfigError for frames != 1. Raises DataError, naming the file: when built, for a folder that is missing or
    empty or whose images and masks do not pair up; when read, for files that cannot be read or differ in size.
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 1
    count: int = 0  # most scenes, 0 for all
    seed: int = 0  # unused: nothing is drawn here
    max_masks: int = 256
    ignore: int = -1
    exif: str = ""
    white: int = 0
    channels: int = 3
    pixels: str = "uint8"
    names: tuple[tuple[str, str], ...] = field(init=False, repr=False)  # (image, mask) of each scene

    label_names = ("count", "position/x", "position/y", "size/area")
    can_rerender = False

    def __post_init__(self):
        if self.split not in ("train", "eval"):
            raise ConfigError(f"split is {self.split!r}: must be train or eval")
        if self.frames != 1:
            raise ConfigError(f"data.frames is {self.frames}: a folder of images has 1 frame per scene")
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds images/ and masks/")
        image_files.check_options(self.exif, self.white)
        bands.check_options(self.channels, self.pixels)
        object.__setattr__(self, "path", locate.example(self.path))
        endings = SUFFIXES if bands.is_rgb(self.channels, self.pixels) else (*SUFFIXES, bands.ARRAY)
        names = pairs(Path(self.path), self.split, endings)
        object.__setattr__(self, "names", tuple(names[: self.count or None]))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        """Scene `index`: video [1,H,W,C] (uint8 RGB), masks bool [K,1,H,W], labels float32 [4]."""
        image_file, mask_file = (Path(name) for name in self.names[index])
        if bands.is_rgb(self.channels, self.pixels):
            image, orientation = image_files.read(image_file, self.exif, self.white)
        else:
            image, orientation = bands.read(image_file, self.channels, self.pixels, self.exif)
        ids = image_files.read_map(mask_file, self.exif)
        if image.shape[:2] != ids.shape:
            (h, w), (mh, mw) = image.shape[:2], ids.shape
            hint = f". The image's EXIF says to turn it, data.options.exif is {self.exif!r}" if orientation > 1 else ""
            raise DataError(f"{mask_file}: the mask is {mw}x{mh} pixels, its image {w}x{h}{hint}")
        values = objects(ids, self.ignore, self.max_masks, str(mask_file))
        image_files.check_sharp(ids, values, str(mask_file))
        image, ids = shrink(image, ids, 2 * self.size)
        image_bytes.check_room(f"{mask_file}: masks", len(values), *ids.shape)
        masks = ids[None] == values[:, None, None]
        return {"video": image[None], "masks": masks[:, None], "labels": labels(masks)}


def objects(ids: np.ndarray, ignore: int, most: int, name: str) -> np.ndarray:
    """The values of the objects in maps of ids, sorted. Ids that are `ignore` become 0, the ground, in place.

    Raises DataError, beginning with `name`, for more than `most` objects.
    """
    ids[ids == ignore] = 0
    values = np.setdiff1d(ids, [0])
    if len(values) > most:
        raise DataError(f"{name}: {len(values)} objects, at most {most}: an instance map has one value per object")
    return values


def pairs(root: Path, split: str, endings: tuple[str, ...] = SUFFIXES) -> list[tuple[str, str]]:
    """The (image, mask) files of one split, sorted by name. endings: of images. Raises DataError if they do not pair
    up."""
    if not root.exists():
        raise DataError(f"data.path {root}: no such folder")
    if not root.is_dir():
        raise DataError(f"data.path {root}: not a folder")
    own_eval = (root / "eval").is_dir()
    found = listing(root / "eval" if own_eval and split == "eval" else root, endings)
    if own_eval:
        return list(found.values())
    held_out = hold_out(found)
    chosen = held_out if split == "eval" or len(found) == 1 else found.keys() - held_out
    return [found[name] for name in found if name in chosen]


def listing(root: Path, endings: tuple[str, ...] = SUFFIXES) -> dict[str, tuple[str, str]]:
    """Name -> (image, mask) of root/images and root/masks, sorted by name. A name includes its sub-folders.

    Names are compared in Unicode's form C: macOS writes form D into archives.
    """
    for folder in (root / "images", root / "masks"):
        if not folder.is_dir():
            hint = "images/NAME.png needs masks/NAME.png. For pictures without masks: cjepa_jax.data.segment"
            raise DataError(f"{folder}: no such folder ({hint})")
    images = by_name(root / "images", endings)
    if not images:
        raise DataError(f"{root / 'images'}: no images ({', '.join(endings)})")
    masks = by_name(root / "masks", (".png",), lambda name: name if name in images else name.removesuffix(MASK))
    for what, names in (
        ("image without a mask", images.keys() - masks),
        ("mask without an image", masks - images.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            raise DataError(f"{root}: {len(names)} {what}: {shown}")
    pairs = {
        stem(image): (str(root / "images" / image), str(root / "masks" / masks[key])) for key, image in images.items()
    }
    return dict(sorted(pairs.items()))


def by_name(folder: Path, endings: tuple[str, ...], rename: Callable[[str], str] = str) -> dict[str, str]:
    """Name without its ending -> file, relative to the folder. Raises DataError for two files of one name."""
    found: dict[str, str] = {}
    for file in pictures(folder, endings):
        name = rename(unicodedata.normalize("NFC", stem(file)))
        if name in found:
            raise DataError(f"{folder / file}: another file has this name, {found[name]}")
        found[name] = file
    return found


def pictures(root: Path, endings: tuple[str, ...] = SUFFIXES) -> list[str]:
    """The files below `root` with these endings, as `annotations.tree`. A warning names pictures of other formats."""
    found = annotations.tree(root, (*endings, *UNREAD))
    others = [name for name in found if not name.lower().endswith(endings)]
    if others:
        image_files.warn_once(
            f"formats in {root}",
            f"{root}: {len(others)} pictures are left out, such as {others[0]}: save them as JPEG or PNG",
        )
    return [name for name in found if name.lower().endswith(endings)]


def stem(file: str) -> str:
    """A relative path without its ending."""
    return file[: -len(Path(file).suffix)]


def hold_out(names: Iterable[str]) -> set[str]:
    """The names of the eval split: those whose hash is in the lowest tenth. At least one, and not all of several."""
    score = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    order = sorted(score, key=score.get)
    below = sum(value < HELD_OUT for value in score.values())
    return set(order[: max(1, min(below, len(order) - 1))])


def shrink(image: np.ndarray, ids: np.ndarray, short: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce an image [H,W,C] and its map [H,W] to a short side of `short` pixels, if it is longer."""
    height, width = ids.shape
    scale = short / min(height, width)
    if scale >= 1:
        return image, ids
    new = (max(short, round(height * scale)), max(short, round(width * scale)))
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(new, ids.shape, strict=True))
    return resize(image, new[::-1]), ids[rows[:, None], columns]


def labels(masks: np.ndarray) -> np.ndarray:
    """Probe targets float32 [4] from masks bool [K,H,W], within the centred square (see `Folder`)."""
    square = centre_square(*masks.shape[1:])
    masks = masks[:, square.top : square.top + square.height, square.left : square.left + square.width]
    masks = masks[masks.any((1, 2))]
    if not len(masks):
        return np.zeros(4, np.float32)
    area = masks.sum((1, 2))
    centres = (np.arange(square.height) + 0.5) / square.height
    x, y = (masks.sum(1) @ centres / area).mean(), (masks.sum(2) @ centres / area).mean()
    return np.array([len(masks), x, y, masks.any(0).mean()], np.float32)
