"""A scripted expert for Push: it pushes the block at the outline's point that serves best, then takes its own place.

Without friction, and with a block that stops at once, a push along the inward normal n at r from the centre of gravity
moves the block along n and turns it, in the ratio of n to (r x n) / TURN^2. The expert takes the point whose ratio is
most in line with what is left to do. It knows the simulator's state and has no memory.
"""

import numpy as np

OUTLINE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
CENTRE = np.array([0.0, 45.0])  # the centre of gravity from the body's origin
TURN = 3000**0.5  # units per radian: the square root of moment over mass
AGENT, STRIDE = 15.0, 100.0  # the agent's radius, and what the action 1 moves its target
ORBIT = 106.0  # distance from the centre of gravity at which the agent passes around the block
PLACED, TURNED = 5.0, 0.08  # errors of the block that are left: units and radians
LIMITS = (22.0, 489.0)  # of the agent's place: the walls' inner sides and its radius


def _contacts(spacing: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Points on the outline relative to the centre of gravity, and the inward normals: [P,2] each."""
    points, normals = [], []
    for a, b in zip(OUTLINE, np.roll(OUTLINE, -1, 0), strict=True):
        length = np.linalg.norm(b - a)
        count = int(length // spacing)
        points.append(a + (np.arange(count) + 0.5)[:, None] / count * (b - a) - CENTRE)
        normals.append(np.tile(np.array([a[1] - b[1], b[0] - a[0]]) / length, (count, 1)))
    return np.concatenate(points), np.concatenate(normals)


POINTS, NORMALS = _contacts()
TORQUE = (POINTS[:, 0] * NORMALS[:, 1] - POINTS[:, 1] * NORMALS[:, 0]) / TURN
PUSHES = np.concatenate([NORMALS, TORQUE[:, None]], 1)  # [P,3] move x, y and turn, all in units
SIZES = np.linalg.norm(PUSHES, axis=1)


def act(state: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The action [2] in a state [7] for a goal [7]."""
    agent, turn = state[:2], rotation(state[4])
    centre, wanted = state[2:4] + turn @ CENTRE, goal[2:4] + rotation(goal[4]) @ CENTRE
    move, around = wanted - centre, (goal[4] - state[4] + np.pi) % (2 * np.pi) - np.pi
    if np.linalg.norm(move) < PLACED and abs(around) < TURNED:
        return travel(agent, goal[:2], centre, state[5:])
    left = np.array([*(turn.T @ move), TURN * around])
    value = PUSHES @ left / SIZES / np.linalg.norm(left)
    away = np.linalg.norm(POINTS - AGENT * NORMALS - turn.T @ (agent - centre), axis=1)
    best = int(np.argmax(value - 0.0015 * away))  # near points first: the choice does not change at each step
    point, inward = centre + turn @ POINTS[best], turn @ NORMALS[best]
    tangent, offset = np.array([-inward[1], inward[0]]), agent - point
    depth, side = -offset @ inward, offset @ tangent
    if not (AGENT - 4 < depth < AGENT + 14 and abs(side) < 9):
        return travel(agent, point - inward * (AGENT + 6), centre, state[5:])
    amount = np.clip(0.6 * (PUSHES[best] @ left) / SIZES[best] ** 2 + depth - AGENT, 4, 30)
    return np.clip((inward * amount - 0.5 * side * tangent) * 2.2 / STRIDE, -1, 1)


def travel(agent: np.ndarray, target: np.ndarray, centre: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Towards a target, on a circle around the block where the straight way crosses it."""
    start, end = agent - centre, target - centre
    near, way = np.linalg.norm(start), end - start
    share = np.clip(-(start @ way) / max(way @ way, 1e-9), 0, 1)  # of the way, where it is nearest to the block
    heading = np.arctan2(start[1], start[0])
    turn = (np.arctan2(end[1], end[0]) - heading + np.pi) % (2 * np.pi) - np.pi
    if np.linalg.norm(start + share * way) > ORBIT - 8 or abs(turn) < 0.35:
        aim = target
    elif near < ORBIT - 12:
        aim = centre + start / max(near, 1e-9) * (ORBIT + 8)
    else:
        heading += np.clip(turn, -0.6, 0.6)
        aim = centre + ORBIT * np.array([np.cos(heading), np.sin(heading)])
    return np.clip(((np.clip(aim, *LIMITS) - agent) * 2.4 - 0.08 * velocity) / STRIDE, -1, 1)


def rotation(angle: float) -> np.ndarray:
    """The matrix [2,2] of a turn, clockwise as seen (y is down)."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
