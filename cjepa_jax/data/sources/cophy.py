"""CoPhy: pairs of 3-D videos, one as it happened (AB) and one after a change of its first frame (CD).

F. Baradel et al., "CoPhy: Counterfactual Learning of Physical Dynamics", ICLR 2020 (github.com/fabienbaradel/cophy).

    DIR/ballsCF/N/ID/{ab,cd}/{rgb.mp4,segm.mp4,states.npy,bboxes.npy,colors.txt}      N = 2..6 balls
    DIR/blocktowerCF/N/ID/...                                                         N = 3, 4 blocks
    DIR/collisionCF/ID/...                                                            two moving shapes
    DIR/.../ID/confounders.npy, explanations.txt (balls, collision), gravity.txt (blocktower)
    DIR/splits/SCENARIO_SPLIT[_N][_SETTING].txt                                       one ID a line
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.formats import files, image_bytes, video
from cjepa_jax.data.sources.clips import MOTION_LABELS, Clips, absent, mean_labels
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door
from cjepa_jax.weights import npz

MOST_BYTES = 1 << 24  # of an array or a text (the published ones hold some tens of kB)
NEAR = 60.0  # RGB distance at which a pixel of the compressed segmentation still has an object's colour
MARGIN = 2  # pixels by which an object may exceed its bounding box


class Scenario(NamedTuple):
    """length: frames. colours: the objects' slots. objects: possible numbers of objects. settings: kinds of split."""

    length: int
    colours: tuple[str, ...]
    objects: tuple[int, ...]
    settings: tuple[str, ...]


BALLS = ("red", "green", "blue", "yellow", "lime", "purple", "orange", "cyan", "magenta")
SCENARIOS = {
    "ballsCF": Scenario(30, BALLS, (2, 3, 4, 5, 6), ("",)),
    "blocktowerCF": Scenario(30, ("red", "green", "blue", "yellow"), (3, 4), ("normal", "generalization")),
    "collisionCF": Scenario(
        15, ("yellow", "green", "blue", "red"), (0,), ("normal", "moving_sphere", "moving_cylinder")
    ),
}


