"""do(insert), do(swap) and do(set) in worlds with actions: what changes at the start, and that nothing else does."""

import functools

import numpy as np
import pytest

from cjepa_jax.data.kinds.episodes import EpisodeMap
from cjepa_jax.data.worlds import physics
from cjepa_jax.data.worlds.acting import Nudge, Push, Rooms
from cjepa_jax.data.worlds.acting import nudge as of_nudge
from cjepa_jax.data.worlds.acting.nudge import COLUMNS, VELOCITY
from cjepa_jax.data.worlds.acting.push import STEM, VIEW, WALLS, Table
from cjepa_jax.data.worlds.acting.rooms import DOOR, EDGE, GAP, WALL, X, Y
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.counterfactual import pairs
from cjepa_jax.masks import objects

SMALL = dict(size=32, frames=8)
SETS = {
    Rooms: {"position": (0.2, 0.4), "size": 0.08, "colour": (0.0, 0.0, 1.0), "wall": 0.4, "door": 0.3},
    Nudge: {"position": (0.5, 0.4), "velocity": (0.5, -0.25), "spin": 2.0, "mass": 3.0, "size": 0.06,
            "colour": (0.0, 1.0, 0.2)},
    Push: {"position": (0.3, 0.6), "velocity": (0.5, 0.25), "angle": 1.0, "colour": (0.0, 1.0, 0.2)},
}  # fmt: skip
WORLDS = [(cls, dict(do=do)) for cls in SETS for do in cls.dos if do != "set"]
WORLDS += [(cls, dict(do="set", attribute=name, value=value)) for cls, of in SETS.items() for name, value in of.items()]
NAMED = pytest.mark.parametrize(("cls", "options"), WORLDS, ids=lambda value: getattr(value, "__name__", str(value)))


@functools.cache
def scene(cls, i):
    return cls(**SMALL)[i]


def one(cls, k=0):
    return np.arange(cls(**SMALL).objects) == k


def touches(world, setup, act):
    """The contacts [C,4] of the discs of Nudge, in frames: each frame is simulated again."""
    rows = setup.first.reshape(-1, COLUMNS) if act is None else None
    _, actions = world.trajectory(setup)
    bodies = of_nudge._bodies(rows) if act is None else act.setup.bodies
    agents = [0] if act is None else np.flatnonzero(act.stands_for == 0).tolist()
    found, removed = [], np.zeros(len(bodies.kind), bool) if act is None else act.removed
    for t, action in enumerate(actions[:-1]):
        velocity = bodies.velocity.copy()
        for k in agents:
            velocity[k] += of_nudge.PUSH * np.clip(action, -1, 1)
            velocity[k] *= min(1, of_nudge.FASTEST / max(np.linalg.norm(velocity[k]), 1e-9))
        pushed = bodies._replace(velocity=velocity)
        motion, contacts = physics.simulate(pushed, of_nudge.PHYSICS, 2, world.dt, removed)
        found.append(contacts + np.array([t, t, 0, 0], np.float32))
        x, y, angle, vx, vy, spin = motion[1].T
        state = dict(position=np.stack([x, y], -1), angle=angle, velocity=np.stack([vx, vy], -1), spin=spin)
        bodies = bodies._replace(**state)
    return np.concatenate(found), bodies.position


@NAMED
def test_the_scene_itself_is_the_same_and_arrays_keep_their_shapes(cls, options):
    world, changed = cls(**SMALL, **options), 0
    for i in range(6):
        factual, k = scene(cls, i), i % world.objects
        assert all(np.array_equal(factual[key], world[i][key]) for key in factual)
        other = world.rollout(i, one(cls, k))
        assert {key: other[key].shape for key in other} == {key: factual[key].shape for key in factual}
        assert np.array_equal(other["actions"], factual["actions"])
        assert np.array_equal(world.intervene(i, one(cls, k)), other["video"])
        assert not (other["masks"] & ~other["amodal"]).any()
        may = world.changed(world.setup(i), one(cls, k))
        same = np.array_equal(other["states"][0, ~may], factual["states"][0, ~may])
        assert same, "what is not changed begins the same"
        changed += (other["video"] != factual["video"]).any() and may.any()
    assert changed >= (0 if options.get("attribute") in ("spin", "mass") else 2)


