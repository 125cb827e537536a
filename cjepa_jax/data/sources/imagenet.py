"""ImageNet (ILSVRC 2012) as TensorFlow Datasets prepares it, with custom object masks if there are any.

    DIR/dataset_info.json                                                    DIR is e.g. imagenet2012/5.1.0
    DIR/imagenet2012-{train,validation}.array_record-00000-of-01024          or .tfrecord-...
    MASKS/NAME.json, or MASKS/n01440764/NAME.json                            from python -m cjepa_jax.data.segment

Each record holds "image" (a JPEG), "label" (0 to 999) and "file_name", the NAME, such as n01440764_10026.JPEG.
"""

import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.data.formats import files, image_bytes, tfrecord
from cjepa_jax.data.sources import coco, folder
from cjepa_jax.data.sources.prepared import Prepared
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

SPLITS = {"train": "train", "eval": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class ImageNet:
    """Photographs, each of one of 1000 classes. A source of scenes with T = 1.

    masks: the folder with the masks. "" for none: then K = 0, for methods that remove no objects.
    max_masks: a scene with more is refused.

    A scene also holds `class`, int64 []: the class's number in TFDS's order, -1 in the test split. The probe does not
    use it, because the probe predicts quantities. With masks, `label_names` are those of `Folder`. Without masks there
    are none. Sizes are those of `Folder`. With `count`, only the shards that hold the first `count` records need to be
    there.

    Raises ConfigError for values out of their limits. Raises DataError, when built, for a missing or incomplete data
    set, and when read, naming file and record, for a record or a mask that cannot be read.
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 1
    count: int = 0  # scenes, 0 for all
    seed: int = 0  # unused: nothing is drawn here
    masks: str = ""
    max_masks: int = 256
    records: Prepared = field(init=False, repr=False, compare=False)

    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        for name, value, least in (
            ("data.size", self.size, 8),
            ("data.count", self.count, 0),
            ("data.options.max_masks", self.max_masks, 1),
        ):
            check_integer(name, value, least)
        if self.frames != 1:
            raise ConfigError(f"data.frames is {self.frames}: ImageNet has 1 frame per scene")
        if not self.path:
            raise ConfigError("data.path is empty: name the folder that holds dataset_info.json")
        if self.masks and not Path(self.masks).is_dir():
            raise DataError(f"data.options.masks {self.masks}: no such folder")
        object.__setattr__(self, "records", Prepared(self.path, SPLITS[self.split], self.count))

    @property
    def label_names(self) -> tuple[str, ...]:
        return folder.Folder.label_names if self.masks else ()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video uint8 [1,H,W,3], masks bool [K,1,H,W], labels float32 [P], class int64 []. Raises IndexError,
        DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        where = self.records.where(i)
        found = self.records.read(i, ("image", "label", "file_name"))
        for name in ("image", "file_name"):
            if not (isinstance(found[name], list) and len(found[name]) == 1):
                raise DataError(f"{where}: {name} must hold one text")
        name = found["file_name"][0].decode("utf-8", "replace")
        image = image_bytes.jpeg(found["image"][0], f"{where}: {name[:80]!r}")
        height, width = image.shape[:2]
        pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
        image, pixels = folder.shrink(image, pixels, 2 * self.size)
        masks = self._masks(name, height, width, pixels) if self.masks else np.zeros((0, *pixels.shape), bool)
        return {
            "video": np.ascontiguousarray(image)[None],
            "masks": masks[:, None],
            "labels": folder.labels(masks) if self.masks else np.zeros(0, np.float32),
            "class": tfrecord.array(found, "label", (1,), np.int64, where)[0],
        }

    def _masks(self, name: str, height: int, width: int, pixels: np.ndarray) -> np.ndarray:
        """The masks bool [K,h,w] of an image of this size, at `pixels` int [h,w] of it."""
        root = Path(self.masks)
        below = files.inside(root, f"{name.partition('_')[0]}/{name}.json")
        file = below if below.is_file() else files.inside(root, f"{name}.json")
        record = files.read_json(file)
        try:
            size, found = [record["image"]["height"], record["image"]["width"]], list(record["annotations"])
        except (TypeError, KeyError) as error:
            raise DataError(f"{file}: must hold image (with height and width) and a list of annotations") from error
        if size != [height, width]:
            raise DataError(f"{file}: for an image of {size[1]}x{size[0]} pixels, {name} has {width}x{height}")
        if len(found) > self.max_masks:
            raise DataError(f"{file}: {len(found)} objects, at most {self.max_masks} (data.options.max_masks)")
        image_bytes.check_room(f"{file}: masks", len(found), *pixels.shape)
        masks = np.zeros((len(found), *pixels.shape), bool)
        for k, annotation in enumerate(found):
            masks[k] = coco.to_mask(annotation, height, width, f"{file}: mask {k}").ravel()[pixels]
        return masks