@dataclass(frozen=True)
class CoPhy(Clips):
    """CoPhy's videos, at 224 or 448 pixels. Splits: train, eval (the published val) and test.

    scenario: ballsCF, blocktowerCF or collisionCF. objects: number of balls (2 to 6) or blocks (3, 4), 0 for
    collisionCF. setting: normal or generalization (towers), normal, moving_sphere or moving_cylinder (collisions), ""
    for balls.
    video: "ab", "cd" or "both" (then the scenes of a clip are its AB windows, then its CD windows).

    A scene holds `states` float32 [T,K,13] (columns: state_names) and `masks`, with one row per slot. There are K
    slots, one per colour. Rows of absent objects are 0. Labels: the number of present objects and their mean position
    and velocity in the middle frame, in the simulator's units.

    The segmentation is a compressed video whose colours are not documented. Each object's colour is read over the whole
    clip at the centre of its bounding box, in frames where no other box reaches this point. A pixel belongs to the
    nearest of these colours (see NEAR) whose object's box contains it. An object whose centre is always covered by
    other boxes has empty masks.
    """

    scenario: str = "ballsCF"
    objects: int = 4
    setting: str = ""
    video: str = "ab"

    splits: ClassVar[dict[str, str]] = {"train": "train", "eval": "val", "val": "val", "test": "test"}
    state_names: ClassVar[tuple[str, ...]] = (
        "position/x", "position/y", "position/z",
        "quaternion/x", "quaternion/y", "quaternion/z", "quaternion/w",
        "velocity/x", "velocity/y", "velocity/z",
        "spin/x", "spin/y", "spin/z",
    )  # fmt: skip
    label_names: ClassVar[tuple[str, ...]] = MOTION_LABELS

    def check(self) -> None:
        limits = {"scenario": tuple(SCENARIOS)}
        if self.scenario in SCENARIOS:
            limits |= {"objects": self.kind.objects, "setting": self.kind.settings, "video": ("ab", "cd", "both")}
        for name, allowed in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in allowed:
                text = f"one of {', '.join(map(repr, allowed))}"
                raise ConfigError(f"data.options.{name} is {value!r}: must be {text} ({self.scenario})")

    @property
    def kind(self) -> Scenario:
        return SCENARIOS[self.scenario]

    @property
    def length(self) -> int:
        return self.kind.length

    def scan(self, root: Path) -> list[tuple[str, str]]:
        """(ID, "ab" or "cd") of each clip."""
        name = "_".join(filter(None, (self.scenario, self.splits[self.split], str(self.objects or ""), self.setting)))
        listed = read_text(root / "splits" / f"{name}.txt").split()
        if not listed:
            raise DataError(f"{root / 'splits' / name}.txt: no clips")
        folder = self.folder(root)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        there = {entry.name for entry in folder.iterdir()}
        if missing := [identity for identity in listed if identity not in there]:
            raise DataError(f"{root / 'splits' / name}.txt: {absent(f'clips are not in {folder}', missing)}")
        if len(set(listed)) < len(listed):
            raise DataError(f"{root / 'splits' / name}.txt: names a clip twice")
        both = ("ab", "cd") if self.video == "both" else (self.video,)
        return [(identity, which) for identity in listed for which in both]

    def folder(self, root: Path) -> Path:
        """The folder that holds the clips."""
        return root / self.scenario / str(self.objects) if self.objects else root / self.scenario

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video, masks, states, labels. Raises IndexError, DataError."""
        (identity, which), frames = self.locate(i)
        where, home = f"clip {identity}", files.inside(self.folder(Path(self.path)), f"{identity}/{which}")
        states, boxes = self.array(home / "states.npy", 13), self.array(home / "bboxes.npy", 4)
        present = presence(states)
        pixels = video.read(home / "rgb.mp4", frames, self.length, where)
        coded = video.read(home / "segm.mp4", range(self.length), self.length, where)
        if coded.shape[1:] != pixels.shape[1:]:
            sizes = [f"{w}x{h}" for _, h, w, _ in (coded.shape, pixels.shape)]
            raise DataError(f"{home / 'segm.mp4'}: masks of {sizes[0]} pixels, frames of {sizes[1]} ({where})")
        image_bytes.check_room(f"{home / 'segm.mp4'}: masks ({where})", len(present), *pixels.shape[:3])
        masks = segment(coded, boxes, present, frames)
        columns = [self.state_names.index(name) for name in self.label_names[1:]]
        labels = mean_labels(states[frames[len(frames) // 2]], present, columns)
        return {**self.reduce(pixels, masks), "states": states[frames], "labels": labels}

    def pair(self, i: int) -> dict[str, Any]:
        """True states of both videos for the whole clip of scene i. The published metric compares them (given AB and
        the first frame of CD, predict the 3-D positions of CD).

        Keys: `states_ab`, `states_cd` float32 [L,K,13]. `present_ab`, `present_cd` bool [K]. `slots` int [n], the slot
        of each object number in AB's colours.txt. `confounders` float32 [K,h] as published: mass and friction, and for
        balls and collisions restitution. Towers number these rows by object, so that row j belongs to slot slots[j].
        The others number them by slot. `gravity` float32 [2] (towers, else 0). `do`, the text of the intervention (""
        for towers). Raises IndexError, DataError.
        """
        (identity, _), _ = self.locate(i)
        home = files.inside(self.folder(Path(self.path)), identity)
        out: dict[str, Any] = {"id": identity, "do": "", "gravity": np.zeros(2, np.float32)}
        for which in ("ab", "cd"):
            out[f"states_{which}"] = self.array(home / which / "states.npy", 13)
            out[f"present_{which}"] = presence(out[f"states_{which}"])
        confounders = read_array(home / "confounders.npy", (len(self.kind.colours), None))
        table = home / "ab" / "colors.txt"
        names = re.findall(r"color=(\w+)", read_text(table))
        if unknown := set(names) - set(self.kind.colours):
            raise DataError(f"{table}: {sorted(unknown)[0]!r} is not a colour of {self.scenario} (clip {identity})")
        out |= {"confounders": confounders, "slots": np.array([self.kind.colours.index(name) for name in names], int)}
        if self.scenario == "blocktowerCF":
            text = read_text(home / "gravity.txt")
            found = [re.search(rf"gravity_{axis}=(-?\d+\.?\d*)", text) for axis in "xy"]
            if None in found:
                raise DataError(f"{home / 'gravity.txt'}: needs gravity_x= and gravity_y= (clip {identity})")
            out["gravity"] = np.array([match[1] for match in found], np.float32)
        else:
            out["do"] = read_text(home / "explanations.txt").strip()
        return out

    def array(self, path: Path, columns: int) -> np.ndarray:
        """float32 [L, K, columns]."""
        return read_array(path, (self.length, len(self.kind.colours), columns))


def presence(states: np.ndarray) -> np.ndarray:
    """bool [K] from states [L,K,13]: the position of an absent object is 0 in the first frame."""
    return np.abs(states[0, :, :3]).sum(-1) > 0


def segment(coded: np.ndarray, boxes: np.ndarray, present: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Masks bool [K,T,H,W] of these frames of a clip, from its colour-coded frames uint8 [L,H,W,3] and the boxes
    [L,K,4] (x1, y1, x2, y2 in pixels)."""
    length, height, width, _ = coded.shape
    masks = np.zeros((len(present), len(frames), height, width), bool)
    slots, colours = [], [background(coded, boxes[:, present])]
    for k in np.flatnonzero(present):
        colour = own_colour(coded, boxes, k, np.flatnonzero(present))
        if colour is not None and min(np.linalg.norm(colour - other) for other in colours) > NEAR / 2:
            slots, colours = [*slots, k], [*colours, colour]
    palette = np.stack(colours)
    low = np.clip(np.floor(boxes[..., :2]) - MARGIN, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(boxes[..., 2:]) + MARGIN + 1, 0, (width, height)).astype(int)
    for t, frame in enumerate(frames):
        for number, k in enumerate(slots, 1):
            (x1, y1), (x2, y2) = low[frame, k], high[frame, k]
            if x1 < x2 and y1 < y2:
                pixels = coded[frame, y1:y2, x1:x2, None].astype(np.float32)
                squares = ((pixels - palette) ** 2).sum(-1)
                own = (squares.argmin(-1) == number) & (squares.min(-1) <= NEAR**2)
                masks[k, t, y1:y2, x1:x2] = own
    return masks