@pytest.mark.parametrize("options", [options for cls, options in WORLDS if cls is Nudge], ids=str)
def test_discs_that_no_chain_of_contacts_reaches_keep_every_bit(options):
    world, kept = Nudge(**SMALL, balls=5, **options), 0
    plain = Nudge(**SMALL, balls=5)
    for i in range(12):
        setup, chosen = world.setup(i), np.arange(5) == i % 5
        factual, other = plain[i], world.rollout(i, chosen)
        contacts, final = touches(plain, setup, None)
        np.testing.assert_array_equal(final.astype(np.float32), factual["states"][-1, :, 1:3])
        act = world.done(world.parts(setup.first), chosen)
        after, final = touches(world, setup, act)
        still = ~act.removed[:5]
        np.testing.assert_array_equal(final[:5][still].astype(np.float32), other["states"][-1, still, 1:3])
        bodies = after[:, 2:] >= 0
        after[:, 2:][bodies] = act.stands_for[after[:, 2:][bodies].astype(int)]
        free = np.isinf(physics.reached(np.concatenate([contacts, after]), world.changed(setup, chosen)))
        assert np.array_equal(factual["states"][:, free], other["states"][:, free])
        kept += free.sum()
    assert kept > 10


def test_a_re_simulation_from_the_changed_state_is_the_scene():
    """Rooms and Nudge have no memory: the first frame of the intervened scene decides all later ones."""
    for cls, options in [(cls, options) for cls, options in WORLDS if cls is not Push and options["do"] != "insert"]:
        world = cls(**SMALL, **options)
        for i in range(3):
            setup = world.setup(i)
            _, actions = world.trajectory(setup)
            if cls is Rooms and options["do"] == "set":
                known = world.rollout(i, one(cls))["states"][:, 0, 1:]
                plain = Rooms(**SMALL, **({"radius": 0.08} if options["attribute"] == "size" else {}))
                np.testing.assert_allclose(plain.open_loop(known[0].astype(float), actions[:-1]), known, atol=1e-6)
            if cls is Nudge and options["do"] == "swap":
                rows = setup.first.reshape(-1, COLUMNS).copy()
                rows[[0, 1], :2] = rows[[1, 0], :2]
                low = physics.WALL + rows[:2, 6:7]  # off the walls
                rows[:2, :2] = np.clip(rows[:2, :2], low, 1 - low)
                expected = Nudge(**SMALL).open_loop(rows.ravel(), actions[:-1]).reshape(8, 3, COLUMNS)
                other = world.rollout(i, np.array([True, True, False]))["states"]
                np.testing.assert_array_equal(other[..., 1:3], expected[..., :2].astype(np.float32))


def test_exchanged_discs_begin_off_the_walls_and_the_others_where_they_were():
    world, inside = Nudge(**SMALL, size_range=(0.04, 0.15), do="swap"), 0
    for i in range(24):
        rows, chosen = world.setup(i).first.reshape(-1, COLUMNS), np.array([True, True, False])
        first = world.rollout(i, chosen)["states"][0]
        low = np.float32(physics.WALL + rows[:, 6:7])
        assert (first[:, 1:3] >= low).all() and (first[:, 1:3] <= 1 - low).all()
        exchanged = rows[[1, 0, 2], :2]
        clear = ((exchanged >= low) & (exchanged <= 1 - low)).all(1)
        np.testing.assert_array_equal(first[clear, 1:3], exchanged[clear].astype(np.float32))
        inside += (~clear).sum()
    assert inside > 2


def test_set_changes_one_factor_of_the_chosen_disc_at_the_start():
    names = {"position": [1, 2], "velocity": [3, 4], "size": [5], "mass": [6]}
    for attribute, value in SETS[Nudge].items():
        world = Nudge(**SMALL, do="set", attribute=attribute, value=value)
        for i in range(4):
            wanted, other = scene(Nudge, i)["states"][0].copy(), world.rollout(i, one(Nudge, 1))["states"][0]
            for n, column in enumerate(names.get(attribute, [])):
                wanted[1, column] = wanted[1, column] * 3 if attribute == "mass" else np.ravel(value)[n]
            np.testing.assert_allclose(other, wanted, atol=1e-6)
    drawn = Nudge(**SMALL | dict(size=64), do="set", attribute="colour", value=(0, 1, 0)).intervene(0, one(Nudge, 1))
    place = (64 * scene(Nudge, 0)["states"][0, 1, 1:3]).astype(int)
    assert drawn[0, place[1], place[0]].tolist() == [0, 255, 0]


