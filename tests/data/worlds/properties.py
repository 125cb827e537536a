"""Checks that every world of rigid bodies has to pass."""

import cv2
import numpy as np

from cjepa_jax.data.worlds.base import World
from cjepa_jax.data.worlds.physics import MOVING, Bodies, moment, reached, simulate


def run(world: World, setup, removed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Motion and contacts."""
    removed = np.zeros(len(setup.colour), bool) if removed is None else removed
    return simulate(setup.bodies, setup.physics, world.frames, world.dt, removed)


def moves(bodies: Bodies) -> np.ndarray:
    return np.ones(len(bodies.kind), bool) if bodies.mode is None else bodies.mode == MOVING


def untouched_stay(world: World, scenes: range) -> tuple[int, int]:
    """Under every single removal, and of a random subset, all states are the same bits until a chain of contacts from
    the removed objects comes. Returns how many objects one reaches in the course of the clip, and how many none ever
    does."""
    later = never = 0
    for i in scenes:
        setup = world.setup(i)
        motion, contacts = run(world, setup)
        objects = len(setup.colour)
        subset = np.random.default_rng([19, i]).random((1, objects)) < 0.4
        for removed in np.concatenate([np.eye(objects, dtype=bool), subset]):
            other, more = run(world, setup, removed)
            assert not np.isin(np.nonzero(removed)[0], more[:, 2:]).any()
            time = reached(np.concatenate([contacts, more]), removed, setup.bodies.mode)
            same = np.arange(world.frames)[:, None] < time
            assert (motion[same] == other[same]).all(), f"scene {i} without {np.nonzero(removed)[0]}"
            later += int((np.isfinite(time) & (time > 1)).sum())
            never += int((np.isinf(time) & moves(setup.bodies)).sum())
    return later, never


def energy_never_rises(world: World, scenes: range, total: float) -> None:
    """Not above any earlier moment by more than `total` of the energy at the beginning, and not from frame to frame but
    for the integrator's own error, which in free flight is m g^2 h^2 / 2 in a step of h seconds, and for bodies
    that are pushed out of each other, 1 % of the energy at the beginning."""
    for i in scenes:
        setup = world.setup(i)
        bodies, gravity, (motion, _) = setup.bodies, setup.physics.gravity, run(world, setup)
        inertia = [moment(k, h, m) for k, h, m in zip(bodies.kind.tolist(), bodies.half, bodies.mass, strict=True)]
        each = bodies.mass * (motion[..., 3:5] ** 2).sum(-1) / 2 + np.array(inertia) * motion[..., 5] ** 2 / 2
        each = (each + bodies.mass * gravity * (1 - motion[..., 1])) * moves(bodies)
        energy, mass = each.sum(1), (bodies.mass * moves(bodies)).sum()
        steps = setup.physics.substeps
        error = mass * gravity**2 * (world.dt / steps) ** 2 / 2 * steps
        assert (np.diff(energy) <= error + 0.01 * energy[0]).all(), f"scene {i}"
        assert (energy - np.minimum.accumulate(energy)).max() <= total * energy[0], f"scene {i}"


def contacts_are_seen(world: World, scenes: range) -> int:
    """Objects are within two pixels of each other while they touch, and the graph is of who touches. Returns how many
    such frames there were."""
    seen, near = 0, np.ones((5, 5), np.uint8)
    for i in scenes:
        scene = world[i]
        amodal, touched = scene["amodal"].astype(np.uint8), np.zeros_like(scene["graph"])
        for first, last, a, b in scene["contacts"].tolist():
            if b < 0:
                continue
            a, b = int(a), int(b)
            touched[a, b] = touched[b, a] = True
            for t in range(int(np.ceil(first)), int(last) + 1):
                if first < t < last and amodal[a, t].any() and amodal[b, t].any():
                    assert (cv2.dilate(amodal[a, t], near) & amodal[b, t]).any(), f"scene {i}: {a} and {b} at {t}"
                    seen += 1
        assert np.array_equal(touched, scene["graph"])
    return seen


def final_places_are_the_states(world: World, scenes: range) -> None:
    """`outcomes` says where objects are at the end as `rollout` does, for all single removals."""
    for i in scenes:
        outcomes = world.outcomes(i)
        objects = len(outcomes.asked)
        assert outcomes.happens.shape == (objects + 1, objects) and outcomes.final.dtype == np.float32
        for row in range(objects + 1):
            scene = world.rollout(i, np.arange(objects) == row - 1)
            assert np.array_equal(scene["states"][-1, :, 1:3], outcomes.final[row])
            if row:
                assert not outcomes.happens[row, row - 1]


def cells(world: World, scenes: range) -> np.ndarray:
    """How many questions (asked object, another one removed) have each pair of answers, [with, without]."""
    count = np.zeros((2, 2), int)
    for i in scenes:
        asked, happens, *_ = world.outcomes(i)
        for k, j in zip(*np.nonzero(~np.eye(len(asked), dtype=bool) & asked), strict=True):
            count[int(happens[0, j]), int(happens[k + 1, j])] += 1
    return count
