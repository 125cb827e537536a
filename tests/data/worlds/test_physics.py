"""Conservation laws, and the promise that a removed body changes nothing that no contact chain reaches."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls, Blocks, physics
from cjepa_jax.data.worlds.layout import BOX, DISC
from cjepa_jax.data.worlds.physics import FIXED, MOVING, WALL, Bodies, Physics, graph, reached, simulate

FRAMES, DT = 12, 0.1


def run(world: Balls, i: int, removed=None):
    setup = world.setup(i)
    removed = np.zeros(len(setup.depth), bool) if removed is None else removed
    return setup, *simulate(setup.bodies, setup.physics, FRAMES, DT, removed)


def inertia(bodies: Bodies) -> np.ndarray:
    half = bodies.half
    return bodies.mass * np.where(bodies.kind == BOX, (half**2).sum(1) / 3, half[:, 0] ** 2 / 2)


def kinetic(bodies: Bodies, motion: np.ndarray) -> np.ndarray:
    moving = bodies.mass * (motion[..., 3:5] ** 2).sum(-1) / 2
    return (moving + inertia(bodies) * motion[..., 5] ** 2 / 2).sum(1)


def test_momentum_and_energy_without_walls_and_gravity():
    world = Balls(walls=False, gravity=False, foreground=0.0)
    met = 0
    for i in range(60):
        setup, motion, contacts = run(world, i)
        momentum = (setup.bodies.mass[:, None] * motion[..., 3:5]).sum(1)
        scale = (setup.bodies.mass[:, None] * np.abs(motion[0, :, 3:5])).sum()
        np.testing.assert_allclose(momentum, np.broadcast_to(momentum[0], momentum.shape), atol=1e-12 * scale)
        energy = kinetic(setup.bodies, motion)
        assert (np.diff(energy) <= 1e-12 * energy[0]).all()
        met += bool(len(contacts)) and energy[-1] < energy[0] * (1 - 1e-6)
    assert met > 20  # collisions happened and, being inelastic, took energy


@pytest.mark.parametrize(("friction", "substeps", "most"), [(0.0, 16, 1e-3), (0.0, 256, 5e-6), (None, 16, 0.01)])
def test_angular_momentum_without_walls_and_gravity(friction, substeps, most):
    """About the origin, spins included. Up to the depth to which bodies enter each other within a step, by which the
    solver pushes them apart again and by which the points differ where friction pulls at the two."""
    world = Balls(walls=False, gravity=False, foreground=0.0)
    traded = 0
    for i in range(40):
        setup = world.setup(i)
        bodies, physics = setup.bodies, setup.physics._replace(substeps=substeps)
        physics = physics if friction is None else physics._replace(friction=friction)
        motion, _ = simulate(bodies, physics, FRAMES, DT, np.zeros(len(setup.depth), bool))
        x, y, _, vx, vy, spin = np.moveaxis(motion, -1, 0)
        each = bodies.mass * (x * vy - y * vx) + inertia(bodies) * spin
        total, scale = each.sum(1), np.abs(each[0]).sum()
        assert np.abs(total - total[0]).max() <= most * scale, f"scene {i}"
        traded += np.abs(each - each[0]).max() > 0.05 * scale
    assert traded > 15


def test_two_elastic_discs_swap_their_velocities():
    two = np.zeros(2)
    bodies = Bodies(
        np.array([DISC, DISC]), np.full((2, 2), 0.1), np.array([[0.3, 0.5], [0.7, 0.5]]), two,
        np.array([[1.0, 0.0], [0.0, 0.0]]), two, np.ones(2), np.zeros(2, int),
    )  # fmt: skip
    motion, contacts = simulate(bodies, Physics(0.0, False, 1.0, 0.0), 6, DT, np.zeros(2, bool))
    np.testing.assert_allclose(motion[-1, :, 3:5], [[0, 0], [1, 0]], atol=1e-12)
    assert contacts.shape == (1, 4) and contacts[0, 2:].tolist() == [0, 1]
    assert 2.0 <= contacts[0, 0] <= 2.2  # a gap of 0.2 at speed 1 and 0.1 s a frame


def test_free_fall_and_walls():
    one = Bodies(
        np.array([DISC]), np.full((1, 2), 0.1), np.array([[0.5, 0.3]]), np.zeros(1),
        np.zeros((1, 2)), np.zeros(1), np.ones(1), np.zeros(1, int),
    )  # fmt: skip
    motion, contacts = simulate(one, Physics(2.0, True, 0.8, 0.0), 30, DT, np.zeros(1, bool))
    np.testing.assert_allclose(motion[3, 0, [1, 4]], [0.3 + 0.09, 0.6], atol=0.01)  # g t^2 / 2, g t
    assert motion[:, 0, 1].max() < 1 - WALL - 0.1 + 0.03 and (contacts[:, 2:] == (0, -1)).all() and len(contacts) >= 1
    height = 1 - WALL - 0.1 - 0.3  # of the fall, which takes 7.5 frames. It rises again to 0.8^2 of that
    assert motion[8:20, 0, 1].min() == pytest.approx(1 - WALL - 0.1 - 0.64 * height, abs=0.015)


@pytest.mark.parametrize(
    "options",
    [{}, {"objects": (8, 12), "radius": (0.04, 0.09)}, {"objects": (6, 6), "gravity": True, "walls": True}],
    ids=["default", "crowd", "pile"],
)
def test_untouched_bodies_stay_bit_equal(options):
    world, same, changed = Balls(**options), 0, 0
    for i in range(120):
        setup, factual, contacts = run(world, i)
        removed = np.random.default_rng(i).random(len(setup.depth)) < 0.3
        _, other, more = run(world, i, removed)
        assert not np.isin(np.nonzero(removed)[0], more[:, 2:]).any()
        time = reached(np.concatenate([contacts, more]), removed)
        untouched = np.arange(FRAMES)[:, None] < time
        assert (factual[untouched] == other[untouched]).all(), f"scene {i}"
        same += (untouched & (time < np.inf)).sum()
        changed += (factual != other)[:, ~removed].any((0, 2)).sum()
    assert same > 100 and changed > 100  # bodies that are reached later, and bodies that did change


def test_events_do_not_change_the_motion():
    for i in range(20):
        setup, motion, _ = run(Balls(), i)
        none = np.zeros(len(setup.depth), bool)
        quiet, contacts = simulate(setup.bodies, setup.physics, FRAMES, DT, none, events=False)
        assert (quiet == motion).all() and contacts.shape == (0, 4)


def test_contacts_are_ordered_and_within_the_clip():
    for i in range(40):
        setup, _, contacts = run(Balls(), i)
        first, last, a, b = contacts.T
        assert contacts.dtype == np.float32 and (np.diff(first) >= 0).all()
        assert ((0 < first) & (first <= last) & (last <= FRAMES - 1)).all()
        assert ((0 <= a) & (a < len(setup.depth)) & ((b == -1) | (a < b))).all()
        layer = setup.bodies.layer
        assert all(layer[int(x)] == layer[int(y)] for x, y in zip(a, b, strict=True) if y >= 0)


def test_reached_follows_chains_of_contacts_in_time():
    """0 is removed. It would have met 1 from 1 to 2; 1 meets 2 at 3 and 3 before that; 4 does not move; 5 met 4."""
    removed = np.arange(6) == 0
    contacts = np.array([[1, 2, 0, 1], [0, 0.5, 1, 3], [3, 4, 1, 2], [2, 5, 1, 4], [4, 5, 4, 5], [0, 9, -1, 2]])
    contacts = np.array([row if row[2] >= 0 else [row[0], row[1], row[3], -1] for row in contacts], np.float32)
    mode = np.where(np.arange(6) == 4, FIXED, MOVING)
    assert reached(contacts, removed, mode).tolist() == [0, 1, 3, np.inf, np.inf, np.inf]
    assert reached(contacts, removed).tolist() == [0, 1, 3, np.inf, 2, 4]


def test_the_contact_graph_is_symmetric_and_leaves_walls_out():
    contacts = np.array([[0, 1, 0, 2], [1, 2, 1, -1], [2, 3, 1, -2]], np.float32)
    expected = np.zeros((3, 3), bool)
    expected[0, 2] = expected[2, 0] = True
    np.testing.assert_array_equal(graph(contacts, 3), expected)


def test_contacts_after_a_frame_begin_after_it_or_outlast_its_next_step():
    """At 4 steps a frame, from frame 2 (step 8) on. A pad's contact begins and ends in one step."""
    steps = np.array([[1, 8], [1, 9], [1, 10], [8, 9], [9, 9], [9, 12], [12, 40]], np.float32)
    contacts = np.concatenate([steps / 4, np.zeros((7, 1)), np.arange(1, 8)[:, None]], 1).astype(np.float32)
    assert physics.after(contacts, 2, 4)[:, 3].tolist() == [3, 5, 6, 7]
    assert len(physics.after(contacts[:0], 2, 4)) == 0


@pytest.mark.parametrize(
    "world,least",  # blocks fall on each other at the end, so no pair has touched before alone
    [(Balls(size=16, dt=0.04, frames=18, count=30), 3), (Blocks(size=16, frames=12, count=30), 0)],
)
def test_who_touches_after_a_frame_is_who_touches_in_a_simulation_from_it(world, least):
    fewer = touching = 0
    for i in range(30):
        scene = world[i]
        found = world.touched(i, 3, scene["contacts"])
        np.testing.assert_array_equal(found, world.influence(i, 3)[1])
        fewer += int((scene["graph"] & ~found).any())
        touching += int(found.any())
    assert fewer >= least and touching > 10
