"""Slots from the true states of a simulated world: what a perfect slot encoder would give, and faults that one has."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.sources import wrapped
from cjepa_jax.data.worlds.base import SPLITS, World, check_integer, check_share
from cjepa_jax.errors import ConfigError, DataError

LEAST_SIZE = 8  # pixels: the world is simulated at its least size, since no picture is used
HIDDEN = ("present", "velocity", "spin", "mass")  # groups of states that a single frame does not show
SCALES = {"position": (0.5, 0.25), "size": (0.2, 0.1), "colour": (0.5, 0.3), "depth": (0.5, 0.3)}  # centre, spread
KEPT = 2**14  # simulated scenes that a process keeps
AGENT = ("actions", "proprio")
KEPT_OF_A_SCENE = ("states", "labels", "graph", "contacts", *AGENT)
SHUFFLES = ("none", "scene", "frame")
AnyWorld = TypeVar("AnyWorld", bound=World)


@dataclass(frozen=True)
class TrueSlots:
    """Scenes of slots (data/kinds/slots.py) from the states of a simulated world.

    A slot holds what one frame shows of an object: place, cosine and sine of its angle, size, colour and the world's
    other states, but no velocity, spin or mass. Places, sizes, colours and depths are brought to about zero mean and
    unit variance by fixed numbers. With `width` these features are mapped by a fixed random isometry, so that no
    component is one of them. Slots without object are 0 and are not `present`. `states` and `graph` are the world's, in
    the order of the slots, and so are `actions` and `proprio` of a world with actions.

    Args:
      split, path, count, seed, frames: as for every source. size: ignored, no picture is made.
      of: "module:Class", a World with states. of_options: its options.
      clip: frames of a scene, of which `frames` successive ones are taken. The first of them is drawn for each scene.
        0, or less than `frames`: the scene has `frames`.
      slots: K, at least the number of objects of each scene.
      width: D. 0: as many as there are features.
      noise: standard deviation of Gaussian noise on every component of a slot that holds an object.
      shuffle: "none": object k is slot k. "scene": slots have another order in each scene. "frame": the slots that hold
        objects change places at every frame, as those of an encoder that does not track.
      merge: share of scenes in which one slot holds two objects, as their mean, and another slot is empty.
      one_hot: a state that is the number of a class (the world's `categories`, which it must have) becomes a component
        for each class, or one component, -1 or 1, for two classes. All components of a state have about unit variance
        together. Otherwise it is one component, the number.
    Raises: ConfigError for a value outside its limits.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 8
    count: int = 10_000
    seed: int = 0
    of: str = "cjepa_jax.data.worlds:Balls"
    of_options: Mapping[str, Any] = field(default_factory=dict)
    clip: int = 0
    slots: int = 7
    width: int = 0
    noise: float = 0.0
    shuffle: str = "scene"
    merge: float = 0.0
    one_hot: bool = False
    source: World = field(init=False, repr=False, compare=False)

    kind: ClassVar[str] = "slots"
    can_rerender: ClassVar[bool] = True

    def __post_init__(self):
        check_integer("data.options.clip", self.clip, 0)
        world = wrapped.inner(self, size=LEAST_SIZE, frames=max(self.clip, self.frames))
        if not isinstance(world, World) or not world.state_names:
            raise ConfigError(f"data.options.of = {self.of!r}: must be a simulated world with states")
        if (do := getattr(world, "do", "remove")) != "remove":
            raise ConfigError(f"data.options.of_options.do = {do!r}: must be 'remove' for slots")
        object.__setattr__(self, "source", world)
        check_integer("data.options.slots", self.slots, 1)
        check_integer("data.options.width", self.width, 0)
        check_share("data.options.merge", self.merge)
        if isinstance(self.noise, bool) or not isinstance(self.noise, int | float) or not 0 <= self.noise < np.inf:
            raise ConfigError(f"data.options.noise is {self.noise!r}: must be a number of at least 0")
        if self.shuffle not in SHUFFLES:
            raise ConfigError(f"data.options.shuffle is {self.shuffle!r}: must be one of {', '.join(SHUFFLES)}")
        if not isinstance(self.one_hot, bool):
            raise ConfigError(f"data.options.one_hot = {self.one_hot!r}: must be True or False")
        if self.one_hot and not getattr(world, "categories", {}):
            raise ConfigError(f"data.options.one_hot = True: {type(world).__name__} has no states that are classes")
        features = self._features(np.zeros((1, len(world.state_names)))).shape[-1]
        if self.width and self.width < features:
            raise ConfigError(f"data.options.width = {self.width}: must be 0, or at least the {features} features")
        object.__setattr__(self, "width", self.width or features)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Those of the world."""
        return self.source.label_names

    @property
    def state_names(self) -> tuple[str, ...]:
        """Those of the world."""
        return self.source.state_names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video float32 [T,1,K,D], present, states [T,K,S], labels and graph.

        There is no graph if slots change places, or if the frames are a part of the scene.
        """
        raw = _played(self.source, i)
        own = raw["states"][self._window(i)]
        holds = self._holds(i, own.shape[1])
        out: dict[str, Any] = {
            "video": self._video(i, own, holds),
            "present": holds.any((0, 2)),
            "labels": raw["labels"],
        }
        out["states"] = self._mean(own, holds).astype(np.float32)
        out |= {name: raw[name][self._window(i)] for name in AGENT if name in raw}
        if "graph" in raw and self.shuffle != "frame" and not self._cut:
            one = holds[0].astype(int)
            out["graph"] = (one @ raw["graph"] @ one.T > 0) & ~np.eye(self.slots, dtype=bool)
        return out

    def intervene(self, i: int, removed: np.ndarray) -> np.ndarray:
        """The slots of scene i under do(remove) of the objects that the slots `removed`, bool [K], hold at first.

        float32 [T,1,K,D]. The slots of removed objects are 0.
        """
        removed = np.asarray(removed, bool)
        objects = _played(self.source, i)["states"].shape[1]
        holds = self._holds(i, objects)
        gone = holds[0][removed].any(0)
        states = self.source.rollout(i, gone)["states"][self._window(i)]
        return self._video(i, states, holds & ~gone)

    def questions(self, i: int) -> list[dict[str, Any]]:
        """The world's questions about scene i. `removed`, `asked` and `objects` are slots instead of objects.

        They are about the whole scene, of which `frames` may be a part (`clip`). Where a slot holds two objects, or
        slots change places, `removed` is -1: no slot is the object. Raises ConfigError for a world without questions in
        words.
        """
        if not hasattr(self.source, "questions"):
            raise ConfigError(f"data.options.of = {self.of!r}: asks no questions in words")
        holds = self._holds(i, _played(self.source, i)["states"].shape[1])[0]
        slot, alone = holds.argmax(0), holds.sum(1) == 1  # of each object, and of each slot

        def placed(k: int) -> int:
            return int(slot[k]) if k >= 0 and alone[slot[k]] and self.shuffle != "frame" else -1

        found = []
        for question in self.source.questions(i):
            own: dict[str, Any] = {name: placed(question[name]) for name in ("removed", "asked") if name in question}
            own |= {"objects": tuple(map(placed, question["objects"]))} if "objects" in question else {}
            found.append(question | own)
        return found

    def influence(self, i: int, at: int) -> tuple[np.ndarray, np.ndarray]:
        """The world's `influence` between slots: (effects [K,K], contacts bool [K,K]). Of merged slots the largest.

        Raises ConfigError for a world that does not say it, for slots that change places, and for parts of scenes.
        """
        if not hasattr(self.source, "influence"):
            raise ConfigError(f"data.options.of = {self.of!r}: does not say what objects do to each other")
        if self.shuffle == "frame":
            raise ConfigError("data.options.shuffle = 'frame': slots that change places have no graph")
        if self._cut:
            raise ConfigError(
                f"data.options.clip = {self.clip}: must be at most data.frames = {self.frames} for a graph"
            )
        effects, contacts = self.source.influence(i, at)
        one = self._holds(i, len(effects))[0]
        both = one[:, None, :, None] & one[None, :, None, :] & ~np.eye(self.slots, dtype=bool)[..., None, None]
        return np.where(both, effects, 0).max((2, 3)), (both & contacts).any((2, 3))

    def touching(self, i: int, at: int) -> np.ndarray:
        """Which slots hold objects that touch another one's from frame `at` on, bool [K]. None of them without a graph.

        Nothing is simulated again where the world stores when. A world without `touched` is asked by `influence`, which
        may simulate. Contacts are those of the whole clip where it has neither.
        """
        raw = _played(self.source, i)
        if "graph" not in raw or self.shuffle == "frame" or self._cut:
            return np.zeros(self.slots, bool)
        world: Any = self.source
        if hasattr(world, "touched") and "contacts" in raw:
            graph = world.touched(i, at, raw["contacts"])
        else:
            graph = world.influence(i, at)[1] if hasattr(world, "influence") else raw["graph"]
        one = self._holds(i, len(graph))[0].astype(int)
        return ((one @ graph @ one.T > 0) & ~np.eye(self.slots, dtype=bool)).any(1)

    def places(self, slots: np.ndarray) -> np.ndarray:
        """The positions that slots [..., D] hold, [..., 2] in view widths."""
        names = self._names
        columns = [names.index("position/x"), names.index("position/y")]
        centre, spread = SCALES["position"]
        return (slots @ self._isometry.T / self._gain)[..., columns] * spread + centre

    def seen(self, states: np.ndarray) -> np.ndarray:
        """Slots [E,1,K,D] of the objects' states [E,O,S] in single frames. Object k is slot k, and there is no noise.

        Raises DataError for too few slots."""
        if states.shape[1] > self.slots:
            raise DataError(f"{states.shape[1]} objects: data.options.slots = {self.slots} is too few")
        holds = np.eye(self.slots, states.shape[1], dtype=bool) & (states[:, None, :, self._present] > 0)
        return self._placed(states, holds)

    @property
    def _present(self) -> int:
        return self.state_names.index("present")

    @property
    def _cut(self) -> bool:
        """Whether `frames` are a part of a scene."""
        return self.source.frames > self.frames

    def _window(self, i: int) -> slice:
        """Which frames of scene i."""
        if not self._cut:
            return slice(None)
        rng = seeds.generator(self.seed, "first frame of slots", SPLITS[self.split], i)
        first = int(rng.integers(self.source.frames - self.frames + 1))
        return slice(first, first + self.frames)

    def _video(self, i: int, states: np.ndarray, holds: np.ndarray) -> np.ndarray:
        """float32 [T,1,K,D] of states [T,O,S], for `holds` bool [T,K,O]."""
        noise: np.ndarray | float = 0.0
        if self.noise:
            rng = seeds.generator(self.seed, "noise of slots", SPLITS[self.split], i)
            noise = self.noise * rng.standard_normal((*holds.shape[:2], self.width))
        return self._placed(states, holds, noise)

    def _placed(self, states: np.ndarray, holds: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
        """As `_video`, with this noise."""
        slots = self._mean(self._features(states), holds) @ self._isometry * self._gain + noise
        there = np.asarray(holds.any(2))
        return np.where(there[..., None], slots, 0)[:, None].astype(np.float32)

    def _holds(self, i: int, objects: int) -> np.ndarray:
        """Which objects each slot holds at each frame, bool [T,K,O]. Raises DataError for too few slots."""
        if objects > self.slots:
            raise DataError(f"scene {i} has {objects} objects: data.options.slots = {self.slots} is too few")
        rng = seeds.generator(self.seed, "order of slots", SPLITS[self.split], i)
        order = np.arange(self.slots) if self.shuffle == "none" else rng.permutation(self.slots)
        groups = np.eye(self.slots, objects, dtype=bool)[order]  # [K,O]
        if objects > 1 and rng.random() < self.merge:
            one, other = rng.permutation(np.flatnonzero(groups.any(1)))[:2]
            groups[one] |= groups[other]
            groups[other] = False
        holds = np.repeat(groups[None], self.frames, 0)
        if self.shuffle == "frame":
            used = np.flatnonzero(groups.any(1))
            for frame in holds[1:]:
                frame[used] = frame[rng.permutation(used)]
        return holds

    @staticmethod
    def _mean(values: np.ndarray, holds: np.ndarray) -> np.ndarray:
        """The mean over the objects of each slot: [T,O,S], bool [T,K,O] -> [T,K,S]. 0 for an empty slot."""
        weights = holds / np.maximum(holds.sum(2, keepdims=True), 1)
        return np.einsum("tko,tos->tks", weights, values.astype(np.float64))

    def _features(self, states: np.ndarray) -> np.ndarray:
        """[..., S] -> [..., F], in the order of `_names`."""
        parts = []
        for name in self._columns:
            values = states[..., self.source.state_names.index(name)].astype(np.float64)
            if name == "angle":
                parts += [np.cos(values), np.sin(values)]
            elif classes := self._classes(name):
                same, n = values == np.array(classes).reshape(-1, *[1] * values.ndim), len(classes)
                parts += [2.0 * same[1] - 1] if n == 2 else [*((same - 1 / n) * np.sqrt(n / (n - 1)))]
            else:
                centre, spread = SCALES.get(name.partition("/")[0], (0.0, 1.0))
                parts.append((values - centre) / spread)
        return np.stack(parts, -1)

    def _classes(self, name: str) -> range:
        """The values of a state with a component for each. Empty for the others."""
        categories: Mapping[str, range] = getattr(self.source, "categories", {})
        return categories.get(name, range(0)) if self.one_hot else range(0)

    @property
    def _columns(self) -> list[str]:
        return [name for name in self.source.state_names if name.partition("/")[0] not in HIDDEN]

    @property
    def _names(self) -> list[str]:
        found = []
        for name in self._columns:
            classes = len(self._classes(name))
            found += [name, "sine"] if name == "angle" else [name] * (classes if classes > 2 else 1)
        return found

    @property
    def _isometry(self) -> np.ndarray:
        """float64 [F, D] with orthonormal rows, the same for all splits and seeds. The identity where D = F."""
        return _isometry(len(self._names), self.width)

    @property
    def _gain(self) -> float:
        """Keeps the variance of a component."""
        return float(np.sqrt(self.width / len(self._names)))


@functools.lru_cache(maxsize=KEPT)
def _played(world: World, i: int) -> dict[str, np.ndarray]:
    """What is needed of a simulated scene: a few kilobytes, kept for the next epoch. Do not modify it."""
    return {name: array for name, array in world[i].items() if name in KEPT_OF_A_SCENE}


@functools.cache
def _isometry(features: int, width: int) -> np.ndarray:
    if width == features:
        return np.eye(features)
    matrix = seeds.generator(0, "features of slots", features, width).standard_normal((width, features))
    return np.linalg.qr(matrix)[0].T


def small(world: AnyWorld) -> AnyWorld:
    """The world with pictures that cost little, where none is used. Raises ConfigError if a world refuses them."""
    return replace(world, size=LEAST_SIZE)
