"""COCO-style image folders: pictures, and the masks of their objects as polygons or run lengths in JSON.

DIR/annotations/instances_{train,val}2017.json      as COCO publishes it (cocodataset.org, "2017"), and
DIR/{train,val}2017/*.jpg                           data sets that follow it

DIR/images/**                                       your own images, with the masks that
DIR/segments/**.json                                python -m cjepa_jax.data.segment made for them
"""

import collections
import logging
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.data.formats import files, image_bytes, image_files, rle
from cjepa_jax.data.sources import annotations, folder
from cjepa_jax.errors import ConfigError, DataError

SPLITS = {"train": "train", "eval": "val"}  # ours -> COCO's


@dataclass(frozen=True)
class Coco:
    """Images with the masks of their objects. A source of scenes with T = 1.

    Options:
      masks: the annotation file, or the folder that `segment` wrote, in DIR (or an absolute path). Default: segments if
        that folder exists, else annotations/instances_{split}2017.json.
      images: the folder of the images. Default: images or {split}2017, accordingly.
      max_masks: a scene with more is refused.
      missing: "skip" leaves out images that are listed but not there, and says how many.
      exif, white: as of `Folder`. The masks of `segment` are made for the turned image.

    `{split}` in them is train or val. Where `masks` has no {split}, a tenth of the names, chosen by their hash, is held
    out, as in `cjepa_jax.data.sources.folder`. Crowds (`iscrowd`) are left out. Overlapping masks are kept. Images
    without an object are scenes too. Polygons that leave the frame are cut off at its border. An annotation without a
    mask that can be read is left out. The first of a process is named in a warning. Names are compared in Unicode's
    form C, and without the folder where that is unambiguous. Sizes and labels are those of `Folder`.

    Raises ConfigError for frames != 1. Raises DataError, naming the file: when built, for a data set that is missing,
    lists missing images or has a duplicate id; when read, for an image or a mask that cannot be read or does not fit
    the other.
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 1
    count: int = 0  # scenes, 0 for all
    seed: int = 0  # unused: nothing is drawn here
    masks: str = ""
    images: str = ""
    max_masks: int = 256
    missing: str = ""
    exif: str = ""
    white: int = 0
    index: annotations.OneEach | annotations.OneFile = field(init=False, repr=False, compare=False)
    scenes: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [N]: number in the index
    found: dict[str, str] = field(init=False, repr=False, compare=False)  # listed names -> files, where they differ

    label_names = folder.Folder.label_names
    can_rerender = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be train or eval")
        if self.frames != 1:
            raise ConfigError(f"data.frames is {self.frames}: a folder of images has 1 frame per scene")
        image_files.check_options(self.exif, self.white)
        if self.missing not in ("", "skip"):
            raise ConfigError(f"data.options.missing is {self.missing!r}: must be '' or 'skip'")
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds the images and the annotations")
        if not Path(self.path).is_dir():
            raise DataError(f"data.path {self.path}: no such folder")
        masks = self._place(self._layout()[0])
        if not masks.exists():
            there = annotations.tree(Path(self.path), (".json",))[:3]
            hint = f", here: {', '.join(there)}" if there else ". For pictures without masks: cjepa_jax.data.segment"
            raise DataError(f"{masks}: no such file: data.options.masks names the annotations{hint}")
        index = annotations.OneEach(str(masks)) if masks.is_dir() else annotations.OneFile(str(masks))
        object.__setattr__(self, "index", index)
        there = self._match(masks)
        object.__setattr__(self, "scenes", self._chosen(masks, there))
        if crowds := getattr(index, "crowds", 0):
            logging.getLogger(__name__).info("%s: %d annotations of crowds are left out (iscrowd)", masks, crowds)

    def _layout(self) -> tuple[str, str]:
        own = (Path(self.path) / "segments").is_dir()
        masks = self.masks or ("segments" if own else "annotations/instances_{split}2017.json")
        return masks, self.images or ("images" if own else "{split}2017")

    def _place(self, name: str) -> Path:
        return Path(self.path) / name.replace("{split}", SPLITS[self.split])

    def _match(self, masks: Path) -> np.ndarray:
        """Which of the listed images are there, bool [N]. Raises DataError for those that are not."""
        root, names = self._place(self._layout()[1]), self.index.names
        if len(set(names)) < len(names):
            raise DataError(f"{masks}: lists {len(names)} images, some under the same file name")
        files_there = annotations.tree(root, folder.SUFFIXES)
        known, listed = set(files_there), set(names)
        normal = {file: unicodedata.normalize("NFC", file) for file in files_there}
        paths, last = _keyed(normal), _keyed({file: name.rpartition("/")[2] for file, name in normal.items()})
        found = {name: _match_one(name, paths, last) for name in names if name not in known}
        if len({_cut(name, found.get(name, name)) for name in names if found.get(name, name)}) > 1:
            found = {name: "" if _cut(name, file) else file for name, file in found.items()}
        meant = collections.Counter(found.values())  # a file that two names may mean is neither's
        found = {name: file if meant[file] == 1 and file not in listed else "" for name, file in found.items()}
        object.__setattr__(self, "found", {name: file for name, file in found.items() if file})
        missing = sorted(name for name, file in found.items() if not file)
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            text = f"{masks}: {len(missing)} images are not in {root}: {shown}"
            if self.missing != "skip":
                raise DataError(f"{text} (data.options.missing='skip' leaves them out)")
            logging.getLogger(__name__).warning("%s. They are left out", text)
        return np.isin(np.arange(len(names)), [k for k, name in enumerate(names) if found.get(name, name)])

    def _chosen(self, masks: Path, there: np.ndarray) -> np.ndarray:
        names = self.index.names
        keep = there
        if "{split}" not in self._layout()[0]:
            held_out = folder.hold_out(names)
            own = [len(names) == 1 or (name in held_out) == (self.split == "eval") for name in names]
            keep = there & np.array(own, bool)
        chosen = np.flatnonzero(keep)
        if not len(chosen) or self.count > len(chosen):
            key = "data.count" if self.split == "train" else "data.eval_count"
            raise DataError(f"{masks}: {len(chosen)} images in split {self.split}, {key} is {self.count}")
        return chosen[: self.count or None]

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Scene `index`: video uint8 [1,H,W,3] (RGB), masks bool [K,1,H,W], labels float32 [4]."""
        number = int(self.scenes[index])
        name = self.index.names[number]
        file = files.inside(self._place(self._layout()[1]), self.found.get(name, name))
        own = isinstance(self.index, annotations.OneEach)
        image, orientation = image_files.read(file, self.exif or ("apply" if own else ""), self.white)
        found, where, stated = self.index.read(number)
        height, width = image.shape[:2]
        if stated != [height, width]:
            hint = f". Its EXIF says to turn it, data.options.exif is {self.exif!r}" if orientation > 1 else ""
            raise DataError(f"{file}: {width}x{height} pixels, its annotations are for {stated[1]}x{stated[0]}{hint}")
        if len(found) > self.max_masks:
            raise DataError(f"{file}: {len(found)} objects, at most {self.max_masks} (data.options.max_masks)")
        pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
        image, pixels = folder.shrink(image, pixels, 2 * self.size)
        image_bytes.check_room(f"{file}: masks", len(found), *pixels.shape)
        read = [mask.ravel()[pixels] for mask in self._masks(found, where, height, width)]
        masks = np.stack(read) if read else np.zeros((0, *pixels.shape), bool)
        return {"video": image[None], "masks": masks[:, None], "labels": folder.labels(masks)}

    def _masks(self, found: list[Any], where: list[str], height: int, width: int) -> list[np.ndarray]:
        """The masks bool [height,width] of those annotations that have one. Raises DataError if none of several has."""
        masks, errors = [], []
        for annotation, place in zip(found, where, strict=True):
            try:
                masks.append(to_mask(annotation, height, width, place))
            except DataError as error:
                errors.append(error)
        if errors and not masks:
            raise errors[0]
        if errors:
            image_files.warn_once("annotation", f"{errors[0]}. It is left out, and so are others like it")
        return masks


