"""CLEVRER: colliding objects in 3-D, with their motion, collisions and questions.

K. Yi et al., "CLEVRER: Collision Events for Video Representation and Reasoning", ICLR 2020 (clevrer.csail.mit.edu).
SPLIT is train (videos 0 to 9999), validation (10000 to 14999) or test (15000 to 19999, without annotations or answers).

    DIR/video_SPLIT/video_00000-01000/video_00000.mp4                     128 frames of 480 x 320; or DIR/videos/SPLIT/
    DIR/annotation_SPLIT/annotation_00000-01000/annotation_00000.json     or DIR/annotations/SPLIT/
    DIR/questions/{train,validation,test}.json                            or DIR/
    DIR/MASKS/sim_00000.json, or proposal_00000.json                      the published outlines that a network found
"""

import functools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.formats import files, image_bytes, rle, video
from cjepa_jax.data.sources.clips import MOTION_LABELS, Clips, mean_labels
from cjepa_jax.errors import ConfigError, DataError

RANGES = {"train": range(10_000), "validation": range(10_000, 15_000), "test": range(15_000, 20_000)}
MOTION = ("location", "orientation", "velocity", "angular_velocity")
LOOKS = ("color", "material", "shape")  # no two objects of a video share all three
MOST_OBJECTS = 64
MOST_BYTES = 1 << 27  # of one video's JSON files (the published ones have under a megabyte)


@dataclass(frozen=True)
class Clevrer(Clips):
    """The CLEVRER videos in the folder. Splits: train, eval (the published validation) and test.

    masks: a folder, in DIR or absolute, of the published outlines ("processed_proposals" or "derender_proposals"). With
    "" all masks are empty, and blocks are hidden instead of objects. An outline belongs to the object of its colour,
    material and shape. Of several the one with the highest score is used, and one that fits no annotated object is left
    out.

    In train and eval a scene has a row for each annotated object, in the order of object_property. It holds `states`
    float32 [T,K,13] (state_names, in the simulator's units) and `contacts` float32 [C,4] of the collisions within the
    window: first and last time in frames (equal), object a, object b. Labels: the number of objects in the camera's
    view and their mean location and velocity in the middle frame. In test the rows are the sorted looks of the
    outlines, labels are 0, and there are no states or contacts.
    """

    masks: str = ""

    splits: ClassVar[dict[str, str]] = {
        "train": "train", "eval": "validation", "validation": "validation", "test": "test",
    }  # fmt: skip
    length: ClassVar[int] = 128
    state_names: ClassVar[tuple[str, ...]] = (
        "present",  # within the camera's view
        "position/x", "position/y", "position/z",
        "orientation/x", "orientation/y", "orientation/z",
        "velocity/x", "velocity/y", "velocity/z",
        "spin/x", "spin/y", "spin/z",
    )  # fmt: skip
    label_names: ClassVar[tuple[str, ...]] = MOTION_LABELS

    def check(self) -> None:
        if not isinstance(self.masks, str):
            raise ConfigError(f"data.options.masks is {self.masks!r}: must be a folder's name or ''")

    def scan(self, root: Path) -> list[int]:
        """The numbers of the split's videos, ascending."""
        split = self.splits[self.split]
        home = home_of(root, "video", split)
        found = sorted(path.stem for path in home.glob("video_?????-?????/video_?????.mp4"))
        numbers = [int(name[6:]) for name in found if name[6:].isdecimal()]
        if stray := [n for n in numbers if n not in RANGES[split]]:
            raise DataError(f"{home}: video_{stray[0]:05d}.mp4 is not of the {split} split")
        if len(set(numbers)) < len(numbers):
            raise DataError(f"{home}: two videos have the same number")
        if not numbers:
            raise DataError(f"{home}: no videos (video_00000-01000/video_00000.mp4, ...)")
        if self.masks and not (root / self.masks).is_dir():
            raise DataError(f"{root / self.masks}: no such folder (data.options.masks)")
        return numbers

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video, masks, labels and, but for test, states and contacts. Raises IndexError, DataError."""
        number, frames = self.locate(i)
        root, split, where = Path(self.path), self.splits[self.split], f"clip {number}"
        name = f"{thousand('video', number)}/video_{number:05d}.mp4"
        pixels = video.read(files.inside(home_of(root, "video", split), name), frames, self.length, where)
        truth = None if split == "test" else Annotation(self.annotation(number), self.length)
        if truth is not None:
            require_entries(truth.path, truth.described, frames, where)
        shape = (len(truth.looks) if truth else 0, *pixels.shape[:3])
        image_bytes.check_room(f"video_{number:05d}.mp4: masks", *shape)
        masks = np.zeros(shape, bool)
        if self.masks:
            masks = read_outlines(self.outlines(number), frames, *pixels.shape[1:3], truth and truth.looks, where)
        scene = {**self.reduce(pixels, masks), "labels": np.zeros(len(self.label_names), np.float32)}
        if truth is None:
            return scene
        middle = truth.states[frames[self.frames // 2]]
        columns = [self.state_names.index(label) for label in self.label_names[1:]]
        scene["labels"] = mean_labels(middle, middle[:, 0] > 0, columns)
        return {
            **scene,
            "states": truth.states[frames],
            "contacts": truth.contacts(frames[0], self.frames, self.stride),
        }

    def annotation(self, number: int) -> Path:
        """The file that describes video `number`."""
        home = home_of(Path(self.path), "annotation", self.splits[self.split])
        return files.inside(home, f"{thousand('annotation', number)}/annotation_{number:05d}.json")

    def outlines(self, number: int) -> Path:
        """The file of video `number`'s masks, under the one of the two published names that exists."""
        home = Path(self.path) / self.masks
        named = [files.inside(home, f"{kind}_{number:05d}.json") for kind in ("proposal", "sim")]
        return next(filter(Path.is_file, named), named[-1])

    def questions(self, i: int) -> list[dict[str, Any]]:
        """The questions about the video of scene i, as published: question_id, question, question_type,
        question_subtype, program and answer (descriptive), or choices of choice_id, choice, program and answer
        ("correct" or "wrong"). In test without programs and answers. Raises IndexError, DataError."""
        number, _ = self.locate(i)
        root, name = Path(self.path), f"{self.splits[self.split]}.json"
        path = root / "questions" / name if (root / "questions").is_dir() else root / name
        asked = read_questions(path)
        if number not in asked:
            raise DataError(f"{path}: no questions about video_{number:05d}.mp4 (clip {number})")
        return asked[number]


