"""Push: Push-T, a disc pushes a T to a pose. The published environment's dynamics, rewritten from its constants."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pymunk

from cjepa_jax.data.worlds import draw
from cjepa_jax.data.worlds.acting import push_expert
from cjepa_jax.data.worlds.acting.base import Acting, Parts, Setup
from cjepa_jax.data.worlds.interventions import DOS, Done
from cjepa_jax.data.worlds.layout import CIRCLE, DISC
from cjepa_jax.data.worlds.physics import DRIVEN, FIXED, Bodies

VIEW = 512.0  # units of the published environment in a view width
WALLS = (5.0, 506.0)  # the four walls' axes. Their radius is 2
LOW, HIGH = (WALLS[0] + 2) / VIEW, (WALLS[1] - 2) / VIEW  # their inner sides, view widths
AGENT = 15.0  # the agent's radius
BAR = ((-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0))  # the T's parts, around the body's origin
STEM = ((-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0))
REACH = 125.0  # from the body's origin to the T's farthest point, and a little more
STIFF, DAMP, TICK, TICKS = 100.0, 20.0, 0.01, 10  # the agent's controller, and the physics steps of an action
STRIDE = 100.0  # units that the action 1 moves the agent's target
NEAR, TURNED = 20.0, np.pi / 9  # success: distance of (agent, block), and angle
OFFSET = 25  # frames between start and goal of a task
ENDING = (256.0, 256.0, np.pi / 4)  # the drawn target pose, not an episode's goal
INK, WOOD, MARK, GROUND = (65, 105, 225), (112, 128, 144), (144, 238, 144), (250, 250, 250)
COLOURS = (INK, WOOD)
HELD = 5  # frames for which the policy "held" keeps its action


class Table:
    """One simulation: a space with the walls, the agent and the block. The same inputs give the same bits.

    twins: further agents (0), which move as the agent does, and blocks (1): (0 or 1, place [2], angle) of each.
    """

    def __init__(self, state: np.ndarray, block: bool = True, twins: Sequence[tuple] = ()):
        self.space = pymunk.Space()
        self.space.damping = 0  # quasi-static: a block that is not pushed stops within a step
        low, high = WALLS
        corners = ((low, high), (low, low), (high, low), (high, high), (low, high))
        for a, b in zip(corners, corners[1:], strict=False):
            self.space.add(pymunk.Segment(self.space.static_body, a, b, 2))
        x, y, block_x, block_y, angle, vx, vy = (float(value) for value in state)
        self.agent = self._agent(x, y)
        self.agent.velocity = (vx, vy)
        self.block = self._block(block_x, block_y, angle, there=block)
        self.twins = [self._block(x, y, angle) if kind else self._agent(x, y) for kind, (x, y), angle in twins]
        self.copies = [body for body, (kind, *_) in zip(self.twins, twins, strict=True) if not kind]
        self.place = [x, y, vx, vy]

    def _agent(self, x: float, y: float) -> pymunk.Body:
        agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.space.add(agent, pymunk.Circle(agent, AGENT))
        agent.position = (float(x), float(y))
        return agent

    def _block(self, x: float, y: float, angle: float, there: bool = True) -> pymunk.Body:
        # Both parts' moment is that of the bar, and the centre of gravity is the mean of theirs, as published.
        block = pymunk.Body(1, 2 * pymunk.moment_for_poly(1, BAR))
        parts = [pymunk.Poly(block, part) for part in (BAR, STEM)]
        block.center_of_gravity = (parts[0].center_of_gravity + parts[1].center_of_gravity) / 2
        if there:
            self.space.add(block, *parts)
        block.angle = float(angle)  # before the position: it turns the body about its centre of gravity
        block.position = (float(x), float(y))
        return block

    def others(self) -> np.ndarray:
        """Place and angle of the twins, [n,3]."""
        return np.array([[*body.position, body.angle] for body in self.twins]).reshape(-1, 3)

    def step(self, action: np.ndarray) -> np.ndarray:
        """Ten physics steps under an action [2]: the next state [7]."""
        x, y, vx, vy = self.place
        ax, ay = (min(max(float(value), -1.0), 1.0) for value in action)
        to_x, to_y, agent, step = x + STRIDE * ax, y + STRIDE * ay, self.agent, self.space.step
        for _ in range(TICKS):
            vx += (STIFF * (to_x - x) - DAMP * vx) * TICK
            vy += (STIFF * (to_y - y) - DAMP * vy) * TICK
            agent.velocity = (vx, vy)
            for twin in self.copies:
                twin.velocity = (vx, vy)
            step(TICK)
            x, y = x + vx * TICK, y + vy * TICK
        self.place = [x, y, vx, vy]
        return np.array([x, y, *self.block.position, self.block.angle % (2 * np.pi), vx, vy])


@dataclass(frozen=True)
class Push(Acting):
    """An agent, a disc, pushes a T-shaped block over a table with walls: Push-T.

    A state is (agent x, y, block x, y, angle, agent velocity x, y) in the published units: 512 a view width, y down,
    angles 0 .. 2 pi. An action moves the target of the agent's controller by at most 100 units per axis from the
    agent's place, for 0.1 s. The block's place is that of the middle of the bar's free edge.

    Chipmunk's contact solver starts from the last impulses of each touching pair. No state holds them. So `advance`,
    which starts anew from each state, differs from a running simulation (`stepper`) while the two bodies touch: by less
    than 0.4 units in 9 of 10 steps of the published episodes, and by 6 at most.

    Policies: "weak" has a random target, near the agent and at most 100 units from the block per axis. "held" keeps
    each such action for five frames. Both push the block most of the time. "expert" pushes the block to a random pose,
    with noise.
    Tasks: "episode": the goal is what the policy "weak" reaches from the start after 25 frames. Success: agent and
    block together are within 20 units, and the angle within 20 degrees.

    Interventions: remove, insert, swap, and set of position and colour, of the agent's velocity or the block's angle. A
    twin of the agent moves as the agent does. Where a block would be inside a wall, it is moved off it first.

    Args:
      target: whether the published environment's fixed target pose is drawn.
    """

    target: bool = True

    dos: ClassVar[tuple[str, ...]] = DOS
    attributes: ClassVar[tuple[str, ...]] = ("position", "velocity", "angle", "colour")
    room: ClassVar[tuple[float, float, float, float]] = (LOW, LOW, HIGH, HIGH)
    policies: ClassVar[tuple[str, ...]] = ("weak", "held", "expert")
    tasks: ClassVar[tuple[str, ...]] = ("episode",)
    noise: ClassVar[float] = 0.1
    objects: ClassVar[int] = 2
    label_names: ClassVar[tuple[str, ...]] = ("agent/x", "agent/y", "block/x", "block/y", "angle/sin", "angle/cos")
    state_names: ClassVar[tuple[str, ...]] = (
        "present", "position/x", "position/y", "angle/sin", "angle/cos", "velocity/x", "velocity/y",
    )  # fmt: skip
    proprio_names: ClassVar[tuple[str, ...]] = ("x", "y", "velocity/x", "velocity/y")

    def first(self, rng: np.random.Generator) -> np.ndarray:
        """Agent and block anywhere, without overlap and within the walls."""
        while True:
            agent, block = rng.uniform(50, 450, 2), rng.uniform(WALLS[0] + REACH, WALLS[1] - REACH, 2)
            angle = rng.uniform(0, 2 * np.pi)
            if clearance(agent - block, angle) > AGENT + 1:
                return np.array([*agent, *block, angle, 0, 0])

    def stepper(self, firsts: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """One running simulation per state, each in a separate space."""
        firsts = np.asarray(firsts, float)
        tables = [Table(first) for first in firsts.reshape(-1, 7)]

        def step(actions: np.ndarray) -> np.ndarray:
            rows = zip(tables, np.reshape(actions, (-1, 2)), strict=True)
            return np.stack([table.step(action) for table, action in rows]).reshape(firsts.shape)

        return step

    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The next states [..., 7]. Each is simulated in a separate space."""
        return self.stepper(states)(actions)

    def goal(self, rng: np.random.Generator, task: str, start: np.ndarray) -> np.ndarray:
        """What the weak policy reaches after OFFSET frames."""
        act, step, state = self.behave("weak", rng, start), Table(start).step, start
        for _ in range(OFFSET):
            state = step(act(state))
        return state

    def _apart(self, states, goals):
        """The distance of (agent, block) in units of NEAR, and the angle between the blocks in units of TURNED."""
        xp = states.__array_namespace__()
        move = states[..., :4] - goals[..., :4]
        turned = xp.abs((states[..., 4] - goals[..., 4] + np.pi) % (2 * np.pi) - np.pi)
        return xp.sqrt((move * move).sum(-1)) / NEAR, turned / TURNED

    def away(self, states, goals):
        """The sum of both parts of the success rule, each in units of its limit. Arrays of any library with NumPy's."""
        moved, turned = self._apart(states, goals)
        return moved + turned

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The published rule: (agent, block) within NEAR units, and angles within TURNED."""
        moved, turned = self._apart(states, goals)
        return (moved < 1) & (turned < 1)

    def straight(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The agent along a straight line to its place in the goal. It ignores the block."""
        return np.clip((goals[..., :2] - states[..., :2]) / STRIDE, -1, 1)

    def expert(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The actions of push_expert."""
        rows = zip(np.reshape(states, (-1, 7)), np.reshape(goals, (-1, 7)), strict=True)
        return np.stack([push_expert.act(state, goal) for state, goal in rows]).reshape(*states.shape[:-1], 2)

    def behave(self, policy: str, rng: np.random.Generator, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """One episode's policy: "weak", "held" or "expert"."""
        kept, age = np.zeros(2), 0
        if policy == "expert":
            goal = self.first(rng)
            return lambda state: np.clip(push_expert.act(state, goal) + rng.normal(0, self.noise, 2), -1, 1)

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal kept, age
            if policy == "weak" or age % HELD == 0:
                target = state[:2] + rng.uniform(-STRIDE, STRIDE, 2)
                target = np.clip(target, state[2:4] - STRIDE, state[2:4] + STRIDE)
                kept = np.clip((target - state[:2]) / STRIDE, -1, 1)
            age += 1
            return kept

        return act

    def without(self, first: np.ndarray, actions: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """Without the block the agent moves the same. Without the agent the block rests."""
        if removed[0]:
            return np.repeat(first[None], self.frames, 0)
        step = Table(first, block=False).step
        return np.stack([first, *(step(action) for action in actions[:-1])])

    def parts(self, first: np.ndarray) -> Parts:
        """Agent and block. The block, as a disc around it, only says how much room it needs."""
        state = first.reshape(-1) / VIEW  # VIEW is a power of two: no bit is lost
        bodies = Bodies(
            kind=np.full(2, DISC), half=np.repeat([[AGENT], [REACH]], 2, 1) / VIEW, position=state[:4].reshape(2, 2),
            angle=np.array([0.0, first[4]]), velocity=np.array([state[5:], [0, 0]]), spin=np.zeros(2),
            mass=np.ones(2), layer=np.zeros(2, int), mode=np.array([DRIVEN, FIXED]),
        )  # fmt: skip
        return Parts(bodies, np.array([INK, WOOD], float))

    def changed(self, setup: Setup, chosen: np.ndarray) -> np.ndarray:
        """See World. The agent has no angle."""
        out = super().changed(setup, chosen)
        return out & [self.do != "set" or self.attribute != "angle", True]

    def under(self, first: np.ndarray, actions: np.ndarray, act: Done) -> dict[str, np.ndarray]:
        """The arrays of a clip of the changed agent and block, and their twins."""
        bodies = act.setup.bodies
        places = VIEW * bodies.position
        moved = [k for k in range(len(places)) if k > 1 or (places[k] != first[2 * k : 2 * k + 2]).any()]
        for k in [*moved, *([1] if bodies.angle[1] != first[4] else [])]:
            places[k] = _off_the_walls(places[k], bodies.angle[k], bool(act.stands_for[k]))
        state = np.array([*places[:2].ravel(), bodies.angle[1], *(VIEW * bodies.velocity[0])])
        twins = list(zip(act.stands_for[2:].tolist(), places[2:], bodies.angle[2:].tolist(), strict=True))
        table = Table(state, twins=twins)
        states, others = [state], [table.others()]
        for action in actions[:-1]:
            states.append(table.step(action))
            others.append(table.others())
        more = dict(colours=act.setup.colour, twins=(act.stands_for[2:], np.stack(others)))
        return self.scene(np.stack(states), np.zeros(2, bool), **more)

    def outlines(self, states: np.ndarray) -> list[list[np.ndarray]]:
        """The convex parts of agent and block in view widths: [T,V,2] each."""
        sin, cos = np.sin(states[:, 4]), np.cos(states[:, 4])
        turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        block = [np.einsum("tij,vj->tvi", turn, np.array(part)) + states[:, None, 2:4] for part in (BAR, STEM)]
        return [[(states[:, None, :2] + AGENT * CIRCLE) / VIEW], [part / VIEW for part in block]]

    def picture(self, states: np.ndarray) -> np.ndarray:
        """Images uint8 [..., H, W, 3]."""
        flat = np.asarray(states, float).reshape(-1, 7)
        parts = draw.outlines(self.outlines(flat), self.size)
        return self._paint(parts, [1, 0], COLOURS, len(flat)).reshape(*states.shape[:-1], self.size, self.size, 3)

    def _paint(self, parts: list[list[np.ndarray]], order: list[int], colours: Sequence, frames: int) -> np.ndarray:
        video = np.repeat(_ground(self.size, self.target)[None], frames, 0)
        for k in order:
            for part in parts[k]:
                for image, polygon in zip(video, part, strict=True):
                    draw.fill(image, polygon, colours[k])
        return video

    def scene(self, states: np.ndarray, removed: np.ndarray, colours: Sequence = COLOURS, twins: tuple = ((), ())):
        """The arrays of a clip.

        colours: of agent and block, and of the twins. twins: which object each stands for [n], and their place and
        angle [T,n,3]. They are drawn below their object, and have no row.
        """
        kinds, poses = twins
        shapes = self.outlines(states)
        for n, kind in enumerate(kinds):
            x, y, angle = poses[:, n].T
            shapes.append(self.outlines(np.stack([x, y, x, y, angle, 0 * x, 0 * x], -1))[kind])
        parts = draw.outlines(shapes, self.size)
        whose = [0, 1, *kinds]
        order = sorted((k for k in range(len(parts)) if k > 1 or not removed[k]), key=lambda k: (-whose[k], -k))
        masks, amodal = (of[:2] for of in draw.masks(parts, order, len(states), self.size))
        sin, cos, one = np.sin(states[:, 4]), np.cos(states[:, 4]), np.ones(len(states))
        agent = np.stack([one, *states[:, :2].T / VIEW, 0 * one, one, *states[:, 5:].T / VIEW], -1)
        block = np.stack([one, *states[:, 2:4].T / VIEW, sin, cos, 0 * one, 0 * one], -1)
        known = np.where(removed[:, None], 0, np.stack([agent, block], 1)).astype(np.float32)  # [T,2,S]
        video = self._paint(parts, order, np.rint(colours).tolist(), len(states))
        return {
            "video": video, "masks": masks, "amodal": amodal, "states": known,
            "proprio": np.ascontiguousarray(known[:, 0, [1, 2, 5, 6]]),
            "labels": self.labels(known),
        }  # fmt: skip

    def labels(self, states: np.ndarray) -> np.ndarray:
        """The places of agent and block and the block's angle in the middle frame. 0 for what is removed."""
        agent, block = states[len(states) // 2]
        return np.concatenate([agent[1:3], block[1:5]])


def clearance(place: np.ndarray, angle: float) -> float:
    """The distance of a point [2], relative to the block's place, from the T that is turned by `angle`. 0 inside."""
    sin, cos = np.sin(angle), np.cos(angle)
    own = np.array([cos * place[0] + sin * place[1], cos * place[1] - sin * place[0]])
    outside = [np.maximum(np.maximum(np.min(part, 0) - own, own - np.max(part, 0)), 0) for part in (BAR, STEM)]
    return min(float(np.hypot(*away)) for away in outside)


def _off_the_walls(place: np.ndarray, angle: float, block: bool) -> np.ndarray:
    """The nearest place [2] of the agent, or of a block with this angle, whose outline is within the walls."""
    points = np.array([*BAR, *STEM]) if block else AGENT * np.array([[-1.0, -1], [1, 1]])
    sin, cos = (np.sin(angle), np.cos(angle)) if block else (0.0, 1.0)
    points = points @ np.array([[cos, sin], [-sin, cos]])
    return np.clip(place, VIEW * LOW - points.min(0), VIEW * HIGH - points.max(0))


@functools.lru_cache(maxsize=8)
def _ground(size: int, target: bool) -> np.ndarray:
    """The table, uint8 [S,S,3]. Do not modify it."""
    image = np.full((size, size, 3), GROUND, np.uint8)
    if target:
        pose = np.array([[0, 0, *ENDING, 0, 0]])
        for part in draw.outlines(Push(size=size).outlines(pose), size)[1]:
            draw.fill(image, part[0], MARK)
    draw.frame(image, (WALLS[0] + 2) / VIEW, 0.6)
    return image
