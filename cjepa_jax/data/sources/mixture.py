"""A mixture of weighted sources, for example images next to clips."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np

from cjepa_jax.configuration import build
from cjepa_jax.data import checks
from cjepa_jax.data.base import Source
from cjepa_jax.errors import ConfigError, DataError

OWN = ("type", "weight")  # keys of a source's section that are not arguments of its class
DENOMINATOR = 10_000  # weights are fractions with at most this denominator, so that shares are exact


@dataclass(frozen=True)
class Mixture:
    """Scenes of several sources in fixed proportions. Scene i is a pure function of i, as for every source.

    The sources alternate evenly: of the first n scenes, a source with share p gives p n, rounded. A source that is
    shorter than its part is repeated, and its repeated scenes get other masks and crops.

    A source with `frames` = 1 gives still clips: its image and masks are repeated `frames` times. Labels are those that
    all sources have, and do(remove) is available if all sources have it. Other fields of scenes (states, classes,
    questions) are left out.

    Options:
      sources: name -> section of one source: `type` "module:Class", `weight` (a positive number, 1 if it is missing)
        and arguments of the class. `path`, `frames` and `seed` are those of the mixture unless the section gives
        them. `count` is the class's default unless the section gives it: all scenes of a data set.
      count: scenes of the mixture. 0: as many as it takes to see all scenes of each source at least once.

    Raises ConfigError for options that cannot work, and the errors of the sources.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 4
    count: int = 0
    seed: int = 0
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: tuple[Source, ...] = field(init=False, repr=False, compare=False)
    shares: tuple[Fraction, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        sections = _sections(self.sources)
        weights = [_weight(name, section.get("weight", 1)) for name, section in sections.items()]
        parts = tuple(self._part(name, section) for name, section in sections.items())
        for name, part in zip(sections, parts, strict=True):
            if not len(part):
                raise DataError(f"data.options.sources.{name}: has no scene in the split {self.split!r}")
        kinds = {checks.channels_of(part) for part in parts}
        if len(kinds) > 1:
            text = ", ".join(f"{channels} x {pixels}" for channels, pixels in sorted(kinds))
            raise ConfigError(
                f"data.options.sources: their channels differ ({text}). A mixture has one number and type"
            )
        object.__setattr__(self, "sources", sections)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "shares", tuple(weight / sum(weights) for weight in weights))

    def _part(self, name: str, section: dict[str, Any]) -> Source:
        fields = {key: getattr(self, key) for key in ("path", "frames", "seed")}
        given = {key: value for key, value in section.items() if key not in OWN}
        if given.get("frames", self.frames) not in (1, self.frames):
            raise ConfigError(
                f"data.options.sources.{name}.frames = {given['frames']!r}: must be 1 or data.frames = {self.frames}"
            )
        where = f"data.options.sources.{name}"
        return build.build({"type": section["type"], **fields, **given}, where, split=self.split, size=self.size)

    @property
    def can_rerender(self) -> bool:
        return all(part.can_rerender for part in self.parts)

    @property
    def channels(self) -> int:
        return checks.channels_of(self.parts[0])[0]

    @property
    def pixels(self) -> str:
        return checks.channels_of(self.parts[0])[1]

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels of the first source that all others have too."""
        first, *others = self.parts
        return tuple(name for name in first.label_names if all(name in other.label_names for other in others))

    def __len__(self) -> int:
        return self.count or max(ceil(len(part) / share) for part, share in zip(self.parts, self.shares, strict=True))

    def find(self, i: int) -> tuple[int, int]:
        """(number of the source, its scene) of scene i."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        left = Fraction(1)
        for number, share in enumerate(self.shares[:-1]):
            # Of the first n scenes that are left, this source gives floor(p n).
            before, after = (int(share / left * n) for n in (i, i + 1))
            if after > before:
                return number, before % len(self.parts[number])
            i, left = i - before, left - share
        return len(self.parts) - 1, i % len(self.parts[-1])

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video uint8 [T,H,W,3], masks bool [K,T,H,W], labels float32 [P]. Raises DataError as its source."""
        number, scene = self.find(i)
        part = self.parts[number]
        found = part[scene]
        chosen = [part.label_names.index(name) for name in self.label_names]
        return {
            "video": self._clip(np.asarray(found["video"]), 0),
            "masks": self._clip(np.asarray(found["masks"]), 1),
            "labels": np.asarray(found["labels"], np.float32)[chosen],
        }

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove), removed bool [K]: uint8 [T,H,W,3]."""
        number, scene = self.find(i)
        return self._clip(self.parts[number].intervene(scene, removed), 0)

    def _clip(self, array: np.ndarray, axis: int) -> np.ndarray:
        still = array.ndim == 4 and array.shape[axis] == 1
        return array.repeat(self.frames, axis) if still else array


def _sections(sources: Any) -> dict[str, dict[str, Any]]:
    if not hasattr(sources, "items") or not sources:
        raise ConfigError("data.options.sources: must name at least one source, name -> section")
    sections = {}
    for name, section in sources.items():
        if not hasattr(section, "items") or "type" not in section:
            raise ConfigError(f"data.options.sources.{name}: must have a type, 'module:Class'")
        sections[name] = dict(section.items())
    return sections


def _weight(name: str, weight: Any) -> Fraction:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    share = Fraction(weight).limit_denominator(DENOMINATOR) if number and abs(weight) < 1e9 else Fraction(0)
    if share <= 0:
        least = f"a number from {1 / DENOMINATOR:g} to 1e9"
        raise ConfigError(f"data.options.sources.{name}.weight = {weight!r}: must be {least}")
    return share