class Annotation:
    """Contents of an annotation file. Raises DataError, naming it.

    looks: (colour, material, shape) of each object. states: float32 [L,K,13], columns as Clevrer.state_names; 0 in
    frames that are not in `described`, which published files have (7648 and 9777 end after 104 of 128 frames).
    """

    def __init__(self, path: Path, length: int):
        self.path, found = path, files.read_json(path, MOST_BYTES)
        self.described: set[int] = set()
        try:
            objects = found["object_property"]
            self.rows = {thing["object_id"]: k for k, thing in enumerate(objects)}
            self.looks = [tuple(str(thing[key]) for key in LOOKS) for thing in objects]
            if len(self.rows) != len(objects) or len(objects) > MOST_OBJECTS:
                raise DataError(f"{path}: object_property has an id twice, or over {MOST_OBJECTS} objects")
            self.states = np.zeros((length, len(objects), 1 + 3 * len(MOTION)), np.float32)
            for moment in found["motion_trajectory"]:
                if type(moment["frame_id"]) is not int:  # 1.0 and true are in a range, but cannot be an index
                    raise TypeError(f"frame_id {moment['frame_id']!r}")
                if moment["frame_id"] in range(length):
                    self.described.add(moment["frame_id"])
                    for thing in moment["objects"]:
                        motion = [np.asarray(thing[key], np.float32).reshape(3) for key in MOTION]
                        row = self.states[moment["frame_id"], self.rows[thing["object_id"]]]
                        row[:] = np.concatenate([[bool(thing["inside_camera_view"])], *motion])
            self._collisions = [
                (int(event["frame_id"]), *(self.rows[thing] for thing in event["object_ids"]))
                for event in found["collision"]
            ]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path}: not an annotation: {type(error).__name__} {str(error)[:60]}") from error
        if not np.isfinite(self.states).all() or {len(event) for event in self._collisions} - {3}:
            raise DataError(f"{path}: not an annotation: motion that is not finite, or a collision not of two objects")

    def contacts(self, first: int, frames: int, stride: int) -> np.ndarray:
        """float32 [C,4]: the collisions within a window (see Clevrer), by time."""
        inside = sorted(event for event in self._collisions if first <= event[0] < first + frames * stride)
        out = [((frame - first) / stride, (frame - first) / stride, a, b) for frame, a, b in inside]
        return np.array(out, np.float32).reshape(-1, 4)


