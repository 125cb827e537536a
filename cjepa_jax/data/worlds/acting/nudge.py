"""Nudge: discs as in Balls, and an agent that pushes one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cjepa_jax.data.worlds import draw, layout
from cjepa_jax.data.worlds.acting.base import Acting, Parts
from cjepa_jax.data.worlds.base import check_integer, check_range, check_step
from cjepa_jax.data.worlds.interventions import DOS, Done
from cjepa_jax.data.worlds.layout import CIRCLE, DISC
from cjepa_jax.data.worlds.physics import WALL, Bodies, Physics, simulate
from cjepa_jax.errors import ConfigError

COLUMNS = 11  # of an object in a state: x, y, angle, velocity x, y, spin, radius, mass, red, green, blue (0 .. 1)
PLACE, VELOCITY, RADIUS, MASS, COLOUR = slice(0, 2), slice(3, 5), 6, 7, slice(8, 11)
PUSH = 0.8  # change of the agent's velocity by the action 1, view widths / s
FASTEST = 2.5  # of the agent after a push
PHYSICS = Physics(gravity=0.0, walls=True, restitution=0.8, friction=0.1)
TOLERANCE, OFFSET = 0.1, 12  # distance of object 1 from its goal that counts as success, and frames to a goal
GROUND = (222, 220, 214)


@dataclass(frozen=True)
class Nudge(Acting):
    """Discs of different size and mass between walls. The action pushes object 0, the white one.

    Units are those of Balls: view widths, seconds. An action changes the agent's velocity before the next frame. Its
    speed is limited to FASTEST. A state holds everything, so each frame is simulated anew from the last one.

    Policies: "nudge" pushes at random. "aim" pushes towards object 1.
    Tasks: "move": the goal is what the policy "aim" reaches after 12 frames. Success: the centre of object 1, the black
    one, is within 0.1 of its place in the goal.

    Interventions: remove, insert, swap, and set of position, velocity, spin, mass, size and colour. A mass does not
    change with a size.

    Args:
      balls: number of discs, the agent included.
      size_range: radii, view widths.
      dt: seconds between frames.
    """

    balls: int = 3
    size_range: tuple[float, float] = (0.08, 0.12)
    dt: float = 0.1

    dos: ClassVar[tuple[str, ...]] = DOS
    attributes: ClassVar[tuple[str, ...]] = ("position", "velocity", "spin", "mass", "size", "colour")
    policies: ClassVar[tuple[str, ...]] = ("nudge", "aim")
    tasks: ClassVar[tuple[str, ...]] = ("move",)
    label_names: ClassVar[tuple[str, ...]] = ("count", "position/x", "position/y", "velocity/x", "velocity/y")
    state_names: ClassVar[tuple[str, ...]] = (
        "present", "position/x", "position/y", "velocity/x", "velocity/y", "radius", "mass",
    )  # fmt: skip
    proprio_names: ClassVar[tuple[str, ...]] = ("x", "y", "velocity/x", "velocity/y")

    def __post_init__(self):
        super().__post_init__()
        check_integer("data.options.balls", self.balls, 2)
        if self.balls > 8:
            raise ConfigError(f"data.options.balls is {self.balls!r}; it must be at most 8")
        sizes = check_range("data.options.size_range", self.size_range, 0.03, 0.15)
        object.__setattr__(self, "size_range", sizes)
        object.__setattr__(self, "objects", self.balls)
        check_step("data.options.dt", self.dt)
        self.check_speed(FASTEST)
        least = min(sizes[0], self.value[0] if self.do == "set" and self.attribute == "size" else 1)
        limit = least * PHYSICS.substeps / FASTEST
        if self.dt > limit:
            raise ConfigError(f"data.options.dt is {self.dt!r}; it must be at most {limit:.3g}, or walls leak")

    def first(self, rng: np.random.Generator) -> np.ndarray:
        """Discs at rest anywhere, without overlap."""
        radius = rng.uniform(*self.size_range, self.balls)
        place, shrink = layout.place(rng, radius, np.zeros(self.balls, int), WALL)
        rows = np.zeros((self.balls, COLUMNS))
        rows[:, PLACE], rows[:, RADIUS] = place, radius * shrink
        rows[:, MASS] = np.pi * rows[:, RADIUS] ** 2 * 2 ** rng.uniform(-1, 1, self.balls)
        rows[:, COLOUR] = rng.uniform(0.2, 0.75, (self.balls, 3))
        rows[:2, COLOUR] = [[1.0], [0.1]]
        return rows.ravel()

    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The next states [..., D]."""
        rows = zip(np.reshape(states, (-1, self.balls, COLUMNS)), np.reshape(actions, (-1, 2)), strict=True)
        nothing = np.zeros(self.balls, bool)
        return np.stack([self._step(row, action, nothing) for row, action in rows]).reshape(states.shape)

    def _step(self, row: np.ndarray, action: np.ndarray, removed: np.ndarray, agents: tuple = (0,)) -> np.ndarray:
        """The next objects [K,COLUMNS]. agents: those that the action pushes."""
        new = np.array(row, float)
        for k in agents:
            new[k, VELOCITY] += PUSH * np.clip(action, -1, 1)
            new[k, VELOCITY] *= min(1.0, FASTEST / max(float(np.linalg.norm(new[k, VELOCITY])), 1e-9))
        new[:, :6] = simulate(_bodies(new), PHYSICS, 2, self.dt, removed, events=False)[0][1]
        return new

    def parts(self, first: np.ndarray) -> Parts:
        """The discs."""
        rows = first.reshape(-1, COLUMNS)
        return Parts(_bodies(rows), 255 * rows[:, COLOUR])

    def done(self, setup: Parts, chosen: np.ndarray | None) -> Done:
        """See Doing. A changed disc that would begin inside a wall is moved off it."""
        act = super().done(setup, chosen)
        if self.do == "swap" or (self.do == "set" and self.attribute in ("position", "size")):
            now, before = act.setup.bodies, setup.bodies
            changed = (now.position != before.position).any(1) | (now.half != before.half).any(1)
            low = WALL + now.half[:, :1]
            place = np.where(changed[:, None], np.clip(now.position, low, 1 - low), now.position)
            act = act._replace(setup=act.setup._replace(bodies=now._replace(position=place)))
        return act

    def under(self, first: np.ndarray, actions: np.ndarray, act: Done) -> dict[str, np.ndarray]:
        """The arrays of a clip of the changed discs."""
        rows, bodies = first.reshape(-1, COLUMNS)[act.stands_for], act.setup.bodies
        rows[:, PLACE], rows[:, VELOCITY], rows[:, 5] = bodies.position, bodies.velocity, bodies.spin
        rows[:, RADIUS], rows[:, MASS] = bodies.half[:, 0], bodies.mass
        inked = act.setup.colour != 255 * rows[:, COLOUR]
        rows[:, COLOUR] = np.where(inked, act.setup.colour / 255, rows[:, COLOUR])
        agents = tuple(np.flatnonzero(act.stands_for == 0).tolist())
        states = [rows]
        for action in actions[:-1]:
            states.append(self._step(states[-1], action, act.removed, agents))
        found = self.scene(np.stack(states).reshape(len(actions), -1), act.removed)
        cut = {name: found[name][: self.balls] for name in ("masks", "amodal")}
        return found | cut | {"states": found["states"][:, : self.balls]}

    def without(self, first: np.ndarray, actions: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """The others under the same actions. Without the agent nothing pushes."""
        states = [first.reshape(-1, COLUMNS)]
        for action in actions[:-1]:
            states.append(self._step(states[-1], action, removed))
        return np.stack(states).reshape(len(actions), -1)

    def goal(self, rng: np.random.Generator, task: str, start: np.ndarray) -> np.ndarray | None:
        """What the policy "aim" reaches after OFFSET frames, if it has moved object 1 by more than TOLERANCE."""
        act, state = self.behave("aim", rng, start), start
        for _ in range(OFFSET):
            state = self.advance(state, act(state))
        return None if self.reached(start, state) else state

    def away(self, states, goals):
        """The distance of object 1 from its place in the goal, in units of TOLERANCE."""
        xp = states.__array_namespace__()
        move = states[..., COLUMNS : COLUMNS + 2] - goals[..., COLUMNS : COLUMNS + 2]
        return xp.sqrt((move * move).sum(-1)) / TOLERANCE

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether object 1 is within TOLERANCE of its place in the goal."""
        return self.away(states, goals) < 1

    def straight(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Pushes along the straight line to the agent's place in the goal, less near it."""
        wanted = (goals[..., PLACE] - states[..., PLACE]) / (2 * self.dt)
        return np.clip((wanted - states[..., VELOCITY]) / PUSH, -1, 1)

    def behave(self, policy: str, rng: np.random.Generator, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """One episode's policy: "nudge" or "aim"."""

        def act(state: np.ndarray) -> np.ndarray:
            push = rng.uniform(-1, 1, 2)
            if policy == "aim":
                way = state[COLUMNS : COLUMNS + 2] - state[PLACE]
                push = 0.4 * push + way / np.linalg.norm(way) - 0.5 * state[VELOCITY]
            return np.clip(push, -1, 1)

        return act

    def picture(self, states: np.ndarray) -> np.ndarray:
        """Images uint8 [..., H, W, 3]."""
        flat = np.asarray(states, float).reshape(-1, self.balls, COLUMNS)
        images = self._paint(flat, self._polygons(flat), np.zeros(self.balls, bool))
        return images.reshape(*states.shape[:-1], self.size, self.size, 3)

    def _polygons(self, rows: np.ndarray) -> list[list[np.ndarray]]:
        each = rows[:, :, None, PLACE] + rows[:, :, RADIUS, None, None] * CIRCLE  # [T,K,V,2]
        return draw.outlines([[each[:, k]] for k in range(each.shape[1])], self.size)

    def _paint(self, rows: np.ndarray, polygons: list[list[np.ndarray]], removed: np.ndarray) -> np.ndarray:
        """Each frame has the colours of its own state."""
        video = np.full((len(rows), self.size, self.size, 3), GROUND, np.uint8)
        for t, image in enumerate(video):
            draw.frame(image, WALL, 0.4)
            for k in np.flatnonzero(~removed)[::-1]:
                draw.fill(image, polygons[k][0][t], np.rint(255 * rows[t, k, COLOUR]).tolist())
        return video

    def scene(self, states: np.ndarray, removed: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of a clip."""
        rows = states.reshape(len(states), -1, COLUMNS)
        polygons = self._polygons(rows)
        masks, amodal = draw.masks(polygons, np.flatnonzero(~removed)[::-1].tolist(), len(rows), self.size)
        parts = [np.ones_like(rows[..., :1]), rows[..., PLACE], rows[..., VELOCITY], rows[..., RADIUS : MASS + 1]]
        known = np.where(removed[:, None], 0, np.concatenate(parts, -1)).astype(np.float32)
        return {
            "video": self._paint(rows, polygons, removed), "masks": masks, "amodal": amodal, "states": known,
            "proprio": known[:, 0, 1:5].copy(), "labels": self.labels(known),
        }  # fmt: skip


def _bodies(rows: np.ndarray) -> Bodies:
    """Objects [K,COLUMNS] as the simulator takes them."""
    return Bodies(
        kind=np.full(len(rows), DISC), half=np.repeat(rows[:, RADIUS, None], 2, 1), position=rows[:, PLACE],
        angle=rows[:, 2], velocity=rows[:, VELOCITY], spin=rows[:, 5], mass=rows[:, MASS],
        layer=np.zeros(len(rows), int),
    )  # fmt: skip
