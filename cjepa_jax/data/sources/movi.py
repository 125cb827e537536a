"""MOVi-A to MOVi-E: falling objects, simulated and rendered, with full ground truth.

K. Greff et al., "Kubric: a scalable dataset generator", CVPR 2022 (github.com/google-research/kubric, challenges/movi).

    DIR/dataset_info.json                                              DIR is e.g. movi_a/128x128/1.0.0
    DIR/movi_a-{train,validation,test}.tfrecord-00000-of-01024         test: MOVi-C to E

Each record is one clip of 24 frames. Names in it are "video", "segmentations", "instances/positions" and so on. Nested
lists are split into NAME/ragged_flat_values and NAME/ragged_row_lengths_0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cjepa_jax.data.formats import image_bytes, tfrecord
from cjepa_jax.data.sources.clips import Clips, mean_labels
from cjepa_jax.data.sources.prepared import Prepared
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import DataError

BACKGROUND = 65535  # as an instance of a collision: the floor, or anything else that is not an instance
BEFORE = 1  # frames simulated before the video begins, from which collisions are counted
MOST_OBJECTS = 255  # that 8 bits can tell apart
MOST_SIDE = 4096  # pixels
MOVING = {"positions": 3, "quaternions": 4, "velocities": 3, "angular_velocities": 3}  # of an object in a frame
FIXED = ("mass", "friction", "restitution")
BOXES, ROWS = "ragged_flat_values", "ragged_row_lengths_0"
NUMBERS = (
    *(f"metadata/{name}" for name in ("width", "height", "num_frames")),
    *(f"instances/{name}" for name in (*FIXED, *MOVING, "image_positions")),
    *(f"instances/{name}" for name in (f"bboxes/{BOXES}", f"bbox_frames/{BOXES}", f"bbox_frames/{ROWS}")),
    *(f"events/collisions/{name}" for name in ("instances", "frame")),
)


@dataclass(frozen=True)
class Movi(Clips):
    """MOVi's clips at 128 or 256 pixels. Splits: train, eval (the published validation) and, of MOVi-C to E, test.

    Options: stride. length: frames of every clip as published.

    With `count`, only the shards that hold the first `count` scenes need to be there. A scene has a row of `masks` for
    each of its instances that is visible in some frame of the clip, the most visible first. It also holds

      states    float32 [T,K,S], columns: state_names
      contacts  float32 [C,4]: first and last frame, instance a < b, or -1 for the floor. Collisions of one pair in
                consecutive frames are one contact. Collisions are counted from the simulation's frame 0, which is one
                frame before the video's first (Kubric renders frames 1 to 24). Those before the video are left out.

    Labels: the number of instances that are visible in the middle frame, and means over them.
    """

    length: int = 24
    records: Prepared = field(init=False, repr=False, compare=False)

    splits: ClassVar[dict[str, str]] = {
        "train": "train", "eval": "validation", "validation": "validation", "test": "test",
    }  # fmt: skip
    state_names: ClassVar[tuple[str, ...]] = (
        "visible",  # 1 if it has pixels in this frame, else 0
        "position/x", "position/y",  # centre of mass in the picture, 0 .. 1 from the left and from the top
        "size/area",  # visible share of the picture
        "box/top", "box/left", "box/bottom", "box/right",  # of its visible part, 0 .. 1 (0 if nothing is visible)
        "world/x", "world/y", "world/z",  # metres, z up
        "rotation/w", "rotation/x", "rotation/y", "rotation/z",  # quaternion
        "velocity/x", "velocity/y", "velocity/z",  # metres / s
        "spin/x", "spin/y", "spin/z",  # radians / s
        "mass", "friction", "restitution",
    )  # fmt: skip
    label_names: ClassVar[tuple[str, ...]] = (
        "count", "position/x", "position/y", "velocity/x", "velocity/y", "velocity/z", "size/area",
    )  # fmt: skip

    def check(self) -> None:
        check_integer("data.options.length", self.length, 1)

    def scan(self, root: Path) -> Sequence[int]:
        needed = -(-self.count // self.per_clip)
        object.__setattr__(self, "records", Prepared(str(root), self.splits[self.split], needed))
        return range(len(self.records))

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i. Raises IndexError, DataError."""
        record, frames = self.locate(i)
        where = self.records.where(record)
        found = self.records.read(record, ("video", "segmentations", *NUMBERS))
        video, ids = self._pictures(found, frames, where)
        motion = self._motion(found, where)
        if ids.max() > len(motion):
            raise DataError(f"{where}: segmentations name instance {ids.max()} of {len(motion)}")
        image_bytes.check_room(f"{where}: masks", len(motion), *ids.shape)
        masks = ids == np.arange(1, len(motion) + 1)[:, None, None, None]
        seen = masks.mean((2, 3), dtype=np.float32)
        states = np.concatenate(
            [(seen > 0)[..., None], motion[:, frames, :2], seen[..., None], motion[:, frames, 2:]], 2
        )
        states = states.swapaxes(0, 1).astype(np.float32)
        middle = len(frames) // 2
        return self.reduce(video, masks) | {
            "states": states,
            "contacts": self._contacts(found, len(motion), frames, where),
            "labels": mean_labels(
                states[middle], seen[:, middle] > 0, [self.state_names.index(name) for name in self.label_names[1:]]
            ),
        }

    def _pictures(self, found: dict, frames: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Video uint8 [T,H,W,3] and instances uint8 [T,H,W], 0 for the background and k + 1 for instance k."""
        sizes = [tfrecord.array(found, f"metadata/{name}", (1,), np.int64, where)[0] for name in ("height", "width")]
        if not all(1 <= side <= MOST_SIDE for side in sizes):
            raise DataError(f"{where}: frames of {sizes[1]}x{sizes[0]} pixels, at most {MOST_SIDE} a side")
        image_bytes.check_room(f"{where}: video", len(frames), *sizes, 3)
        lengths = {name: len(found[name]) for name in ("video", "segmentations")}
        lengths["num_frames"] = tfrecord.array(found, "metadata/num_frames", (1,), np.int64, where)[0]
        for name, length in lengths.items():
            if name in ("video", "segmentations") and not isinstance(found[name], list):
                raise DataError(f"{where}: {name} holds numbers, not pictures")
            if length != self.length:
                raise DataError(
                    f"{where}: {name} has {length} frames, the clips have {self.length} (data.options.length)"
                )
        video, ids = (
            np.stack([image_bytes.frame(found[name][k], *sizes, f"{where}: {name} frame {k}", colour) for k in frames])
            for name, colour in (("video", True), ("segmentations", False))
        )
        return video, ids

    def _motion(self, found: dict, where: str) -> np.ndarray:
        """[K,L,S-2]: the columns of `states` that do not come from the masks, for all L frames of the clip."""

        def numbers(name: str, *shape: int) -> np.ndarray:
            values = tfrecord.array(found, f"instances/{name}", shape, np.float32, where)
            if not np.isfinite(values).all():
                raise DataError(f"{where}: instances/{name} holds a number that is not finite")
            return values

        count = len(numbers("mass", -1))
        if count > MOST_OBJECTS:
            raise DataError(f"{where}: {count} instances, at most {MOST_OBJECTS}")
        columns = [numbers("image_positions", count, self.length, 2), self._boxes(found, count, where)]
        columns += [numbers(name, count, self.length, axes) for name, axes in MOVING.items()]
        columns += [np.repeat(numbers(name, count)[:, None, None], self.length, 1) for name in FIXED]
        return np.concatenate(columns, 2)

    def _boxes(self, found: dict, count: int, where: str) -> np.ndarray:
        """[K,L,4]: top, left, bottom, right. 0 in frames in which an instance is not visible."""
        name = "instances/bbox_frames"
        lengths = tfrecord.array(found, f"{name}/{ROWS}", (count,), np.int64, where)
        frames = tfrecord.array(found, f"{name}/{BOXES}", (-1,), np.int64, where)
        if ((lengths < 0) | (lengths > self.length)).any() or lengths.sum() != len(frames):
            raise DataError(f"{where}: {name} holds {len(frames)} frames, its rows are of other lengths")
        if len(frames) and not (0 <= frames.min() and frames.max() < self.length):
            raise DataError(f"{where}: {name} holds a frame outside 0..{self.length - 1}")
        boxes = np.zeros((count, self.length, 4), np.float32)
        given = tfrecord.array(found, f"instances/bboxes/{BOXES}", (len(frames), 4), np.float32, where)
        boxes[np.repeat(np.arange(count), lengths), frames] = given
        return boxes

    def _contacts(self, found: dict, count: int, frames: np.ndarray, where: str) -> np.ndarray:
        pairs = tfrecord.array(found, "events/collisions/instances", (-1, 2), np.int64, where)
        times = tfrecord.array(found, "events/collisions/frame", (len(pairs),), np.int64, where) - BEFORE
        if ((pairs < 0) | ((pairs >= count) & (pairs != BACKGROUND))).any():
            raise DataError(f"{where}: events/collisions/instances names an instance outside 0..{count - 1}")
        pairs = np.sort(pairs, 1)
        end = frames[0] + len(frames) * self.stride
        kept = (pairs[:, 0] != BACKGROUND) & (times >= frames[0]) & (times < end)
        return merge(np.where(pairs == BACKGROUND, -1, pairs)[kept], (times[kept] - frames[0]) // self.stride)


def merge(pairs: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Contacts float32 [C,4] (first, last, a, b), in this order, from int [E,2] and int [E]: events of one pair in
    consecutive frames are one contact."""
    events = np.unique(np.column_stack([pairs, times]), axis=0)  # by pair, then time
    first = np.ones(len(events), bool)
    first[1:] = (np.diff(events[:, :2], axis=0) != 0).any(1) | (np.diff(events[:, 2]) > 1)
    last = np.append(first[1:], True)[: len(events)]
    contacts = np.column_stack([events[first, 2], events[last, 2], events[first, :2]])
    return contacts[np.lexsort(contacts.T[::-1])].astype(np.float32)
