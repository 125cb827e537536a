"""What every simulated world shares: checked fields, indexing, the generator of scene i, probe labels."""

import operator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cjepa_jax.errors import ConfigError, DataError

SPLITS = ("train", "eval")


@dataclass(frozen=True)
class World:
    """A source of simulated scenes. Scene i of (seed, split) is always the same bits, at any size and length.

    split: "train" or "eval" (other scenes). path: ignored, worlds have no files. size: pixels, height = width.
    frames: T, 1 gives images. count: scenes. seed: every draw derives from (seed, split, index).
    Raises ConfigError for a value out of its limits.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 4
    count: int = 10_000
    seed: int = 0

    can_rerender: ClassVar[bool] = True
    label_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        for name, least in (("size", 8), ("frames", 1), ("count", 1), ("seed", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: `rollout(i)`."""
        return self.rollout(i)

    def rollout(self, i: int, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scene i under do(remove), from the same initial conditions; `removed` bool [K], None: nothing is removed."""
        raise NotImplementedError

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove): uint8 [T,H,W,3], the same bits as `rollout(i, removed)["video"]`."""
        raise NotImplementedError

    def rng(self, i: int) -> np.random.Generator:
        """Scene i's own generator. Raises IndexError outside 0 .. count - 1."""
        i = operator.index(i)
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {self.count - 1}")
        return np.random.default_rng([self.seed, SPLITS.index(self.split), i])

    def labels(self, states: np.ndarray) -> np.ndarray:
        """Probe targets [P] from states [T,K,S]: the count of present objects, then means over them, middle frame."""
        columns = [self.state_names.index(name) for name in self.label_names[1:]]
        middle = states[len(states) // 2]
        present = middle[middle[:, self.state_names.index("present")] > 0]
        means = present[:, columns].mean(0) if len(present) else np.zeros(len(columns))
        return np.concatenate([[len(present)], means]).astype(np.float32)


def check_integer(name: str, value: int, least: int) -> None:
    """Raise ConfigError unless `value` is an integer (no bool) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be an integer of at least {least}")


def check_range(name: str, value: tuple, least: float, most: float, kind: type = float) -> tuple:
    """`value` as a (low, high) tuple of `kind` with least <= low <= high <= most. Raises ConfigError otherwise."""
    text = f"{name} is {value!r}; it must be a pair low, high with {least} <= low <= high <= {most}"
    try:
        low, high = (kind(operator.index(v)) if kind is int else kind(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ConfigError(text) from error
    if not least <= low <= high <= most:
        raise ConfigError(text)
    return low, high


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless 0 <= value <= 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value!r}; it must be a share within 0 and 1")


def check_removed(removed: np.ndarray | None, objects: int) -> np.ndarray:
    """`removed` as bool [K]; None means nothing. Raises DataError for another shape or type."""
    if removed is None:
        return np.zeros(objects, bool)
    removed = np.asarray(removed)
    if removed.shape != (objects,) or removed.dtype != bool:
        raise DataError(
            f"removed has shape {removed.shape} and type {removed.dtype}; the scene needs bool ({objects},)"
        )
    return removed


def check_flag(name: str, value: bool | None) -> None:
    """Raise ConfigError unless `value` is True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be True, False or None (drawn per scene)")
