"""Counterfactual questions as arrays: the scene, the scene without object k, and the tokens of each object.

They depend only on the data, so all models of a comparison answer the same questions. A folder can store them.
"""

import hashlib
import importlib.resources
import json
import os
from collections.abc import Callable, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax import __version__
from cjepa_jax.configuration import seeds
from cjepa_jax.data import questions, transforms
from cjepa_jax.data.base import Source
from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.errors import DataError
from cjepa_jax.masks import objects
from cjepa_jax.weights import npz

MOMENTS = 4  # at most this number of frames gives states, evenly spread from the first to the last
MOST_KEPT = 1 << 36  # bytes
FORMAT = 4  # of what a folder keeps, raised when it changes
DATA = importlib.resources.files("cjepa_jax.data")
CODE = (DATA / "questions.py", DATA / "worlds")  # files and folders whose code decides questions and answers


class DoQuestions(NamedTuple):
    """Q questions "does it happen to object j without object k?", in groups of four (data/questions.py)."""

    video: np.ndarray  # uint8 [Q, T, H, W, 3]
    without: np.ndarray  # uint8 [Q, T, H, W, 3] under do(remove k), as the world simulates it
    pixels: np.ndarray  # uint8 [Q, T, H, ceil(W/8)] k's visible pixels, packed bits
    other_pixels: np.ndarray  # the same of the row `other`
    object_patches: np.ndarray  # bool [Q, K, N] tokens that each object touches
    asked_without: np.ndarray  # bool [Q, N] tokens that j touches in the scene without k
    removed: np.ndarray  # int64 [Q] k's row in object_patches
    asked: np.ndarray  # int64 [Q] j's
    other: np.ndarray  # int64 [Q] the row of an object that is neither. -1: none can be hidden
    factual: np.ndarray  # bool [Q] whether it happens to j with k present
    answer: np.ndarray  # bool [Q] whether it does without k
    final: np.ndarray  # float32 [Q, 2] where j is at the end without k, view widths
    factual_final: np.ndarray  # float32 [Q, 2] where j is at the end with k present
    looks: np.ndarray  # int64 [Q, 3] the looks of k and of j, and the class of their distance at the beginning
    start: np.ndarray  # float32 [Q, F] where k and j begin, their distance and, where known, their sizes
    states: np.ndarray  # float32 [Q, K', F] states over time without colours: j, k, others by distance. F = 0: unknown
    scene: np.ndarray  # int64 [Q] its number in the source

    def part(self, rows: slice) -> "DoQuestions":
        """Some of the questions."""
        return DoQuestions(*(value[rows] for value in self))

    def blanked(self, other: bool = False) -> np.ndarray:
        """The videos with the visible pixels of k (or of the other object) set to 0: uint8 [Q, T, H, W, 3]."""
        packed, width = self.other_pixels if other else self.pixels, self.video.shape[3]
        gone = np.unpackbits(packed, axis=-1, count=width).view(bool)
        return np.where(gone[..., None], np.uint8(0), self.video)


def prepare(scenes: SceneMap, count: int, seed: int, anchor: int) -> DoQuestions:
    """At most `count` questions about the map's scenes. A group of four with an object that is not visible is left out.

    Models with other grids of tokens get the same questions.

    Args:
      scenes: with_objects and with_masks. Its source has outcomes and can rerender.
      count: a multiple of 4. seed: of the draw of questions.
      anchor: times (tubelets) at the start at which nothing is hidden.
    Raises: DataError if there are too few scenes, or if no group of four is left.
    """
    source = scenes.source
    drawn = questions.draw(source, count, seed)
    rows = [_question(scenes, drawn, i, seed, anchor) for i in range(count)]
    whole = [all(row is not None for row in rows[i - i % 4 : i - i % 4 + 4]) for i in range(count)]
    rows = [row for row, keep in zip(rows, whole, strict=True) if keep]
    if not rows:
        raise DataError(f"{type(source).__name__}: of {count} questions, in no group of four the objects can be seen")
    most = max(len(row["states"]) for row in rows)
    for row in rows:  # objects that a scene lacks are zeros
        row["states"] = np.pad(row["states"], [(0, most - len(row["states"])), (0, 0)])
    return DoQuestions(**{name: np.stack([row[name] for row in rows]) for name in DoQuestions._fields})