def read_outlines(
    path: Path, frames: np.ndarray, height: int, width: int, looks: Sequence[tuple] | None, where: str
) -> np.ndarray:
    """Masks bool [K,T,H,W] of these frames, from the published outlines. `looks` names the rows (None: one row for each
    look in the file, sorted). Raises DataError."""
    found = files.read_json(path, MOST_BYTES)
    moments = found.get("frames") if isinstance(found, Mapping) else None
    if not isinstance(moments, list) or not all(isinstance(moment, Mapping) for moment in moments):
        raise DataError(f"{path}: needs a list of frames ({where})")
    pairs = [(moment.get("frame_index"), moment.get("objects")) for moment in moments]
    if not all(type(n) is int and isinstance(o, list) and all(map(is_outline, o)) for n, o in pairs):
        raise DataError(f"{path}: a frame needs a frame_index and objects of mask, {', '.join(LOOKS)} ({where})")
    at = dict(pairs)
    require_entries(path, at, frames, where)
    if looks is None:
        looks = sorted({look(thing) for objects in at.values() for thing in objects})
    if len(looks) > MOST_OBJECTS:
        raise DataError(f"{path}: {len(looks)} objects, at most {MOST_OBJECTS} ({where})")
    image_bytes.check_room(f"{path}: masks ({where})", len(looks), len(frames), height, width)
    masks = np.zeros((len(looks), len(frames), height, width), bool)
    for t, frame in enumerate(frames.tolist()):
        best = {look(thing): thing for thing in sorted(at.get(frame, []), key=lambda thing: thing.get("score", 0.0))}
        for k in range(len(looks)):
            if looks[k] in best:
                masks[k, t] = rle.decode(best[looks[k]]["mask"], height, width, f"{path}: frame {frame} ({where})")
    return masks


def require_entries(path: Path, entries: Container[int], frames: np.ndarray, where: str) -> None:
    """Raises DataError where a wanted frame has no entry in a file of one entry a frame: nothing is known of it."""
    lost = next((frame for frame in frames.tolist() if frame not in entries), None)
    if lost is not None:
        raise DataError(f"{path}: frame {lost} has no entry ({where})")


def is_outline(thing: Any) -> bool:
    """Whether `thing` has what an object of the published outlines has."""
    if not isinstance(thing, Mapping) or not {"mask", *LOOKS} <= thing.keys():
        return False
    return isinstance(thing.get("score", 0.0), int | float)


def look(thing: Mapping[str, Any]) -> tuple[str, ...]:
    """(colour, material, shape)."""
    return tuple(str(thing[key]) for key in LOOKS)


def home_of(root: Path, kind: str, split: str) -> Path:
    """The folder of a split's thousands: the first of the usual ones that exists. Raises DataError."""
    places = [root / f"{kind}_{split}", root / f"{kind}s" / split]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(f"{places[0]}: no such folder, nor {places[1]}")


def thousand(kind: str, number: int) -> str:
    """The folder of a numbered file: "video_00000-01000"."""
    first = number // 1000 * 1000
    return f"{kind}_{first:05d}-{first + 1000:05d}"


@functools.lru_cache(maxsize=2)
def read_questions(path: Path) -> dict[int, list[dict]]:
    """Video number -> its questions. Raises DataError."""
    found, out = files.read_json(path), {}
    if not isinstance(found, list):
        raise DataError(f"{path}: must be a list of scenes")
    for number, scene in enumerate(found):
        if not isinstance(scene, Mapping) or not isinstance(scene.get("questions"), list):
            raise DataError(f"{path}: entry {number} has no questions")
        index = scene.get("scene_index")
        if not isinstance(index, int) or out.setdefault(index, scene["questions"]) is not scene["questions"]:
            raise DataError(f"{path}: scene_index of entry {number} is missing or there twice")
    return out