def test_a_twin_of_the_agent_does_its_actions_and_a_twin_of_another_disc_rests():
    world = Nudge(**SMALL, do="insert")
    for i in range(4):
        setup = world.setup(i)
        _, actions = world.trajectory(setup)
        for k in (0, 2):
            act = world.done(world.parts(setup.first), one(Nudge, k))
            assert act.stands_for.tolist() == [0, 1, 2, k]
            rows = setup.first.reshape(-1, COLUMNS)[act.stands_for]
            rows[:, :2] = act.setup.bodies.position
            agents = (0, 3) if k == 0 else (0,)
            moved = world._step(rows, actions[0], np.zeros(4, bool), agents)
            if k == 0:
                assert moved[3, VELOCITY].any()
                np.testing.assert_allclose(np.abs(moved[3, VELOCITY]) > 0, np.abs(actions[0]) > 0)
            else:
                assert not moved[3, VELOCITY].any()
            assert np.linalg.norm(rows[3, :2] - rows[:3, :2], axis=1).min() > 0.1


def test_in_rooms_a_twin_changes_pixels_alone_and_a_door_changes_the_path_where_it_blocks():
    factual, blocked = [scene(Rooms, i) for i in range(8)], 0
    twin = Rooms(**SMALL, do="insert")
    for i, one_scene in enumerate(factual):
        other = twin.rollout(i, one(Rooms))
        assert np.array_equal(other["states"], one_scene["states"])
        assert np.array_equal(other["masks"], one_scene["masks"])
        new = (other["video"] != one_scene["video"]).any(-1)
        assert new.any((1, 2)).all() and not (new & one_scene["masks"][0]).any()
    world = Rooms(size=32, frames=40, policy="door", do="set", attribute="door", value=0.2)
    for i in range(8):
        free, other = world[i]["states"][:, 0], world.rollout(i, one(Rooms))["states"][:, 0]
        assert (other[:, 1 + GAP] == np.float32(0.2)).all() and (other[:, 1 + WALL] == free[:, 1 + WALL]).all()
        through = np.abs(other[:, 1 + X] - other[:, 1 + WALL]) < EDGE
        assert (np.abs(other[through, 1 + Y] - 0.2) < DOOR).all()
        same = int(np.argmax((free[:, 1:3] != other[:, 1:3]).any(1))) if (free[:, 1:3] != other[:, 1:3]).any() else 40
        assert np.array_equal(free[:same, 1:3], other[:same, 1:3])
        blocked += same < 40
    assert blocked > 3


def test_a_dot_in_a_wall_begins_beside_it():
    world = Rooms(size=32, frames=3, do="set", attribute="position", value=(0.5, 0.5), wall=(0.5, 0.5), door=(0.2, 0.2))
    first = world.rollout(0, one(Rooms))["states"][0, 0]
    np.testing.assert_allclose(first[1:], [0.5 + EDGE + 0.05, 0.5, 0.5, 0.2], atol=1e-6)


def test_in_push_agent_and_block_exchange_their_places_within_the_walls():
    world = Push(**SMALL, do="swap")
    for i in range(6):
        first = world.setup(i).first
        other = world.rollout(i, one(Push))["states"][0]
        np.testing.assert_allclose(VIEW * other[0, 1:3], first[2:4], atol=1e-3)
        block = VIEW * other[1, 1:3]
        turn = np.array([[np.cos(first[4]), -np.sin(first[4])], [np.sin(first[4]), np.cos(first[4])]])
        tip = block + turn @ np.array(STEM[2])
        assert (tip > WALLS[0]).all() and (tip < WALLS[1]).all()
        inside = (first[:2] > 140).all() and (first[:2] < 370).all()
        assert not inside or np.allclose(block, first[:2], atol=1e-3)