def _keyed(keys: Mapping[str, str]) -> dict[str, str]:
    """File -> key, turned around. "" for a key of several files."""
    times = collections.Counter(keys.values())
    return {key: file if times[key] == 1 else "" for file, key in keys.items()}


def _cut(name: str, file: str) -> str:
    """The folders that a listed name has before those of the file that it was taken to mean. All images of an export
    lie in one folder of the other machine. Where these folders differ, nothing says which picture a name means."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(parts[: max(0, len(parts) - file.count("/") - 1)])


def _match_one(name: str, paths: Mapping[str, str], last: Mapping[str, str]) -> str:
    """The file that a listed name means, "" if none or several. Its first folders may be those of another machine.

    paths, last: files by their path, and by their name without folders, which a name without folders may mean.
    """
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    if len(parts) == 1 and parts[0] not in paths:
        return last.get(parts[0], "")
    return next((paths[key] for key in ("/".join(parts[k:]) for k in range(len(parts))) if key in paths), "")


def to_mask(annotation: Any, height: int, width: int, where: str) -> np.ndarray:
    """The mask bool [height,width] of an annotation, whose `segmentation` is run lengths or a list of polygons.

    Raises DataError, beginning with `where`, if it is neither, or has another size than this frame.
    """
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, dict):
        return rle.decode(segmentation, height, width, where)
    if isinstance(segmentation, list) and segmentation:
        if isinstance(segmentation[0], int | float):  # one polygon, as some tools write it
            segmentation = [segmentation]
        return rle.draw(segmentation, height, width, where)
    raise DataError(f"{where}: segmentation must be run lengths or a list of polygons")
