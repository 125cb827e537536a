"""Pairs of removals as arrays: a scene, the scene without object k, and the scene without another object o.

They depend only on the data and on the grid of tokens, so all models of a comparison are scored on the same pairs.
A folder can store them (questions.remembered).
"""

import importlib.resources
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.data.transforms import centre_square
from cjepa_jax.data.worlds import physics
from cjepa_jax.errors import DataError
from cjepa_jax.evals.counterfactual import questions

HERE = importlib.resources.files("cjepa_jax.evals.counterfactual") / "pairs.py"
ENDS = 1e-9  # tolerance that keeps the limits of an area inclusive


class Pairs(NamedTuple):
    """n scenes with two different eligible objects: k in the row `removed`, o in the row `other` of object_patches."""

    video: np.ndarray  # uint8 [n, T, H, W, 3]
    without: np.ndarray  # uint8 [n, T, H, W, 3] under do(remove k)
    without_other: np.ndarray  # uint8 [n, T, H, W, 3] under do(remove o)
    without_third: np.ndarray  # uint8 [n, T, H, W, 3] under do(remove third), or the scene where there is none
    pixels: np.ndarray  # uint8 [n, T, H, ceil(W/8)] k's visible pixels, packed bits
    other_pixels: np.ndarray  # those of o
    object_patches: np.ndarray  # bool [n, K, N] tokens that each object touches
    removed: np.ndarray  # int64 [n]
    other: np.ndarray  # int64 [n]
    third: np.ndarray  # int64 [n] the row of an object that is neither, drawn at random. -1: there is none
    linked: np.ndarray  # bool [n, N] tokens of an object that a chain of contacts links to k by then
    linked_other: np.ndarray  # bool [n, N] the same of o
    scene: np.ndarray  # int64 [n] its number in the source

    def part(self, rows: slice) -> "Pairs":
        """Some of the pairs."""
        return Pairs(*(value[rows] for value in self))

    def touched(self, row: np.ndarray) -> np.ndarray:
        """Tokens that the object in `row` [n] touches, bool [n, N]. None for row -1."""
        return self.object_patches[np.arange(len(row)), row] & (row >= 0)[:, None]

    def rest(self) -> np.ndarray:
        """S: the tokens that neither k nor o touches, bool [n, N]."""
        return ~(self.touched(self.removed) | self.touched(self.other))

    def blanked(self, other: bool) -> np.ndarray:
        """The videos with the visible pixels of k (or of o) set to 0: uint8 [n, T, H, W, 3]."""
        packed = self.other_pixels if other else self.pixels
        gone = np.unpackbits(packed, axis=-1, count=self.video.shape[3]).view(bool)
        return np.where(gone[..., None], np.uint8(0), self.video)


def eligible(patches: np.ndarray, times: int, area: Sequence[float]) -> np.ndarray:
    """The objects that may be removed, int [E]: patches bool [K, N] -> row numbers.

    Their share of the tokens is within `area`, both ends included, and they touch a token at the last time. So each of
    them can be hidden under any anchor.
    """
    share = patches.mean(1)
    last = patches.reshape(len(patches), times, -1)[:, -1].any(1)
    return np.flatnonzero(last & (share >= area[0] - ENDS) & (share <= area[1] + ENDS))


def prepare(scenes: SceneMap, count: int, seed: int, area: Sequence[float]) -> Pairs:
    """The first `count` scenes with two eligible objects, and two of these objects, drawn by `seed`.

    Args:
      scenes: with_objects and with_masks. Its source can rerender.
    Raises: DataError if there are too few scenes.
    """
    rows: list[dict] = []
    for number in range(len(scenes.source)):
        row = _pair(scenes, number, seed, area)
        if row is not None:
            rows.append(row)
        if len(rows) == count:
            return Pairs(**{name: np.stack([row[name] for row in rows]) for name in Pairs._fields})
    raise DataError(
        f"{type(scenes.source).__name__}: {len(rows)} of its {len(scenes.source)} scenes have two objects of "
        f"{area[0]:g} to {area[1]:g} of the tokens, asked for {count}"
    )


def _pair(scenes: SceneMap, number: int, seed: int, area: Sequence[float]) -> dict | None:
    """A row of Pairs. None for an unreadable scene or one with fewer than two eligible objects."""
    scene = scenes(number, 0)
    source, patches = scenes.source, scene["object_patches"]
    may = eligible(patches, scenes.grid[0], area)
    if scene["replaced"] or len(may) < 2:
        return None
    rng = seeds.generator(seed, "pair of objects", number)
    k, o = rng.choice(may, 2, replace=False)
    thirds = [row for row in np.flatnonzero(scene["object_valid"]) if row not in (k, o)]
    third = int(rng.choice(thirds)) if thirds else -1
    raw, pixels = source[number], np.packbits(scene["masks"], -1)
    window = centre_square(*raw["video"].shape[1:3])
    found = {"video": scene["video"], "object_patches": patches, "scene": number}
    found |= {"removed": k, "other": o, "third": third, "pixels": pixels[k], "other_pixels": pixels[o]}
    known = "contacts" in raw and "states" in raw and hasattr(source, "rollout")
    changed = getattr(source, "changed", None)
    for end, row in (("", k), ("_other", o), ("_third", third)):
        gone = np.arange(len(raw["masks"])) == scene["objects"][row]
        played = source.rollout(number, gone) if known and row != third else None
        without = played["video"] if played else source.intervene(number, gone) if row >= 0 else raw["video"]
        found[f"without{end}"] = window.frames(without, scenes.size)
        if row != third:
            starts = changed(source.setup(number), gone) if played and changed else gone
            reached = links(raw, played, starts) if played else np.full(len(gone), np.inf)
            others = np.where(gone, np.inf, reached)  # the object itself is what the links are to
            found[f"linked{end}"] = _tokens(patches, scene["objects"], others, scenes)
    return found


def links(scene: dict, without: dict, removed: np.ndarray) -> np.ndarray:
    """When a chain of contacts links each object to the removed ones, [K], in frames. Infinity: never.

    scene, without: `contacts` [C,4] and `states` [T,K,S] of both simulations. An object whose states are the same in
    both, such as a fixed one, ends a chain.
    """
    differ = (scene["states"] != without["states"]).any((0, 2))
    contacts = np.concatenate([scene["contacts"], without["contacts"]])
    mode = np.where(differ | removed, physics.MOVING, physics.FIXED)
    return physics.reached(contacts, removed, mode)


def _tokens(patches: np.ndarray, numbers: np.ndarray, reached: np.ndarray, scenes: SceneMap) -> np.ndarray:
    """Tokens of objects that were reached by the last frame of their tubelet, bool [N]. numbers [K]: -1 for none."""
    when = np.where(numbers >= 0, reached[numbers], np.inf)
    times = scenes.grid[0]
    last = (np.arange(times) + 1) * (scenes.frames // times) - 1  # frame
    by_then = np.repeat(when[:, None] <= last, patches.shape[1] // times, 1)
    return np.asarray((patches & by_then).any(0))


def fingerprint(scenes: SceneMap, count: int, seed: int, area: Sequence[float]) -> str:
    """A name for what `prepare` gives of these scenes, by the code of the worlds and of the draw."""
    return questions.fingerprint(scenes, pairs=questions.code([HERE]), count=count, seed=seed, area=list(area))
