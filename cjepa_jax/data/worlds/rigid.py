"""The base class of worlds of rigid bodies: from an initial state to motion, video, masks and states."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.base import check_step
from cjepa_jax.data.worlds.interventions import Changeable
from cjepa_jax.data.worlds.physics import FIXED, after, graph, simulate


@dataclass(frozen=True)
class Rigid(Changeable):
    """A world whose setups are NamedTuples with `bodies`, `physics`, `colour` uint8 [K,3] and `sky` [2,3].

    World units: the view is 1 x 1, x to the right, y down. Time is in seconds. A dark mark inside each object turns
    with it.

    A scene holds:
      video: uint8 [T,H,W,3].
      masks, amodal: masks of the visible parts and of whole objects, bool [K,T,H,W].
      states: float32 [T,K,S], columns as state_names.
      contacts: float32 [C,4], see physics.simulate: first and last time in frames, object a, object b. b is -1 for
        walls and ground.
      graph: contact graph, bool [K,K].
      labels: float32 [P], as label_names: the count of objects, then means at frame T // 2.
    A removed object keeps its row. Its states are 0 and its masks are empty.

    Args:
      dt: seconds between frames.
    """

    dt: float = 0.1

    label_names: ClassVar[tuple[str, ...]] = (
        "count", "position/x", "position/y", "velocity/x", "velocity/y", "size/area",
    )  # fmt: skip
    state_names: ClassVar[tuple[str, ...]] = (
        "present",  # 1, or 0 if removed (then the whole row is 0)
        "position/x", "position/y",  # centre, view widths
        "angle",  # radians, clockwise as seen
        "velocity/x", "velocity/y",  # view widths / s
        "spin",  # radians / s
        "size/width", "size/height",  # at angle 0, view widths
        "size/area",  # share of the view
        "mass",  # density x area, densities 0.5 .. 2
        "colour/r", "colour/g", "colour/b",  # 0 .. 1
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        check_step("data.options.dt", self.dt)

    def background(self, setup: Any) -> np.ndarray:
        """The scene without objects, uint8 [H,W,3]."""
        raise NotImplementedError

    def traits(self, setup: Any) -> np.ndarray:
        """The last columns of the states, constant in time, [K,n]: colours, and columns that a world adds."""
        return setup.colour / 255

    def marks(self, setup: Any) -> np.ndarray:
        """The colours of the marks inside the objects, uint8 [K,3]."""
        return (setup.colour * 0.6).astype(np.uint8)

    def order(self, setup: Any, removed: np.ndarray) -> list[int]:
        """The objects that are not removed, in drawing order: fixed objects first, then by index."""
        return [k for k in np.argsort(~still(setup), kind="stable").tolist() if not removed[k]]

    def drawn(self, setup: Any, removed: np.ndarray) -> dict[str, np.ndarray]:
        """The scene without the objects `removed`, simulated from its initial state."""
        motion, contacts = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed)
        polygons = self.polygons(setup, motion)
        visible, amodal = draw.masks(polygons, self.order(setup, removed), self.frames, self.size)
        states = self.states(setup, motion, removed)
        return {
            "video": self.video(setup, motion, polygons, removed),
            "masks": visible,
            "amodal": amodal,
            "states": states,
            "contacts": contacts,
            "graph": graph(contacts, len(removed)),
            "labels": self.labels(states),
        }

    def filmed(self, setup: Any, removed: np.ndarray) -> np.ndarray:
        """Its video alone, uint8 [T,H,W,3]."""
        motion, _ = simulate(setup.bodies, setup.physics, self.frames, self.dt, removed, events=False)
        return self.video(setup, motion, self.polygons(setup, motion), removed)

    def influence(self, i: int, at: int) -> tuple[np.ndarray, np.ndarray]:
        """What the objects of scene i do to each other from frame `at` on: (effects [K,K], contacts bool [K,K]).

        effects[a, b] is the largest distance, in view widths, that object a is away from its path if b is removed at
        frame `at`: both clips are simulated from the state at that frame. contacts are those of the clip with all.
        Raises IndexError, DataError.
        """
        setup = self.setup(i)
        nothing = np.zeros(len(setup.colour), bool)
        motion, _ = simulate(setup.bodies, setup.physics, at + 1, self.dt, nothing, events=False)
        x, y, angle, vx, vy, spin = motion[at].T
        state = {"position": np.stack([x, y], -1), "angle": angle, "velocity": np.stack([vx, vy], -1), "spin": spin}
        bodies, pads = setup.bodies._replace(**state), setup.physics.pads.copy()
        pads[:, 1] -= at * self.dt
        physics = setup.physics._replace(pads=pads[pads[:, 1] >= 0])
        frames = self.frames - at
        paths, contacts = simulate(bodies, physics, frames, self.dt, nothing)
        effects = np.zeros((len(nothing), len(nothing)))
        for k, row in enumerate(np.eye(len(nothing), dtype=bool)):
            without, _ = simulate(bodies, physics, frames, self.dt, row, events=False)
            effects[:, k] = np.linalg.norm(without[..., :2] - paths[..., :2], axis=-1).max(0)
        np.fill_diagonal(effects, 0)
        return effects, graph(contacts, len(nothing))

    def touched(self, i: int, at: int, contacts: np.ndarray) -> np.ndarray:
        """Which objects of scene i touch from frame `at` on, bool [K,K], from all contacts [C,4] of its clip.

        They are those of `influence`, which simulates the clip again from the state at that frame. That may end in
        other contacts after many collisions, because the solver forgets its last impulses.
        """
        setup = self.setup(i)
        return graph(after(contacts, at, setup.physics.substeps), len(setup.colour))

    def flow(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The true optical flow of scene i, from each frame to the next: (flow float32 [T-1,H,W,2], bool [T-1,H,W]).

        The flow (x, y) is in pixels, y down: the point of the object that is drawn at a pixel's centre moves by it, as
        the simulated position and angle say. It is 0 where the background is drawn. The second array says whether the
        next frame shows that point: its place is in the frame, and the pixel there belongs to the same object.
        Raises IndexError, DataError.
        """
        return self._flow(i)

    def translation(self, i: int) -> np.ndarray:
        """As the first array of `flow`, if objects did not turn: every pixel of an object moves as its centre does."""
        return self._flow(i, turns=False)[0]

    def _flow(self, i: int, turns: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """`flow`, with or without the turning of the objects."""
        setup = self.setup(i)
        nothing = np.zeros(len(setup.colour), bool)
        motion, _ = simulate(setup.bodies, setup.physics, self.frames, self.dt, nothing, events=False)
        visible, _ = draw.masks(self.polygons(setup, motion), self.order(setup, nothing), self.frames, self.size)
        owner = np.where(visible.any(0), visible.argmax(0), -1)  # [T,H,W]
        centre = (np.arange(self.size) + 0.5) / self.size
        x, y = np.broadcast_to(centre, owner.shape[1:]), np.broadcast_to(centre[:, None], owner.shape[1:])
        flow = np.zeros((self.frames - 1, self.size, self.size, 2))
        seen = np.zeros(flow.shape[:3], bool)
        for t in range(self.frames - 1):
            old, new = (motion[at][owner[t]] for at in (t, t + 1))  # [H,W,6]; of another object at the background
            turn = (new[..., 2] - old[..., 2]) * turns
            right, down = x - old[..., 0], y - old[..., 1]
            flow[t, ..., 0] = new[..., 0] + np.cos(turn) * right - np.sin(turn) * down - x
            flow[t, ..., 1] = new[..., 1] + np.sin(turn) * right + np.cos(turn) * down - y
            flow[t, owner[t] < 0] = 0
            col, row = np.floor((np.stack([x, y]) + flow[t].transpose(2, 0, 1)) * self.size).astype(int)
            there = (np.stack([col, row]) >= 0).all(0) & (np.stack([col, row]) < self.size).all(0)
            seen[t, there] = owner[t + 1][row[there], col[there]] == owner[t][there]
        return (flow * self.size).astype(np.float32), seen

    def polygons(self, setup: Any, motion: np.ndarray, of: Callable = layout.outlines) -> list[list[np.ndarray]]:
        """Outlines of the objects in fixed-point pixels: one or more parts [T,V,2] each, [1,V,2] for fixed objects.

        of: layout.outlines, or layout.marks for their marks.
        """
        kind, half, rests = setup.bodies.kind, setup.bodies.half, still(setup)
        shapes = [[]] * len(kind)
        for group, frames in ((rests, motion[:1]), (~rests, motion)):
            rows = np.nonzero(group)[0]
            parts = of(kind[rows], half[rows], frames[:, rows, :2], frames[:, rows, 2]) if len(rows) else []
            for k, shape in zip(rows.tolist(), parts, strict=True):
                shapes[k] = shape
        return draw.outlines(shapes, self.size)

    def video(self, setup: Any, motion: np.ndarray, polygons: list, removed: np.ndarray) -> np.ndarray:
        """The video, uint8 [T,H,W,3]: each object in its colour with a mark inside, in drawing order."""
        marks = self.polygons(setup, motion, layout.marks)
        video = np.repeat(self.background(setup)[None], self.frames, 0)
        colours, inks = setup.colour.tolist(), self.marks(setup).tolist()
        strokes = []
        for k in self.order(setup, removed):
            strokes += [*((part, colours[k]) for part in polygons[k]), (marks[k][0], inks[k])]
        draw.paint(video, strokes)
        return video

    def states(self, setup: Any, motion: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """States float32 [T,K,S], columns as state_names. Rows of removed objects are 0."""
        bodies = setup.bodies
        fixed = [*(2 * bodies.half.T), layout.areas(bodies.kind, bodies.half), bodies.mass]
        states = np.empty((*motion.shape[:2], len(self.state_names)), np.float32)
        states[..., 0], states[..., 1:7] = 1, motion
        states[..., 7:] = np.concatenate([np.stack(fixed, -1), self.traits(setup)], -1)
        states[:, removed] = 0
        return states


def still(setup: Any) -> np.ndarray:
    """Objects that never move, bool [K]."""
    mode = setup.bodies.mode
    return np.zeros(len(setup.colour), bool) if mode is None else mode == FIXED
