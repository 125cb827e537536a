"""do(remove), do(insert), do(swap) and do(set) in simulated worlds. All change the initial state alone.

The scene is then simulated again, so what follows is exact: objects that no chain of contacts connects to a changed one
keep bit-identical trajectories.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import layout, physics
from cjepa_jax.data.worlds.base import World, check_removed
from cjepa_jax.errors import ConfigError

DOS = ("remove", "insert", "swap", "set")
ATTRIBUTES = {  # name -> numbers of its value, least, most
    "velocity": (2, -20.0, 20.0),  # view widths / s
    "spin": (1, -20.0, 20.0),  # radians / s
    "angle": (1, -7.0, 7.0),  # radians
    "mass": (1, 0.01, 100.0),  # times the mass
    "colour": (3, 0.0, 1.0),
    "height": (1, 0.01, 2.0),  # above the floor, view widths
    "position": (2, 0.0, 1.0),  # view widths
    "size": (1, 0.02, 0.15),  # radius, view widths
    "wall": (1, 0.3, 0.7),  # x of the wall of a scene with rooms, view widths
    "door": (1, 0.2, 0.8),  # y of its door
}
FORCED = ("velocity", "spin", "mass")  # attributes of objects that move
PER_OBJECT = (
    "kind", "half", "position", "angle", "velocity", "spin", "mass", "layer", "mode",
    "height", "colour", "depth", "level",
)  # fmt: skip
GRID = 24  # places per axis that are tried for a twin


class Done(NamedTuple):
    """A changed initial state of K' >= K objects. Those after the first K are twins."""

    setup: Any
    removed: np.ndarray  # bool [K']
    stands_for: np.ndarray  # int [K'] the object of the scene: itself, or the one whose twin it is


@dataclass(frozen=True)
class Doing(World):
    """A world with the options of an intervention. `done` gives the changed initial state.

    That state has the columns of physics.Bodies, in `bodies` or itself, and `colour` [K,3] of 0 to 255.

    Args:
      do: what happens to the chosen objects in the intervened scene: "remove", "insert", "swap" or "set" (see `done`).
        Arrays named after removals then mean this. A twin has no row.
      attribute, value: for "set": one of the world's `attributes` and its number or numbers. Velocity, spin and mass
        of objects that never move do not change.
    """

    do: str = "remove"
    attribute: str = ""
    value: tuple[float, ...] = ()

    dos: ClassVar[tuple[str, ...]] = DOS  # of this world
    attributes: ClassVar[tuple[str, ...]] = ("velocity", "spin", "angle", "mass", "colour")
    room: ClassVar[tuple[float, float, float, float]] = (physics.WALL, physics.WALL, 1 - physics.WALL, 1 - physics.WALL)

    def __post_init__(self):
        super().__post_init__()
        if self.do not in self.dos:
            raise ConfigError(f"data.options.do is {self.do!r}; it must be one of {', '.join(self.dos)}")
        object.__setattr__(self, "value", self._checked() if self.do == "set" else ())

    def _checked(self) -> tuple[float, ...]:
        """`value` as numbers. Raises ConfigError."""
        name, value = self.attribute, self.value
        if name not in self.attributes:
            raise ConfigError(f"data.options.attribute is {name!r}; it must be one of {', '.join(self.attributes)}")
        count, least, most = ATTRIBUTES[name]
        given = value if isinstance(value, tuple | list) else (value,)
        numbers = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool) and least <= v <= most]
        if not len(numbers) == len(given) == count:
            raise ConfigError(f"data.options.value is {value!r}; {name} needs {count} of {least:g} to {most:g}")
        return tuple(map(float, numbers))

    def check_speed(self, limit: float) -> None:
        """Raises ConfigError for a `value` that is a velocity above the limit, in view widths / s."""
        if self.do == "set" and self.attribute == "velocity" and math.hypot(*self.value) > limit:
            raise ConfigError(f"data.options.value is {self.value!r}; its speed must be at most {limit:.4g}")

    def done(self, setup: Any, chosen: np.ndarray | None) -> Done:
        """The initial state after the world's `do` of the chosen objects, bool [K]. Raises DataError.

        remove: they are gone. insert: a twin of each, equal but for its place, which is the one farthest from
        everything in its layer. swap: they exchange their places in a circle. One alone exchanges with the object that
        leaves both the most room. set: their `attribute` becomes `value`.

        Where a scene is crowded, a twin, an exchanged object, or a grown or moved object may overlap others or a wall
        at the start. A simulator of contacts then pushes them apart.
        """
        chosen = check_removed(chosen, len(setup.colour))
        rows, all_rows, nothing = np.flatnonzero(chosen), np.arange(len(chosen)), np.zeros(len(chosen), bool)
        if self.do == "remove":
            return Done(setup, chosen, all_rows)
        if self.do == "swap":
            return Done(_with(setup, position=_turned(setup, _ring(setup, chosen, self.room))), nothing, all_rows)
        if self.do == "set":
            return Done(_set(setup, rows, self.attribute, self.value), nothing, all_rows)
        for row in rows.tolist():
            setup = _twin(setup, row, self.room)
        return Done(setup, np.zeros(len(chosen) + len(rows), bool), np.concatenate([all_rows, rows]))

    def changed(self, setup: Any, chosen: np.ndarray) -> np.ndarray:
        """See World."""
        out = chosen.copy()
        if self.do == "swap":
            out[_ring(setup, chosen, self.room)] = True
        if self.do == "set":
            out &= _settable(setup, self.attribute)
        return out


