"""CRAFT: 2-D scenes with questions about causes.

T. Ates et al., "CRAFT: A Benchmark for Causal Reasoning About Forces and inTeractions", 2022 (github.com/hucvl/craft).

    DIR/dataset_minimal.json                [{"question", "answer", "question_type", "answer_type", "video_index",
                                              "question_index", "video_file_path": "./videos/sid_1/000000.mpg", ...}]
    DIR/split_info_{random,hard}.json       {"train", "validation", "test": [{"video_index", "question_index"}]}
    DIR/videos/sid_K/NNNNNN.mpg             10 s at 256 x 256
    DIR/MASKS/sid_K/NNNNNN.json             custom masks, if there are any (see `Craft`)
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.formats import files, image_bytes, rle, video
from cjepa_jax.data.sources import folder
from cjepa_jax.data.sources.clips import Clips, absent
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

ASKED = ("question_type", "question", "answer", "answer_type", "question_index")
MOST_OBJECTS = 256  # in one file of masks


@dataclass(frozen=True)
class Craft(Clips):
    """CRAFT's videos. Splits train, eval (the published validation) and test, of the setting random or hard.

    setting: "random" (called easy in the paper) or "hard" (test scenes of layouts that no training video has).
    clip_frames: frames of a video that are used. A shorter video counts as truncated.
    masks: CRAFT publishes no object masks. "" gives none (K = 0, so that blocks are hidden instead of objects).
    Otherwise it is a folder, in DIR or absolute, with a file for each video: {"objects": [{"frames": {"12": RLE, ...}},
    ...]}. An RLE is COCO's {"size": [H, W], "counts": text} in the video's size. In frames that are not named the
    object is not visible.

    Labels are those of data/sources/folder.py, of the middle frame's masks. Without masks they are 0.
    """

    setting: str = "random"
    clip_frames: int = 250
    masks: str = ""

    splits: ClassVar[dict[str, str]] = {
        "train": "train", "eval": "validation", "validation": "validation", "test": "test",
    }  # fmt: skip
    label_names: ClassVar[tuple[str, ...]] = folder.Folder.label_names

    def check(self) -> None:
        if self.setting not in ("random", "hard"):
            raise ConfigError(f"data.options.setting is {self.setting!r}: must be random or hard")
        check_integer("data.options.clip_frames", self.clip_frames, 1)
        if not isinstance(self.masks, str):
            raise ConfigError(f"data.options.masks is {self.masks!r}: must be a folder's name or ''")

    @property
    def length(self) -> int:
        return self.clip_frames

    def scan(self, root: Path) -> list[tuple[int, str]]:
        """(video_index, file name) of each video with a question in the split, by index."""
        names, listing = {}, root / "dataset_minimal.json"
        for (index, _), asked in read_questions(listing).items():
            if names.setdefault(index, asked["video_file_path"]) != asked["video_file_path"]:
                raise DataError(f"{listing}: video_index {index} has two files")
        pairs, path = read_pairs(root, self.setting, self.splits[self.split]), split_file(root, self.setting)
        if unknown := sorted(pairs - read_questions(listing).keys()):
            raise DataError(f"{path}: {absent('questions are not in ' + listing.name, unknown)}")
        chosen = sorted({index for index, _ in pairs})
        if not chosen:
            raise DataError(f"{path}: no videos in {self.splits[self.split]}")
        if missing := [names[index] for index in chosen if not files.inside(root, names[index]).is_file()]:
            raise DataError(f"{path}: {absent('videos are missing', missing)}")
        if self.masks and not (root / self.masks).is_dir():
            raise DataError(f"{root / self.masks}: no such folder (data.options.masks)")
        return [(index, names[index]) for index in chosen]

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video, masks, labels. Raises IndexError, DataError."""
        (index, name), frames = self.locate(i)
        where = f"clip {index}"
        pixels = video.read(files.inside(Path(self.path), name), frames, self.clip_frames, where)
        masks = np.zeros((0, *pixels.shape[:3]), bool)
        if self.masks:
            below = PurePosixPath(name)
            below = below.relative_to("videos") if len(below.parts) > 1 and below.parts[0] == "videos" else below
            path = files.inside(Path(self.path) / self.masks, str(below.with_suffix(".json")))
            masks = read_masks(path, frames, *pixels.shape[1:3], where)
        scene = self.reduce(pixels, masks)
        return {**scene, "labels": folder.labels(scene["masks"][:, self.frames // 2])}

    def questions(self, i: int) -> list[dict[str, Any]]:
        """The split's questions about the video of scene i: dicts of question_type, question, answer, answer_type
        (texts) and question_index, in its order. The metric is the share of equal answers, per type and over all."""
        (index, _), _ = self.locate(i)
        asked = read_questions(Path(self.path) / "dataset_minimal.json")
        wanted = sorted(p for p in read_pairs(Path(self.path), self.setting, self.splits[self.split]) if p[0] == index)
        return [{key: asked[pair][key] for key in ASKED} for pair in wanted]


def split_file(root: Path, setting: str) -> Path:
    return root / f"split_info_{setting}.json"


@functools.lru_cache(maxsize=2)
def read_questions(path: Path) -> dict[tuple[int, int], dict]:
    """(video_index, question_index) -> question, of dataset_minimal.json. Raises DataError."""
    found, out = files.read_json(path), {}
    if not isinstance(found, list):
        raise DataError(f"{path}: must be a list of questions")
    for number, asked in enumerate(found):
        if not isinstance(asked, Mapping):
            raise DataError(f"{path}: entry {number} is not a question")
        for key in (*ASKED, "video_index", "video_file_path"):
            if not isinstance(asked.get(key), int if key.endswith("index") else str):
                raise DataError(f"{path}: {key} of entry {number} is {str(asked.get(key))[:40]!r}")
        pair = asked["video_index"], asked["question_index"]
        if out.setdefault(pair, asked) is not asked:
            raise DataError(f"{path}: entry {number} repeats question {pair[1]} of video {pair[0]}")
    return out


@functools.lru_cache(maxsize=4)
def read_pairs(root: Path, setting: str, split: str) -> frozenset[tuple[int, int]]:
    """(video_index, question_index) of a split. Raises DataError."""
    path = split_file(root, setting)
    found = files.read_json(path)
    if not isinstance(found, Mapping) or not isinstance(found.get(split), list):
        raise DataError(f"{path}: has no list {split!r}")
    out = set()
    for number, pair in enumerate(found[split]):
        indices = [pair.get(key) for key in ("video_index", "question_index")] if isinstance(pair, Mapping) else [None]
        if not all(isinstance(index, int) for index in indices):
            raise DataError(f"{path}: entry {number} of {split!r} has no video_index and question_index")
        out.add(tuple(indices))
    return frozenset(out)


def read_masks(path: Path, frames: np.ndarray, height: int, width: int, where: str) -> np.ndarray:
    """Masks bool [K,T,H,W] of these frames, from a custom file (see `Craft`). Raises DataError."""
    found = files.read_json(path, 1 << 28)
    objects = found.get("objects") if isinstance(found, Mapping) else None
    if not isinstance(objects, list) or len(objects) > MOST_OBJECTS:
        raise DataError(f"{path}: needs a list of at most {MOST_OBJECTS} objects ({where})")
    image_bytes.check_room(f"{path}: masks ({where})", len(objects), len(frames), height, width)
    masks = np.zeros((len(objects), len(frames), height, width), bool)
    last = -1
    for k, thing in enumerate(objects):
        shown = thing.get("frames") if isinstance(thing, Mapping) else None
        if not isinstance(shown, Mapping):
            raise DataError(f"{path}: object {k} has no frames ({where})")
        last = max([last, *(int(frame) for frame in shown if str(frame).isdecimal() and len(frame) < 10)])
        for t, frame in enumerate(frames):
            if str(frame) in shown:
                masks[k, t] = rle.decode(shown[str(frame)], height, width, f"{path}: object {k}, frame {frame}")
    if objects and frames[-1] > last:  # an object that is not seen has no entry, but then others have
        raise DataError(f"{path}: ends with frame {last}, frame {frames[-1]} is wanted ({where})")
    return masks
