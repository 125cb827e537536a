"""COCO-style image folders: pictures, and the masks of their objects as polygons or run lengths in JSON.

DIR/annotations/instances_{train,val}2017.json      as COCO publishes it (cocodataset.org, "2017"), and
DIR/{train,val}2017/*.jpg                           data sets that follow it

DIR/images/**                                       your own images, with the masks that
DIR/segments/**.json                                python -m cjepa_jax.data.segment made for them
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.data.formats import files, image_bytes, rle
from cjepa_jax.data.sources import annotations, folder
from cjepa_jax.errors import ConfigError, DataError

SPLITS = {"train": "train", "eval": "val"}  # ours -> COCO's


@dataclass(frozen=True)
class Coco:
    """Images with the masks of their objects; a source of scenes with T = 1.

    Options:
      masks: the annotation file, or the folder that `segment` wrote, in DIR (or an absolute path). Default: segments if
        there is such a folder, else annotations/instances_{split}2017.json.
      images: the folder of the images. Default: images or {split}2017, accordingly.
      max_masks: a scene with more is refused.

    `{split}` in them is train or val. Where `masks` has no {split}, a tenth of the names, chosen by their hash, is held
    out, as in `cjepa_jax.data.sources.folder`. Crowds (`iscrowd`) are left out; where masks overlap, they stay so.
    Images without an object are scenes too. Sizes and labels are those of `Folder`.

    Raises ConfigError for frames != 1; DataError, naming the file, for a data set that is missing, lists images that
    are not there or the same id twice (when built), and for an image or a mask that cannot be read or does not fit the
    other (when read).
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 1
    count: int = 0  # scenes; 0: all
    seed: int = 0  # unused: nothing is drawn here
    masks: str = ""
    images: str = ""
    max_masks: int = 256
    index: annotations.OneEach | annotations.OneFile = field(init=False, repr=False, compare=False)
    scenes: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [N]: number in the index

    label_names = folder.Folder.label_names
    can_rerender = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be train or eval")
        if self.frames != 1:
            raise ConfigError(f"data.frames is {self.frames}: a folder of images has 1 frame per scene")
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds the images and the annotations")
        if not Path(self.path).is_dir():
            raise DataError(f"data.path {self.path}: no such folder")
        masks = self._place(self._layout()[0])
        index = annotations.OneEach(str(masks)) if masks.is_dir() else annotations.OneFile(str(masks))
        object.__setattr__(self, "index", index)
        self._check_images(masks)
        object.__setattr__(self, "scenes", self._chosen(masks))

    def _layout(self) -> tuple[str, str]:
        own = (Path(self.path) / "segments").is_dir()
        masks = self.masks or ("segments" if own else "annotations/instances_{split}2017.json")
        return masks, self.images or ("images" if own else "{split}2017")

    def _place(self, name: str) -> Path:
        return Path(self.path) / name.replace("{split}", SPLITS[self.split])

    def _check_images(self, masks: Path) -> None:
        root = self._place(self._layout()[1])
        missing = sorted(set(self.index.names) - set(annotations.tree(root, folder.SUFFIXES)))
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(f"{masks}: {len(missing)} images are not in {root}: {shown}")
        if len(set(self.index.names)) < len(self.index.names):
            raise DataError(f"{masks}: lists {len(self.index.names)} images, some under the same file name")

    def _chosen(self, masks: Path) -> np.ndarray:
        names = self.index.names
        if "{split}" in self._layout()[0]:
            chosen = np.arange(len(names))
        else:
            held_out = folder.hold_out(names)
            keep = [len(names) == 1 or (name in held_out) == (self.split == "eval") for name in names]
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
        file = files.inside(self._place(self._layout()[1]), self.index.names[number])
        image = folder.to_rgb(folder.read(file))
        found, where, stated = self.index.read(number)
        height, width = image.shape[:2]
        if stated != [height, width]:
            raise DataError(f"{file}: {width}x{height} pixels, its annotations are for {stated[1]}x{stated[0]}")
        if len(found) > self.max_masks:
            raise DataError(f"{file}: {len(found)} objects, at most {self.max_masks} (data.options.max_masks)")
        pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
        image, pixels = folder.shrink(image, pixels, 2 * self.size)
        image_bytes.check_room(f"{file}: masks", len(found), *pixels.shape)
        masks = np.zeros((len(found), *pixels.shape), bool)
        for k, (annotation, place) in enumerate(zip(found, where, strict=True)):
            masks[k] = to_mask(annotation, height, width, place).ravel()[pixels]
        return {"video": image[None], "masks": masks[:, None], "labels": folder.labels(masks)}


def to_mask(annotation: Any, height: int, width: int, where: str) -> np.ndarray:
    """The mask bool [height,width] of an annotation, whose `segmentation` is run lengths or a list of polygons.

    Raises DataError, beginning with `where`, if it is neither, or not of this frame.
    """
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, dict):
        return rle.decode(segmentation, height, width, where)
    if isinstance(segmentation, list) and segmentation:
        return rle.draw(segmentation, height, width, where)
    raise DataError(f"{where}: segmentation must be run lengths or a list of polygons")
