"""Rooms: a dot in two rooms that a wall with a door separates."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cjepa_jax.data.worlds.acting.base import Acting, Parts
from cjepa_jax.data.worlds.base import check_range
from cjepa_jax.data.worlds.interventions import Done
from cjepa_jax.data.worlds.layout import DISC
from cjepa_jax.data.worlds.physics import Bodies
from cjepa_jax.errors import ConfigError

EDGE = 0.03  # thickness of the outer walls, and half the thickness of the wall between the rooms
DOOR = 0.125  # half the width of the door
SPEED = 0.08  # of the action 1, view widths a frame
TOLERANCE = 3 / 32  # distance from the goal that counts as success
FAR = 8 / 32  # least distance of a goal from the start
PUSHES = 4  # frames for which the policy "press" pushes
SLACK = 1e-6  # a dot that slides along the door's side is in the door, also if its state is rounded
X, Y, WALL, GAP = range(4)  # columns of a state: the dot's place, the wall's x, the door's y
INK, BRICK, GROUND = (208, 48, 40), (52, 56, 72), (236, 234, 226)


@dataclass(frozen=True)
class Rooms(Acting):
    """A dot moves in two rooms. A vertical wall with one door is between them, and its place is drawn per episode.

    The view is 1 x 1, x to the right, y down. An action is a move of at most SPEED per axis. The dot moves along x
    first, then along y, and stops at walls. Nothing is random after the start. `advance` and `picture` work on arrays
    of any library with NumPy's namespace (`__array_namespace__`), so a planner can compile them.

    Policies: "walk" turns a little at each step. "expert" goes through the door to random places, with noise. Probing:
    "press" goes to the wall and pushes towards the other room, half of the time in front of the door, else elsewhere.
    A single action does not tell where the door is, and those of the expert do.
    Tasks: "door" (the goal is in the other room), "room" (in the same room), "any". Goals are at least FAR away.

    Interventions: remove, insert (the twin does the same actions, dots pass through each other), and set of the dot's
    position, size and colour, or of the place of wall or door. A dot in a wall begins beside it. There is nothing to
    swap with.

    Args:
      look: "rgb", or "channels" (two channels: the dot, the walls).
      radius: of the dot, view widths.
      speed: of the action 1, view widths a frame.
      wall, door: ranges of the wall's x and of the door's y.
      ink: the dot's colour, 0 .. 255 (look "rgb").
      shown: number of first frames in which the door is visible. 0: always. Later the wall is drawn without a door.
    """

    look: str = "rgb"
    radius: float = 0.05
    speed: float = SPEED
    wall: tuple[float, float] = (0.35, 0.65)
    door: tuple[float, float] = (0.2, 0.8)
    shown: int = 0
    ink: tuple[int, int, int] = INK

    dos: ClassVar[tuple[str, ...]] = ("remove", "insert", "set")
    attributes: ClassVar[tuple[str, ...]] = ("position", "size", "colour", "wall", "door")
    room: ClassVar[tuple[float, float, float, float]] = (EDGE, EDGE, 1 - EDGE, 1 - EDGE)
    policies: ClassVar[tuple[str, ...]] = ("walk", "expert")
    probing: ClassVar[tuple[str, ...]] = ("press",)
    tasks: ClassVar[tuple[str, ...]] = ("door", "room", "any")
    compiles: ClassVar[bool] = True
    label_names: ClassVar[tuple[str, ...]] = ("dot/x", "dot/y", "wall/x", "door/y")
    state_names: ClassVar[tuple[str, ...]] = ("present", "position/x", "position/y", "wall/x", "door/y")
    proprio_names: ClassVar[tuple[str, ...]] = ("x", "y")

    def __post_init__(self):
        super().__post_init__()
        if self.look not in ("rgb", "channels"):
            raise ConfigError(f"data.options.look is {self.look!r}; it must be rgb or channels")
        for name, least, most in (("radius", 0.02, 0.1), ("speed", 0.01, 0.2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ConfigError(f"data.options.{name} is {value!r}; it must be within {least} and {most}")
        if isinstance(self.shown, bool) or not isinstance(self.shown, int) or self.shown < 0:
            raise ConfigError(f"data.options.shown is {self.shown!r}; it must be an integer of at least 0")
        ink = self.ink if isinstance(self.ink, tuple | list) else ()
        if [type(v) is int and 0 <= v <= 255 for v in ink] != [True] * 3:
            raise ConfigError(f"data.options.ink is {self.ink!r}; it must be three integers of 0 to 255")
        object.__setattr__(self, "ink", tuple(self.ink))
        if self.do == "set" and self.attribute == "colour" and self.look != "rgb":
            raise ConfigError("data.options.attribute is 'colour'; with data.options.look = 'channels' there is none")
        if self.do == "set" and self.attribute == "size" and self.value[0] > 0.1:
            raise ConfigError(f"data.options.value is {self.value!r}; the dot's radius must be at most 0.1")
        for name, least in (("wall", 0.3), ("door", 0.2)):
            limits = check_range(f"data.options.{name}", getattr(self, name), least, 1 - least)
            object.__setattr__(self, name, limits)

    @property
    def channels(self) -> int:
        """Of its pictures."""
        return 2 if self.look == "channels" else 3

    def first(self, rng: np.random.Generator) -> np.ndarray:
        """The dot anywhere in one of the rooms."""
        wall, gap = rng.uniform(*self.wall), rng.uniform(*self.door)
        return np.array([*self._place(rng, wall, rng.random() < 0.5), wall, gap])

    def _place(self, rng: np.random.Generator, wall: float, left: bool) -> np.ndarray:
        margin = EDGE + self.radius
        x = rng.uniform(margin, wall - margin) if left else rng.uniform(wall + margin, 1 - margin)
        return np.array([x, rng.uniform(margin, 1 - margin)])

    def goal(self, rng: np.random.Generator, task: str, start: np.ndarray) -> np.ndarray | None:
        """A place in the other room, in the same room, or in any."""
        left = bool(start[X] < start[WALL])
        side = {"door": not left, "room": left, "any": rng.random() < 0.5}[task]
        place = self._place(rng, start[WALL], side)
        return np.array([*place, *start[WALL:]]) if np.hypot(*(place - start[:WALL])) >= FAR else None

    def advance(self, states, actions):
        """The next states [..., 4]. An array of any library with NumPy's namespace."""
        xp = states.__array_namespace__()
        x, y, wall, gap = (states[..., k] for k in range(4))
        move, margin, half = self.speed * xp.clip(actions, -1, 1), EDGE + self.radius, DOOR - self.radius
        at_door, left = xp.abs(y - gap) <= half + SLACK, x < wall
        low = xp.where(at_door | left, margin, wall + margin)
        high = xp.where(at_door | ~left, 1 - margin, wall - margin)
        x = xp.clip(x + move[..., 0], low, high)
        inside = at_door & (xp.abs(x - wall) < margin - SLACK)
        low, high = xp.where(inside, gap - half, margin), xp.where(inside, gap + half, 1 - margin)
        return xp.stack([x, xp.clip(y + move[..., 1], low, high), wall, gap], -1)

    def picture(self, states, door: bool = True, below: tuple = ()):
        """Images uint8 [..., H, W, 3 or 2], anti-aliased, so that moves of less than a pixel are visible.

        below: states of further dots, which are drawn first.
        """
        xp = states.__array_namespace__()
        dots, bricks = [self._cover(each) for each in (*below, states)], self._walls(states, door)
        if self.look == "channels":
            dot = dots[-1]
            for other in dots[:-1]:
                dot = xp.maximum(dot, other)
            layers = xp.stack([dot, bricks], -1)
        else:
            ground, brick, ink = (xp.asarray(colour, dtype=bricks.dtype) for colour in (GROUND, BRICK, self.ink))
            layers = (ground + bricks[..., None] * (brick - ground)) / 255
            for dot in dots:
                layers = layers + dot[..., None] * (ink / 255 - layers)
        return xp.astype(xp.round(255 * layers), xp.uint8)

    def seen(self, states, frame: int):
        """Images without the door, but for the first `shown` frames."""
        return self.picture(states, door=not self.shown or 0 <= frame < self.shown)

    def _cover(self, states):
        """How much of each pixel the dot covers, 0 .. 1 [..., H, W]."""
        xp = states.__array_namespace__()
        pixel = (xp.arange(self.size, dtype=states.dtype) + 0.5) / self.size
        away = xp.hypot(pixel - states[..., X, None, None], pixel[:, None] - states[..., Y, None, None])
        return xp.clip(0.5 + (self.radius - away) * self.size, 0, 1)

    def _walls(self, states, door: bool):
        """How much of each pixel the walls cover, 0 .. 1 [..., H, W]."""
        xp = states.__array_namespace__()
        edges = xp.arange(self.size + 1, dtype=states.dtype) / self.size

        def within(low, high):  # the share of each pixel within an interval: [..., S]
            return xp.clip((xp.minimum(edges[1:], high) - xp.maximum(edges[:-1], low)) * self.size, 0, 1)

        wall, gap = states[..., WALL, None], states[..., GAP, None]
        inner = within(EDGE, 1 - EDGE)
        opened = within(gap - DOOR, gap + DOOR) * (1 if door else 0)
        rooms = inner[:, None] * (1 - within(wall - EDGE, wall + EDGE)[..., None, :] * (1 - opened[..., None]))
        return 1 - rooms * inner

    def away(self, states, goals):
        """The dot's distance from its goal in units of TOLERANCE."""
        xp = states.__array_namespace__()
        move = states[..., :WALL] - goals[..., :WALL]
        return xp.hypot(move[..., 0], move[..., 1]) / TOLERANCE

    def reached(self, states, goals):
        """Whether the dot is within TOLERANCE of its goal."""
        return self.away(states, goals) < 1

    def straight(self, states, goals):
        """The straight line, which ignores the wall. Slower moves than 1 near the goal."""
        xp = states.__array_namespace__()
        move = (goals[..., :WALL] - states[..., :WALL]) / self.speed
        return move / xp.maximum(1, xp.max(xp.abs(move), axis=-1, keepdims=True))

    def expert(self, states, goals):
        """To the door, through it, and to the goal."""
        xp = states.__array_namespace__()
        x, y, wall, gap = (states[..., k] for k in range(4))
        margin = EDGE + self.radius
        left, goal_left = x < wall, goals[..., X] < wall
        side = xp.where(left, -1, 1)
        at_door = xp.abs(y - gap) < (DOOR - self.radius) / 2
        inside = (xp.abs(x - wall) < margin - SLACK) & (xp.abs(y - gap) <= DOOR - self.radius + SLACK)
        out = xp.where(goal_left, wall - margin, wall + margin)  # beyond the door, on the goal's side
        through = inside | ((left != goal_left) & at_door)
        near = xp.where(through, out, wall + side * margin)  # else the door's face on the dot's side
        there = (left == goal_left) & ~inside
        target = xp.where(there[..., None], goals[..., :WALL], xp.stack([near, gap], -1))
        return self.straight(states, target)

    def behave(self, policy: str, rng: np.random.Generator, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """One episode's policy: "walk", "expert" or "press"."""
        if policy == "press":
            return self._press(rng, first)
        return self._walk(rng) if policy == "walk" else self._wander(rng, first)

    def _press(self, rng: np.random.Generator, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        wall, gap = first[WALL:]
        margin, height, way = EDGE + self.radius, 0.0, 0.0
        left = 0  # frames for which it still pushes. 0: it chooses a new height

        def draw() -> float:
            if rng.random() < 0.5:
                return gap + rng.uniform(-0.9, 0.9) * (DOOR - self.radius)
            while True:
                place = rng.uniform(margin, 1 - margin)
                if abs(place - gap) > DOOR:
                    return place

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal height, left, way
            height, left = (height, left) if left else (draw(), PUSHES)
            side = -1.0 if state[X] < wall else 1.0
            face = np.array([wall + side * margin, height, *first[WALL:]])
            there = np.abs(state[:WALL] - face[:WALL]).max() < 0.02 or abs(state[X] - wall) < margin - SLACK
            move = self.straight(state, face)
            if left < PUSHES or there:
                way, left = (-side if left == PUSHES else way), left - 1
                move = np.array([way, 0.0])
            return np.clip(move + rng.normal(0, 0.05, 2), -1, 1)

        return act

    def _walk(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        heading = rng.uniform(0, 2 * np.pi)

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal heading
            heading += rng.normal(0, 0.6)
            return rng.uniform(0.3, 1) * np.array([np.cos(heading), np.sin(heading)])

        return act

    def _wander(self, rng: np.random.Generator, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def draw() -> np.ndarray:
            return np.array([*self._place(rng, first[WALL], rng.random() < 0.5), *first[WALL:]])

        goal = draw()

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal goal
            if self.reached(state, goal):
                goal = draw()
            return np.clip(self.expert(state, goal) + rng.normal(0, self.noise, 2), -1, 1)

        return act

    def without(self, first: np.ndarray, actions: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """The rooms without the dot: nothing else moves."""
        return np.repeat(first[None], self.frames, 0)

    def parts(self, first: np.ndarray) -> Parts:
        """The dot."""
        zero, place = np.zeros(1), first[None, :WALL]
        bodies = Bodies(
            kind=np.full(1, DISC), half=np.full((1, 2), self.radius), position=place, angle=zero,
            velocity=np.zeros((1, 2)), spin=zero, mass=np.ones(1), layer=np.zeros(1, int),
        )  # fmt: skip
        return Parts(bodies, np.array([self.ink], float), wall=first[WALL, None], door=first[GAP, None])

    def under(self, first: np.ndarray, actions: np.ndarray, act: Done) -> dict[str, np.ndarray]:
        """The arrays of a clip of the changed dot, wall or door, or of the dot and its twins."""
        dot, (wall, gap), nothing = act.setup.bodies, (act.setup.wall[0], act.setup.door[0]), np.zeros(1, bool)
        ink = tuple(np.rint(act.setup.colour[0]).astype(int).tolist())
        world = replace(self, radius=float(dot.half[0, 0]), ink=ink, do="remove", attribute="", value=())
        starts = np.array([[*place, wall, gap] for place in dot.position])
        states = world.open_loop(world.advance(starts, np.zeros(2)), np.repeat(actions[None, :-1], len(starts), 0))
        return world.scene(states[0], nothing, below=tuple(states[1:]))

    def scene(self, states: np.ndarray, removed: np.ndarray, below: tuple = ()) -> dict[str, np.ndarray]:
        """The arrays of a clip. below: see `picture`."""
        gone, n = bool(removed[0]), self.shown or self.frames
        drawn = states + np.array([9.0 if gone else 0, 0, 0, 0])  # a removed dot is far outside the view
        shown, hidden = (tuple(each[part] for each in below) for part in (slice(n), slice(n, None)))
        video = np.concatenate([self.picture(drawn[:n], below=shown), self.picture(drawn[n:], False, hidden)])
        masks = (self._cover(drawn) > 0)[None]
        known = np.concatenate([np.ones((len(states), 1)), states], 1).astype(np.float32)[:, None] * (not gone)
        return {
            "video": np.ascontiguousarray(video), "masks": masks, "amodal": masks.copy(), "states": known,
            "proprio": known[:, 0, 1:3].copy(), "labels": self.labels(known),
        }  # fmt: skip

    def labels(self, states: np.ndarray) -> np.ndarray:
        """The dot's place, the wall's x and the door's y in the middle frame. 0 for a removed dot."""
        return states[len(states) // 2, 0, 1:].copy()