def own_colour(coded: np.ndarray, boxes: np.ndarray, k: int, present: np.ndarray) -> np.ndarray | None:
    """The colour float32 [3] at the centre of object k's box, median over the frames in which no other box contains
    that point. None if there is no such frame."""
    x, y = (boxes[:, k, :2] + boxes[:, k, 2:]).T / 2
    height, width = coded.shape[1:3]
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (boxes[:, k, 2] > boxes[:, k, 0])
    for other in present[present != k]:
        x1, y1, x2, y2 = boxes[:, other].T
        seen &= ~((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2))
    if not seen.any():
        return None
    return np.median(coded[seen, y[seen].astype(int), x[seen].astype(int)], axis=0).astype(np.float32)


def background(coded: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The median colour float32 [3] outside all boxes [L,n,4] of the first frame."""
    outside = np.ones(coded.shape[1:3], bool)
    for x1, y1, x2, y2 in np.clip(boxes[0], 0, 1 << 16).astype(int):
        outside[y1 : y2 + 1, x1 : x2 + 1] = False
    pixels = coded[0][outside] if outside.any() else coded[0, :1, 0]
    return np.median(pixels, axis=0).astype(np.float32)


def read_text(path: Path) -> str:
    """A small text file. Raises DataError, naming it."""
    try:
        return door.read(path, MOST_BYTES, links=True).decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text") from error


def read_array(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """A NumPy file as finite float32 of this shape (None: any). Raises DataError, naming it."""
    try:
        with door.regular(path, MOST_BYTES, links=True) as file:
            found = npz.array(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a NumPy array'}") from error
    except npz.UNREADABLE as error:
        raise DataError(f"{path}: not a NumPy array of numbers, or cut short") from error
    wanted = ", ".join("any" if n is None else str(n) for n in shape)
    if found.ndim != len(shape):
        raise DataError(f"{path}: must be an array of shape ({wanted})")
    if any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True)) or found.dtype.kind not in "fiu":
        raise DataError(f"{path}: has shape {found.shape} and type {found.dtype}: must hold numbers [{wanted}]")
    out = np.array(found, np.float32)
    if not np.isfinite(out).all():
        raise DataError(f"{path}: holds values that are not finite")
    return out