def _question(scenes: SceneMap, drawn: questions.Questions, i: int, seed: int, anchor: int) -> dict | None:
    """The i-th question's row of DoQuestions. None where k or j is not visible."""
    number, k, j = int(drawn.scene[i]), int(drawn.removed[i]), int(drawn.asked[i])
    scene, known = scenes(number, 0), scenes.source.outcomes(number)
    found = {int(index): row for row, index in enumerate(scene["objects"]) if scene["object_valid"][row]}
    if scene["replaced"] or k not in found or j not in found:
        return None
    patches = scene["object_patches"]
    gone = hidden(patches, scenes.grid[0], anchor)
    others = [row for index, row in found.items() if index not in (k, j) and gone[row].any()]
    other = int(seeds.generator(seed, "the other object of a question", number, k).choice(others)) if others else -1
    played = scenes.source.rollout(number, np.arange(len(known.asked)) == k)
    window = transforms.centre_square(*played["video"].shape[1:3])
    masks = window.masks(played["masks"][[j]], scenes.size)
    pixels = np.packbits(scene["masks"], -1)
    return {
        "video": scene["video"],
        "without": window.frames(played["video"], scenes.size),
        "asked_without": objects.patches(masks, scenes.patch, scenes.frames // scenes.grid[0])[0],
        "pixels": pixels[found[k]],
        "other_pixels": pixels[other] if others else np.zeros_like(pixels[0]),
        "object_patches": patches,
        "removed": found[k],
        "asked": found[j],
        "other": other,
        "factual": drawn.factual[i],
        "answer": drawn.answer[i],
        "final": drawn.final[i],
        "factual_final": known.final[0, j],
        "looks": np.array([known.looks[k], known.looks[j], np.searchsorted(questions.DISTANCES, drawn.distance[i])]),
        "start": _start(scenes.source, scene, known, (k, j), (found[k], found[j])),
        "states": _states(scenes.source, scene, known, k=k, j=j, found=found),
        "scene": number,
    }


def _start(source: Source, scene: dict, known: Any, pair: tuple[int, int], rows: tuple[int, int]) -> np.ndarray:
    """Positions and sizes of k and j at the beginning, and their distance: float32 [F]."""
    values = [known.start[list(pair)].ravel(), [np.hypot(*(known.start[pair[0]] - known.start[pair[1]]))]]
    if "states" in scene:
        sizes = [column for column, name in enumerate(source.state_names) if name.startswith("size/")]
        values.append(scene["states"][0][np.ix_(rows, sizes)].ravel())
    return np.concatenate(values).astype(np.float32)


def _states(source: Source, scene: dict, known: Any, k: int, j: int, found: dict[int, int]) -> np.ndarray:
    """Each object's states over time, float32 [objects, times * S]."""
    if "states" not in scene:
        return np.zeros((0, 0), np.float32)
    apart = np.hypot(*(known.start - known.start[j]).T)
    order = [j, k, *sorted(found.keys() - {j, k}, key=lambda index: apart[index])]
    telling = [column for column, name in enumerate(source.state_names) if not name.startswith("colour/")]
    states = scene["states"][..., telling]  # [T, K, S]
    times = np.unique(np.linspace(0, len(states) - 1, MOMENTS).round().astype(int))
    chosen = states[np.ix_(times, [found[index] for index in order])].swapaxes(0, 1)
    return chosen.reshape(len(order), -1)


def hidden(patches: np.ndarray, times: int, anchor: int) -> np.ndarray:
    """The tokens that are hidden with an object, bool [..., N], given the tokens that it touches.

    Tokens of the first `anchor` times stay visible. Where all tokens of a scene would be hidden, none is."""
    gone = patches & (np.arange(patches.shape[-1]) >= anchor * (patches.shape[-1] // times))
    return gone & ~gone.all(-1, keepdims=True)


def fingerprint(scenes: SceneMap, **more: Any) -> str:
    """A name for the result of `prepare` on these scenes, by the code of the worlds and of the draw."""
    source = scenes.source
    about = [
        f"{type(source).__module__}:{source!r}",
        getattr(source, "spec", ""),
        __version__,
        FORMAT,
        code(CODE),
        more,
    ]
    about += [scenes.patch, scenes.tubelet, scenes.size, scenes.frames, scenes.max_objects]
    return digest(json.dumps(about, sort_keys=True).encode())


def code(places: Sequence[Traversable]) -> str:
    """A name for the Python code of these files and of those in these folders."""
    files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place])]
    files = sorted((file for file in files if file.name.endswith(".py")), key=lambda file: file.name)
    return digest(*(part for file in files for part in (file.name.encode(), file.read_bytes())))


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def remembered(folder: str, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """make()'s arrays. They are stored in the folder under this name, and read from there the next time.

    With folder = "" nothing is stored. Processes may share the folder: a reader sees a whole file or none. Raises
    DataError for a damaged file.
    """
    if not folder:
        return make()
    file = Path(folder).expanduser() / f"{name}.npz"
    if not file.exists():
        made = make()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f".{name}.{os.getpid()}.npz")
            np.savez(beside, **made)
            os.replace(beside, file)
        except OSError as error:
            raise DataError(f"{file}: cannot be written: {error.strerror}") from error
    try:
        return npz.read(file, MOST_KEPT)
    except DataError as error:
        raise DataError(f"{file}: cannot be read, delete it: {error}") from error