def test_in_push_twins_are_further_bodies_of_one_simulation():
    world = Push(**SMALL | dict(frames=20), do="insert")
    for i in range(4):
        setup = world.setup(i)
        _, actions = world.trajectory(setup)
        for k in (0, 1):
            other = world.rollout(i, one(Push, k))
            act = world.done(world.parts(setup.first), one(Push, k))
            place = VIEW * act.setup.bodies.position[2]
            table = Table(setup.first, twins=[(k, place, act.setup.bodies.angle[2])])
            states = np.stack([setup.first, *(table.step(action) for action in actions[:-1])])
            np.testing.assert_allclose(VIEW * other["states"][:, :, 1:3].reshape(20, 4), states[:, :4], atol=1e-3)
            # The twin touches nothing in these scenes, so every bit stays.
            np.testing.assert_array_equal(other["states"], world[i]["states"])
            if k == 0:  # its twin does the same moves as the agent
                np.testing.assert_allclose(table.others()[0, :2] - place, states[-1, :2] - states[0, :2], atol=1e-9)
    # A twin block between agent and block is pushed into it. A twin agent pushes it from where it is.
    near, ahead = (1, np.array([180.0, 200]), 0.0), (0, np.array([240.0, 215]), 0.0)
    for twins, moves in (((), False), ((near,), True), ((ahead,), True)):
        table = Table(np.array([60.0, 215, 340, 200, 0, 0, 0]), twins=twins)
        last = [table.step(np.array([0.6, 0.0])) for _ in range(5)][-1]
        assert (last[2] > 345) == moves and (last[2] < 341) != moves and last[0] > 170


def test_in_push_a_part_has_no_attribute_of_the_other():
    for attribute, value, has in (("velocity", (0.5, 0), 0), ("angle", 1.0, 1)):
        world = Push(**SMALL, do="set", attribute=attribute, value=value)
        none = 1 - has
        assert world.changed(world.setup(0), one(Push, has)).any()
        assert not world.changed(world.setup(0), one(Push, none)).any()
        assert np.array_equal(world.rollout(0, one(Push, none))["states"], scene(Push, 0)["states"])
        assert not np.array_equal(world.rollout(0, one(Push, has))["states"], scene(Push, 0)["states"])


@NAMED
def test_the_pipeline_and_the_effects_protocols_pairs_take_it(cls, options):
    world = cls(size=32, frames=4, **options)
    draw = functools.partial(objects.draw, max_objects=1, area=(0.001, 0.6))
    scenes = EpisodeMap(world, draw, 4, 2, 32, 6, "rerender", 0, 4, with_objects=True, with_masks=True)
    batch = scenes(3, 0)
    chosen = np.isin(np.arange(world.objects), batch["objects"][batch["removed"]])
    assert batch["intervened_valid"] and np.array_equal(batch["intervened"], world.intervene(3, chosen))
    if cls is not Rooms:  # it has one object
        found = pairs.prepare(scenes, 3, 0, (0.001, 0.6))
        assert found.video.shape == found.without.shape
        inert = options.get("attribute") in ("spin", "mass", "velocity", "angle")  # not visible, or of one part alone
        inert = inert or (cls is Push and options["do"] == "swap")  # both parts exchange their places with each other
        assert inert or (found.without != found.without_other).any()


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [(Rooms, dict(do="swap"), "^data.options.do is 'swap'; it must be one of remove, insert, set$"),
     (Push, dict(do="set", attribute="mass", value=2.0), "it must be one of position, velocity, angle, colour$"),
     (Rooms, dict(do="set", attribute="size", value=0.12), "the dot's radius must be at most 0.1"),
     (Rooms, dict(do="set", attribute="colour", value=(0, 0, 1), look="channels"), "'channels' there is none"),
     (Nudge, dict(do="set", attribute="velocity", value=(2.0, 2.0)), "its speed must be at most 2.5"),
     (Nudge, dict(do="set", attribute="size", value=0.02, dt=0.2), "it must be at most 0.128, or walls leak"),
     (Nudge, dict(do="set", attribute="position", value=0.5), "position needs 2 of 0 to 1")],
)  # fmt: skip
def test_what_a_world_has_not_is_refused(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        cls(**options)