@dataclass(frozen=True)
class Changeable(Doing):
    """A world with interventions. A subclass has `drawn` and perhaps `filmed`, in place of `play` and `film`.

    Its setups are what `Doing.done` changes. Options are those of Doing.
    """

    def play(self, setup: Any, removed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scene under `do` of the objects `removed`. Raises DataError."""
        act, objects = self.done(setup, removed), len(setup.colour)
        scene = self.drawn(act.setup, act.removed)
        return scene if len(act.removed) == objects else folded(scene, act.stands_for, objects)

    def film(self, setup: Any, removed: np.ndarray | None = None) -> np.ndarray:
        """Only the video of the scene under `do` of the objects `removed`, uint8 [T,H,W,3]. Raises DataError."""
        act = self.done(setup, removed)
        return self.filmed(act.setup, act.removed)

    def drawn(self, setup: Any, removed: np.ndarray) -> dict[str, np.ndarray]:
        """The scene of this initial state without the objects `removed`, bool [K]."""
        raise NotImplementedError

    def filmed(self, setup: Any, removed: np.ndarray) -> np.ndarray:
        """Its video alone."""
        return self.drawn(setup, removed)["video"]


def folded(scene: dict[str, np.ndarray], stands_for: np.ndarray, objects: int) -> dict[str, np.ndarray]:
    """A scene with the rows of its first `objects` objects. Contacts of a twin count as those of its object."""
    contacts = scene["contacts"].copy()
    for column in (2, 3):
        bodies = contacts[:, column] >= 0
        contacts[bodies, column] = stands_for[contacts[bodies, column].astype(int)]
    walls = contacts[:, 3] < 0
    contacts[~walls, 2:] = np.sort(contacts[~walls, 2:], 1)
    contacts = contacts[contacts[:, 2] != contacts[:, 3]]
    cut = {name: scene[name][:objects] for name in ("masks", "amodal")}
    cut |= {"states": scene["states"][:, :objects], "contacts": contacts}
    return {**scene, **cut, "graph": physics.graph(contacts, objects)}


def _ring(setup: Any, chosen: np.ndarray, room: tuple) -> np.ndarray:
    """The objects that exchange places, in order. Of equal partners it is the first one after the object."""
    rows, count = np.flatnonzero(chosen), len(chosen)
    if len(rows) != 1 or count == 1:
        return rows
    rings = [np.array([rows[0], (rows[0] + step) % count]) for step in range(1, count)]
    return max(rings, key=lambda ring: _space(setup, ring, room))


def _turned(setup: Any, ring: np.ndarray) -> np.ndarray:
    """The positions [K,2] after the exchange."""
    position = _bodies(setup).position.copy()
    position[ring] = position[np.roll(ring, -1)]
    return position


def _space(setup: Any, ring: np.ndarray, room: tuple) -> float:
    """The least distance of an exchanged object from the others of its layer and from the borders. Below 0 it may
    overlap one: objects are circumscribed circles here."""
    bodies, position, layer = _bodies(setup), _turned(setup, ring), _layer(setup)
    reach = layout.reach(bodies.kind, bodies.half)
    apart = np.linalg.norm(position[ring, None] - position, axis=-1) - reach[ring, None] - reach
    others = (layer[ring, None] == layer) & (ring[:, None] != np.arange(len(reach)))
    border = np.minimum(position[ring] - room[:2], np.array(room[2:]) - position[ring]).min(1) - reach[ring]
    return float(min(np.where(others, apart, np.inf).min(), border.min()))


def _bodies(setup: Any) -> Any:
    """What has the columns of the objects."""
    return getattr(setup, "bodies", setup)


def _layer(setup: Any) -> np.ndarray:
    """The layer of each object [K]."""
    return getattr(_bodies(setup), "layer", np.zeros(len(setup.colour), int))


def _with(setup: Any, **columns: np.ndarray) -> Any:
    own = {name: column for name, column in columns.items() if name in setup._fields}
    rest = {name: column for name, column in columns.items() if name not in own}
    return setup._replace(**own, **({"bodies": setup.bodies._replace(**rest)} if rest else {}))


def _set(setup: Any, rows: np.ndarray, attribute: str, value: tuple) -> Any:
    if attribute == "colour":
        colour = setup.colour.copy()
        colour[rows] = np.rint(255 * np.asarray(value))
        return _with(setup, colour=colour)
    name, rows = {"size": "half"}.get(attribute, attribute), rows[_settable(setup, attribute)[rows]]
    column = getattr(setup if name in setup._fields else _bodies(setup), name).copy()
    column[rows] = column[rows] * value[0] if attribute == "mass" else value if len(value) > 1 else value[0]
    return _with(setup, **{name: column})


def _settable(setup: Any, attribute: str) -> np.ndarray:
    """The objects that have this attribute, bool [K]: those that never move have no velocity, spin and mass."""
    mode = getattr(_bodies(setup), "mode", None)
    if attribute not in FORCED or mode is None:
        return np.ones(len(setup.colour), bool)
    return np.not_equal(mode, physics.FIXED)


def _twin(setup: Any, row: int, room: tuple) -> Any:
    """The setup with one object more, equal to `row` but for its place."""
    bodies, layer = _bodies(setup), _layer(setup)
    reach = np.hypot(*bodies.half.T)
    axes = [low + reach[row] + (low + high - 2 * (low + reach[row])) * (np.arange(GRID) + 0.5) / GRID
            for low, high in zip(room[:2], room[2:], strict=True)]  # fmt: skip
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    same = layer == layer[row]
    free = np.linalg.norm(places[:, None] - bodies.position[same], axis=-1) - reach[same]
    there = {name: getattr(of, name) for of in (bodies, setup) for name in PER_OBJECT if name in of._fields}
    more = {
        name: np.concatenate([column, column[row : row + 1]]) for name, column in there.items() if column is not None
    }
    return _with(setup, **more | {"position": np.concatenate([bodies.position, places[None, free.min(1).argmax()]])})
