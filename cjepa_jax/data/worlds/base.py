"""What every simulated world shares: checked fields, indexing, the generator of scene i, probe labels."""

import functools
import operator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_type_hints

import msgpack
import numpy as np

from cjepa_jax.data.worlds import layout
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import memory

SPLITS = {"train": 0, "eval": 1, "test": 4, "count": 5, "colour": 6, "layout": 7}  # with their words in seeds
PER_PIXEL = 6  # bytes that a scene takes at least while it is drawn: its colours, and masks of three objects
NOVEL = ("count", "colour", "layout")


class Outcomes(NamedTuple):
    """What happens in a scene and in the scenes without one of its objects: the counterfactual questions' answers."""

    asked: np.ndarray  # bool [K] objects that the world's question can be asked of
    happens: np.ndarray  # bool [K+1,K] whether it happens to object j: row 0 as it is, row k + 1 under do(remove k)
    final: np.ndarray  # float32 [K+1,K,2] positions at the end, view widths; a removed object's row is 0
    start: np.ndarray  # float32 [K,2] positions at the beginning
    looks: np.ndarray  # int64 [K] what can be told of an object without its scene, as a number (World.looks)


@dataclass(frozen=True)
class World:
    """A source of simulated scenes. Scene i of (seed, split) is always the same bits, at any size and length.

    split: "train", "eval" (for validation) and "test" are scenes of one distribution. path: ignored, worlds have no
    files. size: pixels, height = width. frames: T, 1 gives images. count: scenes. seed: every draw derives from
    (seed, split, index). hold_out: the three leave out combinations, which the splits "count" (more objects), "colour"
    (colours that a shape has nowhere else) and "layout" (each world says which) consist of.
    Raises ConfigError for a value out of its limits.
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
    ground_changes: ClassVar[bool] = False  # whether pixels of no object change, with time or under do(remove): shadows
    question: ClassVar[str] = ""  # what `outcomes` answers of object j, in words

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
        """All of scene i before time starts, a NamedTuple independent of size and frames. Raises IndexError."""
        raise NotImplementedError

    def play(self, setup: Any, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene that `setup` begins, under do(remove); `removed` bool [K], None: nothing is removed."""
        raise NotImplementedError

    def film(self, setup: Any, removed: np.ndarray | None = None) -> np.ndarray:
        """The video alone, uint8 [T,H,W,3]. Where less has to be computed for it, a world overrides this."""
        return self.play(setup, removed)["video"]

    def outcome(self, setup: Any, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the world's `question` is answered yes for each object, bool [K], and where each is at the end,
        float32 [K,2], under do(remove). Nothing is drawn."""
        raise NotImplementedError

    def asked(self, setup: Any) -> np.ndarray:
        """The objects of which the question can be asked, bool [K]."""
        raise NotImplementedError

    def start(self, setup: Any) -> np.ndarray:
        """Where the objects are at the beginning, [K,2]."""
        return setup.bodies.position

    def looks(self, setup: Any) -> np.ndarray:
        """A number for each object, [K], equal for those alike in shape, size (four classes), in whether they move
        under forces, and in the part that they visibly play."""
        return layout.looks(setup.bodies.kind, setup.bodies.half, setup.bodies.mode)

    def rollout(self, i: int, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scene i under do(remove), from the same initial conditions. Raises IndexError, DataError."""
        return self.play(_setup(self, i), removed)

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The video of scene i under do(remove): uint8 [T,H,W,3]. Raises IndexError, DataError."""
        return self.film(_setup(self, i), removed)

    def outcomes(self, i: int) -> Outcomes:
        """What happens in scene i as it is, and without each of its objects. Raises IndexError."""
        setup = _setup(self, i)
        asked = self.asked(setup)
        worlds = [self.outcome(setup, row) for row in np.eye(len(asked) + 1, len(asked), -1, dtype=bool)]
        happens, final = (np.stack(values) for values in zip(*worlds, strict=True))
        start, looks = np.asarray(self.start(setup), np.float32), np.asarray(self.looks(setup), np.int64)
        return Outcomes(asked, happens, final, start, looks)

    def pack(self, setup: Any) -> bytes:
        """A setup as bytes (msgpack; no code in it), for `unpack`."""
        return msgpack.packb([type(self).__name__, _plain(setup)])

    def unpack(self, data: bytes) -> Any:
        """The setup, equal to the bit. Raises DataError if `data` is not one of this world's."""
        try:
            world, setup = msgpack.unpackb(data)
            if world != type(self).__name__:
                raise ValueError(f"it is one of {str(world)[:40]!r}")
            return _restore(self.setup_type, setup)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise DataError(f"not an initial state of {type(self).__name__}: {error}") from error

    def rng(self, i: int) -> np.random.Generator:
        """Scene i's own generator. Raises IndexError outside 0 .. count - 1."""
        i = operator.index(i)
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {self.count - 1}")
        return np.random.default_rng([self.seed, SPLITS[self.split], i])

    def held(self, novelty: str) -> bool | None:
        """Whether this split consists of the combinations held out under that name, or leaves them out; None: neither
        is asked for."""
        return self.split == novelty if self.hold_out else None

    def object_count(self, rng: np.random.Generator, objects: tuple[int, int]) -> int:
        """The number of objects, uniform over low .. high; the split "count" has high + 1 or high + 2."""
        low, high = objects
        return int(rng.integers(high + 1, high + 3) if self.split == "count" else rng.integers(low, high + 1))

    def labels(self, states: np.ndarray) -> np.ndarray:
        """Probe targets [P] from states [T,K,S]: the count of present objects, then means over them, middle frame."""
        columns = [self.state_names.index(name) for name in self.label_names[1:]]
        middle = states[len(states) // 2]
        present = middle[middle[:, self.state_names.index("present")] > 0]
        means = present[:, columns].mean(0) if len(present) else np.zeros(len(columns))
        return np.concatenate([[len(present)], means]).astype(np.float32)


@functools.lru_cache(maxsize=256)
def _setup(world: World, i: int) -> Any:
    """The setup of a scene, kept for a while: what is looked at is often intervened upon next. Not to be changed."""
    return world.setup(i)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"type": value.dtype.str, "shape": value.shape, "data": value.tobytes()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _restore(kind: Any, value: Any) -> Any:
    """`value` as `_plain` left it, brought back to the type that an annotation names. Raises what `unpack` catches."""
    if isinstance(value, dict):
        return np.frombuffer(value["data"], value["type"]).reshape(value["shape"]).copy()
    if hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(*(_restore(hints[name], item) for name, item in zip(hints, value, strict=True)))
    if kind is np.ndarray or not isinstance(value, bool | int | float | None):
        raise TypeError(f"{type(value).__name__} where {kind} belongs")
    return value


def check_integer(name: str, value: int, least: int) -> None:
    """Raise ConfigError unless `value` is an integer (no bool) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be an integer of at least {least}")


def check_range(name: str, value: tuple, least: float, most: float, kind: type = float) -> tuple:
    """`value` as a (low, high) tuple of `kind` with least <= low <= high <= most. Raises ConfigError otherwise."""
    text = f"{name} is {value!r}; it must be a pair low, high with {least} <= low <= high <= {most}"
    try:
        if any(isinstance(v, bool) for v in value):
            raise TypeError("a bool is no number")
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
