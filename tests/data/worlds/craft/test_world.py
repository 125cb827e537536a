"""Craft: what happens in its scenes, what launchers do, events, held out combinations."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import Craft
from cjepa_jax.data.worlds.craft.layouts import BAR, BASKET, HELD, LAUNCHER, LAYOUTS, LIFT
from cjepa_jax.data.worlds.craft.world import ENTERS, LEAVES, PALETTE, SHAPES, TOUCHES_GROUND
from cjepa_jax.data.worlds.layout import DISC, JAR
from cjepa_jax.data.worlds.physics import DRIVEN, FIXED, MOVING, Bodies, Physics, reached, simulate
from cjepa_jax.errors import ConfigError
from tests.data.worlds import properties

FRAMES = 24


def run(world: Craft, setup, removed: np.ndarray):
    return simulate(setup.bodies, setup.physics, world.frames, world.dt, removed)


def column(world: Craft, states: np.ndarray, name: str) -> np.ndarray:
    return states[..., world.state_names.index(name)]


def test_names_are_unique_and_say_what_is_seen():
    world = Craft(size=64, frames=1)
    for i in range(100):
        setup = world.setup(i)
        names, movers = world.names(setup), np.nonzero(world.asked(setup))[0]
        assert len(set(names)) == len(names) and 4 <= len(movers) <= 5 and len(names) <= 9
        areas = column(world, world[i]["states"][0], "size/area") if i < 10 else None
        for k in movers:
            size, hue, shape = names[k].split()
            assert tuple(setup.colour[k]) == PALETTE[hue] and SHAPES[int(setup.bodies.kind[k])] == shape
            assert setup.large[k] == (size == "large")
            if i < 10:  # by area, for any shape
                small = [areas[j] for j in movers if names[j].startswith("small")]
                assert size == "small" or areas[k] > max(small, default=0)
        assert (setup.bodies.mode == MOVING).tolist() == (setup.role < 0).tolist()
        assert (setup.bodies.kind[setup.role == BASKET] == JAR).all() and (setup.role == BASKET).sum() == 1
        assert ((setup.bodies.mode == DRIVEN) == np.isin(setup.role, (BAR, LIFT))).all()


def test_scenes_hold_launches_turning_bars_rest_and_full_and_empty_baskets():
    world, seen = Craft(size=8, frames=32), []
    for i in range(60):
        scene, setup = world[i], world.setup(i)
        touched = {setup.role[int(k)] for k in scene["contacts"][:, 2:].ravel() if k >= 0}
        still = (scene["states"][0, setup.role < 0, 4:6] == 0).all(1)
        seen.append([LAUNCHER in touched, BAR in touched, LIFT in touched, still.any(), not still.all(),
                     (scene["events"][:, 1] == ENTERS).any(), setup.layout])  # fmt: skip
    seen = np.array(seen)
    assert (seen[:, :3].mean(0) > 0.05).all() and (seen[:, 3:5].mean(0) > 0.7).all()
    assert 0.4 < seen[:, 5].mean() < 0.9 and set(seen[:, 6]) == set(range(len(LAYOUTS)))


def test_untouched_objects_stay_bit_equal():
    """Also when fixtures, launchers and turning bars are removed."""
    world, same, changed = Craft(size=8, frames=FRAMES), 0, 0
    for i in range(60):
        setup = world.setup(i)
        count = len(setup.role)
        factual, contacts = run(world, setup, np.zeros(count, bool))
        removed = np.random.default_rng(i).random(count) < 0.25
        other, more = run(world, setup, removed)
        assert not np.isin(np.nonzero(removed)[0], more[:, 2:]).any()
        time = reached(np.concatenate([contacts, more]), removed, setup.bodies.mode)
        untouched = np.arange(FRAMES)[:, None] < time
        assert (factual[untouched] == other[untouched]).all(), f"scene {i}"
        same += (untouched & (time < np.inf)).sum()
        changed += (factual != other)[:, ~removed].any((0, 2)).sum()
    assert same > 100 and changed > 60


def test_every_single_removal_leaves_untouched_objects_bit_equal():
    later, never = properties.untouched_stay(Craft(size=8, frames=FRAMES), range(15))
    assert later > 50 and never > 50


def test_contacts_are_seen():
    assert properties.contacts_are_seen(Craft(size=64, frames=FRAMES), range(12)) > 300


def test_what_no_force_moves_goes_on_as_it_began():
    world = Craft(size=8, frames=6)
    for i in range(20):
        setup = world.setup(i)
        motion, _ = run(world, setup, np.zeros(len(setup.role), bool))
        bodies = setup.bodies
        fixed, driven = bodies.mode == FIXED, bodies.mode == DRIVEN
        assert (motion[:, fixed, :3] == motion[:1, fixed, :3]).all() and (motion[:, fixed, 3:] == 0).all()
        path = bodies.position + world.dt * np.arange(6)[:, None, None] * bodies.velocity
        np.testing.assert_allclose(motion[:, driven, :2], path[:, driven], atol=1e-12)


def test_a_launcher_kicks_from_its_time_on_and_never_when_removed():
    world, kicked = Craft(size=8, frames=16), []
    for i in range(100):
        setup = world.setup(i)
        if not len(setup.physics.pads):
            continue
        none, gone = np.zeros(len(setup.role), bool), setup.role == LAUNCHER
        idle = setup._replace(physics=setup.physics._replace(pads=np.zeros((0, 8))))
        motion, contacts = run(world, setup, none)
        calm, _ = run(world, idle, none)
        owner, time = setup.physics.pads[0, :2]
        step = round(time / world.dt * 8)  # that begins with the kick
        after = step // 8 + 1
        assert setup.role[int(owner)] == LAUNCHER and (motion[:after] == calm[:after]).all()
        assert all((a == b).all() for a, b in zip(run(world, setup, gone), run(world, idle, gone), strict=True))
        pairs = contacts[(contacts[:, 2] == owner) & (contacts[:, :2] == (step + 1) / 8).all(1), 3].astype(int)
        assert ((motion[after] != calm[after]).any(1)[setup.role < 0].any()) == (len(pairs) > 0)
        kicked += [motion[after, k, 4] < calm[after, k, 4] - 0.5 for k in pairs]
    assert len(kicked) >= 15 and np.mean(kicked) > 0.8  # some hit something at once


def test_contacts_tell_the_floor_from_the_other_walls():
    bodies = Bodies(
        np.array([DISC, DISC]), np.full((2, 2), 0.05), np.array([[0.3, 0.5], [0.7, 0.2]]), np.zeros(2),
        np.array([[-2.0, 0.0], [0.0, -1.0]]), np.zeros(2), np.ones(2), np.zeros(2, int),
    )  # fmt: skip
    physics = Physics(3.0, True, 0.3, 0.3, floor=True)
    _, contacts = simulate(bodies, physics, 12, 0.1, np.zeros(2, bool))
    assert contacts[contacts[:, 2] == 0, 3].tolist()[:2] == contacts[contacts[:, 2] == 1, 3].tolist()[:2] == [-1, -2]
    _, same = simulate(bodies, physics._replace(floor=False), 12, 0.1, np.zeros(2, bool))
    assert (same[:, :3] == contacts[:, :3]).all() and (same[:, 3] == -1).all()


def test_events_are_what_motion_and_contacts_say():
    world, kinds = Craft(size=8, frames=40), []
    for i in range(40):
        scene, setup = world[i], world.setup(i)
        assert (np.diff(scene["events"][:, 0]) >= 0).all() and (scene["contacts"][:, 3] >= -1).all()
        within = column(world, scene["states"], "inside") > 0
        entered = scene["events"][scene["events"][:, 1] == ENTERS]
        assert sorted(entered[:, 2]) == np.nonzero(within[-1])[0].tolist()
        for time, _, k in entered.astype(int):
            assert within[time:, k].all() and (time == 0 or not within[time - 1, k])
        ground = scene["events"][scene["events"][:, 1] == TOUCHES_GROUND]
        _, contacts = run(world, setup, np.zeros(len(setup.role), bool))
        assert np.array_equal(ground[:, ::2], contacts[contacts[:, 3] == -2][:, [0, 2]])
        for time, _, k in scene["events"][scene["events"][:, 1] == LEAVES].astype(int):
            assert setup.role[k] == LIFT and not 0 <= scene["states"][time, k, 1] <= 1
        kinds += scene["events"][:, 1].tolist()
    assert {ENTERS, TOUCHES_GROUND, LEAVES} == set(kinds)


def test_nothing_that_moves_leaves_the_view():
    world = Craft(size=8, frames=60)
    for i in range(15):
        states, setup = world[i]["states"], world.setup(i)
        centres = states[:, setup.role < 0, 1:3]
        assert ((centres > 0.03) & (centres < 0.97)).all()


def test_outcomes_are_what_happens_under_do():
    world, differ = Craft(size=8, frames=FRAMES), 0
    for i in range(12):
        outcomes, setup = world.outcomes(i), world.setup(i)
        assert (outcomes.asked == (setup.role < 0)).all() and not outcomes.happens[:, ~outcomes.asked].any()
        k = i % len(setup.role)
        scene = world.rollout(i, np.arange(len(setup.role)) == k)
        inside = column(world, scene["states"][-1], "inside")
        assert (outcomes.happens[k + 1] == (inside > 0)).all()
        assert (outcomes.final[k + 1] == scene["states"][-1, :, 1:3]).all()
        basket = np.nonzero(setup.role == BASKET)[0][0]
        assert not outcomes.happens[basket + 1].any()
        differ += (outcomes.happens[1:] != outcomes.happens[0]).any()
    assert differ > 3


def test_pixels_of_a_mask_have_the_objects_colour_or_its_marks():
    world = Craft(size=64, frames=2)
    for i in range(10):
        scene, setup = world[i], world.setup(i)
        for k, (colour, mark) in enumerate(zip(setup.colour, world.marks(setup), strict=True)):
            pixels = scene["video"][scene["masks"][k]]
            assert ((pixels == colour).all(-1) | (pixels == mark).all(-1)).all()


def combinations(split: str) -> tuple[set, set, set]:
    """The layouts, counts and (shape, colour) pairs of a split's first scenes."""
    setups = [Craft(split=split, hold_out=True).setup(i) for i in range(60)]
    pairs = {(int(k), int(h)) for s in setups for k, h in zip(s.bodies.kind, s.hue, strict=True) if h >= 0}
    return {s.layout for s in setups}, {int((s.role < 0).sum()) for s in setups}, pairs


def test_what_is_held_out_is_in_its_split_only():
    layouts, counts, pairs = combinations("train")
    assert layouts == set(range(len(LAYOUTS) - HELD)) and counts == {4, 5}
    assert len(pairs) == 3 * 5 and all((hue + 3 * kind) % 8 >= 3 for kind, hue in pairs)
    assert combinations("layout") == ({len(LAYOUTS) - 2, len(LAYOUTS) - 1}, counts, pairs)
    assert combinations("count") == (layouts, {6, 7}, pairs)
    novel = combinations("colour")
    assert novel[:2] == (layouts, counts) and len(novel[2]) == 3 * 3 and not novel[2] & pairs


@pytest.mark.parametrize(
    "options",
    [{"objects": (5, 3)}, {"objects": (1, 7)}, {"small": (0.05, 0.5)}, {"large": "big"}, {"dt": 0}, {"split": "count"}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Craft(**options)
