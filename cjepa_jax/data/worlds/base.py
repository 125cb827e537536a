"""The base class of simulated worlds: checked fields, indexing, the random generator of scene i, probe labels."""

import functools
import operator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_type_hints

import msgpack
import numpy as np

from cjepa_jax.data.worlds import layout
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import memory

SPLITS = {"train": 0, "eval": 1, "test": 4, "count": 5, "colour": 6, "layout": 7}  # the numbers enter the seeds
PER_PIXEL = 6  # minimum bytes per pixel while a scene is drawn: its colours, and masks of three objects
NOVEL = ("count", "colour", "layout")


class Outcomes(NamedTuple):
    """Outcomes of a scene, and of the same scene without each object: answers to the counterfactual questions."""

    asked: np.ndarray  # bool [K] objects for which the world's question is defined
    happens: np.ndarray  # bool [K+1,K] the answer for object j. Row 0: original scene. Row k + 1: do(remove k).
    final: np.ndarray  # float32 [K+1,K,2] final positions, view widths. A removed object's row is 0.
    start: np.ndarray  # float32 [K,2] initial positions
    looks: np.ndarray  # int64 [K] appearance class of each object, independent of its scene (World.looks)


@dataclass(frozen=True)
class World:
    """A source of simulated scenes. Scene i of (seed, split) always has the same bits, at any size and length.

    Args:
      split: "train", "eval" (for validation) and "test" have one distribution. "count", "colour" and "layout" need
        `hold_out`.
      path: ignored. Worlds have no files.
      size: height and width in pixels.
      frames: T. With 1 frame a scene is an image.
      count: number of scenes.
      seed: every draw derives from (seed, split, index).
      hold_out: excludes some combinations from "train", "eval" and "test". The other splits consist of them: "count"
        (more objects), "colour" (colours that a shape has in no other split) and "layout" (defined by each world).
    Raises: ConfigError for a value outside its limits.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 4
    count: int = 10_000
    seed: int = 0
    hold_out: bool = False

    can_rerender: ClassVar[bool] = True
    label_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ()
    setup_type: ClassVar[type] = tuple  # the NamedTuple that `setup` returns
    ground_changes: ClassVar[bool] = False  # whether background pixels change, in time or under do(remove): shadows
    question: ClassVar[str] = ""  # the question about object j that `outcomes` answers

    def __post_init__(self):
        if not isinstance(self.split, str) or self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        for name, least in (("size", 8), ("frames", 1), ("count", 1), ("seed", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)
        pixels = self.frames * self.size**2
        memory.require(PER_PIXEL * pixels, f"data.size = {self.size} with data.frames = {self.frames}: one scene")
        if not isinstance(self.hold_out, bool):
            raise ConfigError(f"data.options.hold_out is {self.hold_out!r}; it must be True or False")
        if self.split in NOVEL and not self.hold_out:
            raise ConfigError(f"data.split is {self.split!r}; it needs data.options.hold_out = True")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: `rollout(i)`."""
        return self.rollout(i)

    def setup(self, i: int) -> Any:
        """The initial state of scene i: a NamedTuple, independent of size and frames. Raises IndexError."""
        raise NotImplementedError

    def play(self, setup: Any, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Simulates and draws a scene from `setup` under do(remove). `removed`: bool [K], None removes nothing."""
        raise NotImplementedError

    def film(self, setup: Any, removed: np.ndarray | None = None) -> np.ndarray:
        """The video only, uint8 [T,H,W,3]. A world overrides this if the video alone costs less."""
        return self.play(setup, removed)["video"]

    def outcome(self, setup: Any, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers to the world's `question` under do(remove), without drawing.

        Returns: whether the answer is yes for each object, bool [K], and final positions, float32 [K,2].
        """
        raise NotImplementedError

    def asked(self, setup: Any) -> np.ndarray:
        """The objects for which the question is defined, bool [K]."""
        raise NotImplementedError

    def changed(self, setup: Any, chosen: np.ndarray) -> np.ndarray:
        """The objects whose initial state an intervention on the chosen ones changes: bool [K] -> bool [K]."""
        return chosen

    def start(self, setup: Any) -> np.ndarray:
        """Initial positions [K,2]."""
        return setup.bodies.position

    def looks(self, setup: Any) -> np.ndarray:
        """Appearance class of each object, [K].

        Objects of one class have the same shape, size (four classes), mode of motion and visible role.
        """
        return layout.looks(setup.bodies.kind, setup.bodies.half, setup.bodies.mode)

    def rollout(self, i: int, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scene i under do(remove), from the same initial state. Raises IndexError, DataError."""
        return self.play(_setup(self, i), removed)

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove): uint8 [T,H,W,3]. Raises IndexError, DataError."""
        return self.film(_setup(self, i), removed)

    def outcomes(self, i: int) -> Outcomes:
        """Outcomes of scene i, and of scene i without each of its objects. Raises IndexError."""
        setup = _setup(self, i)
        asked = self.asked(setup)
        worlds = [self.outcome(setup, row) for row in np.eye(len(asked) + 1, len(asked), -1, dtype=bool)]
        happens, final = (np.stack(values) for values in zip(*worlds, strict=True))
        start, looks = np.asarray(self.start(setup), np.float32), np.asarray(self.looks(setup), np.int64)
        return Outcomes(asked, happens, final, start, looks)

    def pack(self, setup: Any) -> bytes:
        """A setup as bytes for `unpack`: msgpack, which holds no code."""
        return msgpack.packb([type(self).__name__, _plain(setup)])

    def unpack(self, data: bytes) -> Any:
        """The setup, bit-identical. Raises DataError if `data` is not a setup of this world."""
        try:
            world, setup = msgpack.unpackb(data)
            if world != type(self).__name__:
                raise ValueError(f"it is one of {str(world)[:40]!r}")
            return _restore(self.setup_type, setup)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise DataError(f"not an initial state of {type(self).__name__}: {error}") from error

    def rng(self, i: int) -> np.random.Generator:
        """The random generator of scene i. Raises IndexError outside 0 .. count - 1."""
        i = operator.index(i)
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {self.count - 1}")
        return np.random.default_rng([self.seed, SPLITS[self.split], i])

    def held(self, novelty: str) -> bool | None:
        """True if this split consists of the combinations held out as `novelty`, False if it excludes them.

        None: without `hold_out` it does neither.
        """
        return self.split == novelty if self.hold_out else None

    def object_count(self, rng: np.random.Generator, objects: tuple[int, int]) -> int:
        """The number of objects, uniform over low .. high. In the split "count": high + 1 or high + 2."""
        low, high = objects
        return int(rng.integers(high + 1, high + 3) if self.split == "count" else rng.integers(low, high + 1))

    def labels(self, states: np.ndarray) -> np.ndarray:
        """Probe targets [P] from states [T,K,S] in the middle frame: the count of present objects, then their means."""
        columns = [self.state_names.index(name) for name in self.label_names[1:]]
        middle = states[len(states) // 2]
        present = middle[middle[:, self.state_names.index("present")] > 0]
        means = present[:, columns].mean(0) if len(present) else np.zeros(len(columns))
        return np.concatenate([[len(present)], means]).astype(np.float32)


@functools.lru_cache(maxsize=256)
def _setup(world: World, i: int) -> Any:
    """The cached setup of a scene, because `rollout` and `intervene` often ask for the same one. Do not modify it."""
    return world.setup(i)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"type": value.dtype.str, "shape": value.shape, "data": value.tobytes()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _restore(kind: Any, value: Any) -> Any:
    """Inverse of `_plain`: `value` as the type `kind` of an annotation. Raises only errors that `unpack` catches."""
    if isinstance(value, dict):
        return np.frombuffer(value["data"], value["type"]).reshape(value["shape"]).copy()
    if hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(*(_restore(hints[name], item) for name, item in zip(hints, value, strict=True)))
    if kind is np.ndarray or not isinstance(value, bool | int | float | None):
        raise TypeError(f"{type(value).__name__} where {kind} belongs")
    return value


def check_integer(name: str, value: int, least: int) -> None:
    """Raise ConfigError unless `value` is an integer of at least `least`. A bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be an integer of at least {least}")


def check_range(name: str, value: tuple, least: float, most: float, kind: type = float) -> tuple:
    """`value` as a (low, high) tuple of `kind` with least <= low <= high <= most. Raises ConfigError otherwise."""
    text = f"{name} is {value!r}; it must be a pair low, high with {least} <= low <= high <= {most}"
    try:
        if any(isinstance(v, bool) for v in value):
            raise TypeError("a bool is not a number")
        low, high = (kind(operator.index(v)) if kind is int else kind(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ConfigError(text) from error
    if not least <= low <= high <= most:
        raise ConfigError(text)
    return low, high


def check_step(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is a time from 0.001 to 0.5 s."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 0.5:
        raise ConfigError(f"{name} is {value!r}; it must be a time from 0.001 to 0.5 s")


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless 0 <= value <= 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value!r}; it must be a share within 0 and 1")


def check_removed(removed: np.ndarray | None, objects: int) -> np.ndarray:
    """`removed` as bool [K]. None removes nothing. Raises DataError for another shape or type."""
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
