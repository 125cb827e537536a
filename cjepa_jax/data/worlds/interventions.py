"""do(remove), do(insert), do(swap) and do(set) in worlds of rigid bodies. All change the initial state alone.

The scene is then simulated again, so what follows is exact: objects that no chain of contacts connects to a changed one
keep bit-identical trajectories.
"""

from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.data.worlds import layout, physics
from cjepa_jax.errors import ConfigError

DOS = ("remove", "insert", "swap", "set")
ATTRIBUTES = {  # name -> numbers of its value, least, most
    "velocity": (2, -20.0, 20.0),  # view widths / s
    "spin": (1, -20.0, 20.0),  # radians / s
    "angle": (1, -7.0, 7.0),  # radians
    "mass": (1, 0.01, 100.0),  # times the mass
    "colour": (3, 0.0, 1.0),
}
GRID = 24  # places per axis that are tried for a twin


class Done(NamedTuple):
    """A changed initial state of K' >= K objects. Those after the first K are twins."""

    setup: Any
    removed: np.ndarray  # bool [K']
    stands_for: np.ndarray  # int [K'] the object of the scene: itself, or the one whose twin it is


def check(do: str, attribute: str, value: tuple) -> tuple[float, ...]:
    """The value as numbers. Raises ConfigError for options that do not fit."""
    if do not in DOS:
        raise ConfigError(f"data.options.do is {do!r}; it must be one of {', '.join(DOS)}")
    if do != "set":
        return ()
    if attribute not in ATTRIBUTES:
        raise ConfigError(f"data.options.attribute is {attribute!r}; it must be one of {', '.join(ATTRIBUTES)}")
    count, least, most = ATTRIBUTES[attribute]
    given = value if isinstance(value, tuple | list) else (value,)
    numbers = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool) and least <= v <= most]
    if not len(numbers) == len(given) == count:
        raise ConfigError(f"data.options.value is {value!r}; {attribute} needs {count} of {least:g} to {most:g}")
    return tuple(map(float, numbers))


def changed(setup: Any, chosen: np.ndarray, do: str) -> np.ndarray:
    """The objects whose initial state do() of the chosen ones changes, bool [K]."""
    out = chosen.copy()
    if do == "swap":
        out[_ring(setup, chosen)] = True
    return out


def done(setup: Any, chosen: np.ndarray, do: str, attribute: str = "", value: tuple = ()) -> Done:
    """do() of the chosen objects, bool [K].

    remove: they are gone. insert: a twin of each, equal but for its place, which is the one farthest from everything in
    its layer. swap: they exchange their places in a circle. One alone exchanges with the object that leaves both the
    most room. set: their `attribute` becomes `value`.

    Where a scene is crowded, a twin or an exchanged object may overlap others or a wall at the start. The simulator
    then pushes them apart.
    """
    rows, all_rows = np.flatnonzero(chosen), np.arange(len(chosen))
    if do == "remove":
        return Done(setup, chosen, all_rows)
    nothing = np.zeros(len(chosen), bool)
    if do == "swap":
        return Done(_with(setup, position=_turned(setup, _ring(setup, chosen))), nothing, all_rows)
    if do == "set":
        return Done(_set(setup, rows, attribute, value), nothing, all_rows)
    for row in rows.tolist():
        setup = _twin(setup, row)
    return Done(setup, np.zeros(len(chosen) + len(rows), bool), np.concatenate([all_rows, rows]))


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


def _ring(setup: Any, chosen: np.ndarray) -> np.ndarray:
    """The objects that exchange places, in order. Of equal partners it is the first one after the object."""
    rows, count = np.flatnonzero(chosen), len(chosen)
    if len(rows) != 1 or count == 1:
        return rows
    rings = [np.array([rows[0], (rows[0] + step) % count]) for step in range(1, count)]
    return max(rings, key=lambda ring: _room(setup, ring))


def _turned(setup: Any, ring: np.ndarray) -> np.ndarray:
    """The positions [K,2] after the exchange."""
    position = setup.bodies.position.copy()
    position[ring] = position[np.roll(ring, -1)]
    return position


def _room(setup: Any, ring: np.ndarray) -> float:
    """The least distance of an exchanged object from the others of its layer and from the walls. Below 0 it may
    overlap one: objects are circumscribed circles here."""
    bodies, position = setup.bodies, _turned(setup, ring)
    reach = layout.reach(bodies.kind, bodies.half)
    apart = np.linalg.norm(position[ring, None] - position, axis=-1) - reach[ring, None] - reach
    others = (bodies.layer[ring, None] == bodies.layer) & (ring[:, None] != np.arange(len(reach)))
    border = np.minimum(position[ring], 1 - position[ring]).min(1) - reach[ring] - physics.WALL
    return float(min(np.where(others, apart, np.inf).min(), border.min()))


def _with(setup: Any, **columns: np.ndarray) -> Any:
    return setup._replace(bodies=setup.bodies._replace(**columns))


def _set(setup: Any, rows: np.ndarray, attribute: str, value: tuple) -> Any:
    if attribute == "colour":
        colour = setup.colour.copy()
        colour[rows] = np.rint(255 * np.asarray(value))
        return setup._replace(colour=colour)
    column = getattr(setup.bodies, attribute).copy()
    column[rows] = column[rows] * value[0] if attribute == "mass" else value if len(value) > 1 else value[0]
    return _with(setup, **{attribute: column})


def _twin(setup: Any, row: int) -> Any:
    """The setup with one object more, equal to `row` but for its place."""
    bodies = setup.bodies
    reach = np.hypot(*bodies.half.T)
    low = physics.WALL + reach[row]
    axis = low + (1 - 2 * low) * (np.arange(GRID) + 0.5) / GRID
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    same = bodies.layer == bodies.layer[row]
    free = np.linalg.norm(places[:, None] - bodies.position[same], axis=-1) - reach[same]
    position = places[free.min(1).argmax()]
    more = {name: np.concatenate([column, column[row : row + 1]]) for name, column in bodies._asdict().items()
            if column is not None} | {"position": np.concatenate([bodies.position, position[None]])}  # fmt: skip
    own = {name: np.concatenate([column, column[row : row + 1]]) for name in ("colour", "depth")
           if (column := getattr(setup, name, None)) is not None}  # fmt: skip
    return setup._replace(bodies=bodies._replace(**more), **own)
