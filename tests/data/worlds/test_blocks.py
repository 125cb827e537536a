"""Blocks: stacks that are credible, what falls, what the splits hold out."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import Blocks
from cjepa_jax.data.worlds.blocks import GROUND, OVERLAP
from cjepa_jax.data.worlds.layout import BOX
from cjepa_jax.data.worlds.physics import Bodies, simulate
from cjepa_jax.errors import ConfigError
from tests.data.worlds import properties
from tests.data.worlds.test_layout import sectors

WORLD = Blocks(size=64, frames=16)


def tower(offsets: list[float], density: list[float]) -> np.ndarray:
    """The motion of blocks 0.2 wide and 0.12 high on each other with centres at 0.5 + offsets."""
    count, still = len(offsets), np.zeros(len(offsets))
    half, level = np.full((count, 2), (0.1, 0.06)), np.arange(count)
    place = np.stack([0.5 + np.array(offsets), GROUND - 0.06 - 0.12 * level + OVERLAP * (level + 1)], -1)
    mass = 0.024 * np.array(density)
    bodies = Bodies(np.full(count, BOX), half, place, still, np.zeros((count, 2)), still, mass, still.astype(int))
    physics = WORLD.setup(0).physics._replace(friction=0.5)
    return simulate(bodies, physics, 40, WORLD.dt, np.zeros(count, bool))[0]


@pytest.mark.parametrize(
    ("density", "most"), [([1] * 6, 1e-3), ([0.5, 2, 0.5, 2, 0.5, 2], 5e-3), ([0.5, 0.5, 0.5, 2, 2, 2], 5e-3)]
)
def test_a_stable_tower_stays(density, most):
    for offsets in ([0.0] * 6, [0.02, -0.03, 0.03, -0.02, 0.03, 0.0]):
        motion = tower(offsets, density)
        assert np.abs(motion[..., :2] - motion[0, :, :2]).max() < most
        assert np.abs(motion[20:, :, 3:]).max() < 0.01  # and has come to rest


def test_an_unstable_tower_falls():
    for offsets in ([0.0, 0.11], [0.0, 0.07, 0.14], [0.0, 0.05, 0.1, 0.15, 0.2]):
        motion = tower(offsets, [1] * len(offsets))
        assert motion[-1, -1, 1] - motion[0, -1, 1] > 0.06 and motion[-1, 0, 1] - motion[0, 0, 1] < 1e-3


def test_nothing_sinks_or_jitters():
    calm = 0
    for i in range(60):
        setup = WORLD.setup(i)
        motion, _ = properties.run(WORLD, setup)
        cos, sin = np.abs(np.cos(motion[..., 2])), np.abs(np.sin(motion[..., 2]))
        low = motion[..., 1] + sin * setup.bodies.half[:, 0] + cos * setup.bodies.half[:, 1]
        assert (low < GROUND + 0.021).all() and (low[0] < GROUND + 1e-3).all()
        moved = np.abs(motion[..., :2] - motion[0, :, :2]).max((1, 2))
        if moved[-1] < 1e-3:
            assert np.abs(motion[1:, :, 3:5]).max() < 0.02
            calm += 1
    assert calm > 10


def test_at_the_beginning_blocks_rest_on_what_is_below():
    for i in range(80):
        setup = WORLD.setup(i)
        low, high = (setup.bodies.position + side * setup.bodies.half for side in (-1, 1))
        shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # [K,K,2], negative: a gap
        np.fill_diagonal(shared[..., 0], -1)
        assert shared.min(-1).max() < 2 * OVERLAP
        motion, contacts = simulate(setup.bodies, setup.physics, 2, 1e-3, np.zeros(len(setup.colour), bool))
        assert np.abs(motion[1] - motion[0]).max() < 0.05
        for k, level in enumerate(setup.level.tolist()):
            others = {int(a + b - k) for _, _, a, b in contacts if k in (int(a), int(b))}
            assert (-1 in others) == (level == 0)
            assert level == 0 or any(j >= 0 and setup.level[j] == level - 1 for j in others)


def test_untouched_blocks_stay_bit_equal():
    """Contacts that last from the first step keep the solver's memory, a contact's own."""
    later, never = properties.untouched_stay(WORLD, range(60))
    assert later > 20 and never > 100


def test_energy_never_rises():
    properties.energy_never_rises(
        WORLD, range(60), 0.025
    )  # 2.2 % is the most in 1,000 scenes, the integrator's part too


def test_a_block_without_support_falls_freely():
    world, seen = Blocks(size=16, frames=3, dt=0.02), 0
    for i in range(40):
        setup = world.setup(i)
        below = setup.level == 0
        motion, contacts = properties.run(world, setup, below)
        free = ~below & ~np.isin(np.arange(len(below)), contacts[:, 2:])
        fall = setup.bodies.position[free, 1] + setup.physics.gravity * (2 * world.dt) ** 2 / 2
        np.testing.assert_allclose(motion[2, free, 1], fall, atol=3e-4)
        seen += int(free.sum())
    assert seen > 10


def test_contacts_are_seen():
    assert properties.contacts_are_seen(WORLD, range(15)) > 300


def test_outcomes_agree_with_the_states():
    properties.final_places_are_the_states(Blocks(size=8, frames=16), range(12))
    column = WORLD.state_names.index
    for i in range(12):
        states, happens, setup = WORLD[i]["states"], WORLD.outcomes(i).happens[0], WORLD.setup(i)
        drop = states[-1, :, column("position/y")] - states[0, :, column("position/y")]
        assert np.array_equal(happens, drop > states[0, :, column("size/height")] / 2)
        assert not happens[setup.level == 0].any() and np.array_equal(WORLD.asked(setup), setup.level > 0)


def test_all_four_pairs_of_answers_occur():
    count = properties.cells(WORLD, range(80))
    assert count.min() >= 5, count


def bridges(world: Blocks, i: int) -> bool:
    """Whether some block begins on two that stand on the ground."""
    setup = world.setup(i)
    contacts = world[i]["contacts"]
    at_once = contacts[(contacts[:, 0] <= 1 / setup.physics.substeps) & (contacts[:, 3] >= 0), 2:].astype(int)
    pairs = [(a, b) if setup.level[a] > setup.level[b] else (b, a) for a, b in at_once]
    below = [a for a, b in pairs if setup.level[a] == 1 and setup.level[b] == 0]
    return len(below) > len(set(below))


def test_what_the_splits_hold_out():
    options = {"size": 16, "frames": 2, "hold_out": True}
    train, bridged = Blocks(**options), Blocks(split="layout", **options)
    assert not any(bridges(train, i) for i in range(60)) and all(bridges(bridged, i) for i in range(60))
    assert any(bridges(Blocks(size=16, frames=2), i) for i in range(20))
    assert {len(Blocks(split="count", **options).setup(i).colour) for i in range(40)} == {7, 8}
    assert {len(train.setup(i).colour) for i in range(40)} == {3, 4, 5, 6}
    for world, held in ((train, False), (Blocks(split="colour", **options), True)):
        for i in range(40):
            assert (((sectors(world.setup(i).colour) + BOX) % 6 == 0) == held).all()


def test_a_split_of_bridges_needs_the_blocks_for_one():
    options = {"hold_out": True, "split": "layout", "size": 16, "frames": 2}
    for objects in ((1, 2), (2, 5)):
        with pytest.raises(ConfigError, match=r"data\.options\.objects is .* at least 3 .*'layout'") as error:
            Blocks(objects=objects, **options)
        assert "\n" not in str(error.value) and len(Blocks(**options | {"split": "train"}, objects=objects)[0]["masks"])
    assert all(bridges(Blocks(objects=(3, 3), **options), i) for i in range(10))


@pytest.mark.parametrize("options", [{"width": (0.3, 0.1)}, {"height": (0.0, 0.1)}, {"dt": 0.0}, {"objects": (0, 3)}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Blocks(**options)
