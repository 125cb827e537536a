"""do(insert), do(swap) and do(set): what changes at the start, and that nothing else does without a contact."""

import functools

import numpy as np
import pymunk
import pytest

from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.data.worlds import Balls, Blocks, Craft, Ramps, Shadows, physics
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.counterfactual import pairs
from cjepa_jax.masks import objects

SCENES = range(30)
SMALL = dict(size=16, frames=6, foreground=0.0)
X, Y, MASS = (Balls.state_names.index(name) for name in ("position/x", "position/y", "mass"))
SET = {"velocity": (0.5, -0.25), "spin": (2.0,), "angle": (1.0,), "mass": (3.0,), "colour": (0.0, 1.0, 0.2)}
WORLDS = {name: Balls(**SMALL, do=name) for name in ("remove", "insert", "swap")}
WORLDS |= {name: Balls(**SMALL, do="set", attribute=name, value=value) for name, value in SET.items()}


@functools.cache
def scene(i):
    return Balls(**SMALL)[i]


def one(i, k=None):
    """One object of scene i."""
    count = scene(i)["states"].shape[1]
    return np.arange(count) == (i % count if k is None else k)


@pytest.mark.parametrize("name", WORLDS)
def test_a_scene_itself_is_the_same_and_what_no_contact_reaches_keeps_every_bit(name):
    world, kept = WORLDS[name], 0
    for i in SCENES:
        factual, other, chosen = scene(i), world.rollout(i, one(i)), one(i)
        assert all(np.array_equal(factual[key], world[i][key]) for key in factual)
        contacts = np.concatenate([factual["contacts"], other["contacts"]])
        free = np.isinf(physics.reached(contacts, world.changed(world.setup(i), chosen)))
        assert np.array_equal(factual["states"][:, free], other["states"][:, free])
        assert np.array_equal(world.intervene(i, chosen), other["video"])
        assert np.array_equal(np.maximum(other["graph"], other["graph"].T), other["graph"])
        assert [other[key].shape for key in ("masks", "states")] == [factual[key].shape for key in ("masks", "states")]
        kept += free.sum()
    assert kept > 5  # scenes are crowded


@pytest.mark.parametrize("name", SET)
def test_set_changes_one_attribute_of_the_chosen_object_at_the_start(name):
    columns = {"velocity": ["velocity/x", "velocity/y"], "colour": ["colour/r", "colour/g", "colour/b"]}
    columns = [Balls.state_names.index(column) for column in columns.get(name, [name])]
    for i in SCENES[:8]:
        factual, other, chosen = scene(i)["states"][0], WORLDS[name].rollout(i, one(i))["states"][0], one(i)
        wanted = factual.copy()
        scale = factual[chosen][:, columns] if name == "mass" else 1
        wanted[np.ix_(chosen, columns)] = scale * np.asarray(SET[name])
        np.testing.assert_allclose(other, wanted, atol=1e-6)


def test_a_set_mass_changes_only_what_collides():
    changed = 0
    for i in SCENES:
        other = WORLDS["mass"].rollout(i, one(i))["states"]
        moved = (np.delete(other, MASS, -1) != np.delete(scene(i)["states"], MASS, -1)).any((0, 2))
        alone = not scene(i)["graph"][one(i)].any() and not (scene(i)["contacts"][:, 2] == np.argmax(one(i))).any()
        assert not (alone and moved.any())
        changed += moved.any()
    assert changed > 3


def test_swapped_objects_exchange_their_places_and_nothing_else():
    world = WORLDS["swap"]
    for i in SCENES[:8]:
        factual, k = scene(i)["states"][0], int(np.argmax(one(i)))
        changed = world.changed(world.setup(i), one(i)).nonzero()[0].tolist()
        assert len(changed) == 2 and k in changed
        for chosen, ring in ((one(i), changed), (one(i, 0) | one(i, 2), [0, 2])):
            other, wanted = world.rollout(i, chosen)["states"][0], factual.copy()
            wanted[np.ix_(ring, [X, Y])] = factual[np.ix_(ring[::-1], [X, Y])]
            np.testing.assert_array_equal(other, wanted)
            assert world.changed(world.setup(i), chosen).nonzero()[0].tolist() == sorted(ring)
    three = world.done(world.setup(0), np.arange(len(scene(0)["masks"])) < 3).setup.bodies.position
    assert np.array_equal(three[:3], world.setup(0).bodies.position[[1, 2, 0]])


def inside(setup):
    """How far each body reaches into others of its layer, or into a wall."""
    space, nothing = pymunk.Space(), np.zeros(len(setup.colour), bool)
    shapes, depth = list(physics.add_bodies(space, setup.bodies, setup.physics, nothing)), nothing.astype(float)
    for a, shape in enumerate(shapes):
        box = shape.cache_bb()
        depth[a] = max(0, physics.WALL - min(box.left, box.bottom, 1 - box.right, 1 - box.top))
        for b, other in enumerate(shapes[:a]):
            if setup.bodies.layer[a] == setup.bodies.layer[b] and other.bb.intersects(box):
                depth[[a, b]] = np.maximum(depth[[a, b]], touching(shape, other))
    return depth


def touching(one, other):
    """How deep two shapes are in each other. pymunk fails on shapes that are apart."""
    try:
        return max(0, *(-point.distance for point in one.shapes_collide(other).points), 0)
    except AssertionError:
        return 0.0


def test_one_alone_exchanges_with_the_object_that_leaves_both_the_most_room():
    """One disc of three is as large as the first, so only the two can change places without an overlap."""
    setup, first = WORLDS["swap"].setup(0), np.array([True, False, False])
    bodies = setup.bodies._replace(
        kind=np.zeros(3, int), half=np.array([[0.2, 0.2], [0.05, 0.05], [0.2, 0.2]]), layer=np.zeros(3, int),
        position=np.array([[0.25, 0.25], [0.5, 0.45], [0.75, 0.25]]),
        **{name: getattr(setup.bodies, name)[:3] for name in ("angle", "velocity", "spin", "mass")})  # fmt: skip
    crowded = setup._replace(bodies=bodies, colour=setup.colour[:3], depth=setup.depth[:3])
    assert WORLDS["swap"].changed(crowded, first).tolist() == [True, False, True]
    assert not inside(WORLDS["swap"].done(crowded, first).setup).any()


def test_few_swaps_of_one_object_begin_inside_others_and_no_scene_does():
    world, counts = WORLDS["swap"], np.zeros(2, int)
    for i in SCENES:
        setup = world.setup(i)
        assert inside(setup).max() < 1e-6
        for k in range(len(setup.colour)):
            counts += 1, inside(world.done(setup, one(i, k)).setup).max() > 1e-6
    assert counts[1] < 0.1 * counts[0]


def test_an_inserted_twin_is_drawn_where_it_is_free_and_collides():
    world, touched, drawn = Balls(**SMALL | dict(size=64), do="insert"), 0, 0
    for i in SCENES:
        setup, chosen = world.setup(i), one(i)
        act = world.done(setup, chosen)
        bodies, k = act.setup.bodies, int(np.argmax(chosen))
        assert act.stands_for.tolist() == [*range(len(chosen)), k] and not act.removed.any()
        reach = np.hypot(*bodies.half.T)
        gap = np.linalg.norm(bodies.position[:-1] - bodies.position[-1], axis=-1) - reach[:-1] - reach[-1]
        drawn += gap.min() > 0
        assert (bodies.position[-1] - reach[-1] > 0).all() and (bodies.position[-1] + reach[-1] < 1).all()
        for name in ("kind", "half", "angle", "velocity", "spin", "mass", "layer"):
            assert np.array_equal(getattr(bodies, name)[-1], getattr(bodies, name)[k])
        place = (64 * bodies.position[-1]).astype(int)
        if gap.min() > 0:
            pixel = world.intervene(i, chosen)[0, place[1], place[0]]
            assert pixel.tolist() in (setup.colour[k].tolist(), (setup.colour[k] * 0.6).astype(int).tolist())
        more = world.rollout(i, chosen)
        touched += (more["states"] != Balls(**SMALL | dict(size=64))[i]["states"]).any()
        assert (more["contacts"][:, 2] != more["contacts"][:, 3]).all()
        assert more["contacts"][:, 2:].max(initial=0) < len(chosen)
    assert drawn > 5 and touched > 5


@pytest.mark.parametrize("do", Balls.dos)
def test_the_pipeline_and_the_effects_protocols_pairs_take_it(do):
    more = dict(attribute="velocity", value=(0.0, 0.0)) if do == "set" else {}
    world = Balls(size=32, frames=4, do=do, **more)
    draw = functools.partial(objects.draw, max_objects=1, area=(0.01, 0.6))
    scenes = SceneMap(world, draw, 8, 2, 32, 6, "rerender", 0, 4, with_objects=True, with_masks=True)
    batch = scenes(3, 0)
    chosen = np.isin(np.arange(len(world[3]["masks"])), batch["objects"][batch["removed"]])
    assert batch["intervened_valid"] and np.array_equal(batch["intervened"], world.intervene(3, chosen))
    found = pairs.prepare(scenes, 3, 0, (0.01, 0.6))
    assert (found.without != found.video).any((1, 2, 3, 4)).sum() >= 2
    assert (found.without != found.without_other).any()


def test_the_questions_are_about_it():
    plain, swapped = Balls(**SMALL).outcomes(4), WORLDS["swap"].outcomes(4)
    np.testing.assert_array_equal(plain.final[0], swapped.final[0])
    for k in range(len(plain.asked)):
        states = WORLDS["swap"].rollout(4, one(4, k))["states"]
        np.testing.assert_array_equal(swapped.final[k + 1], states[-1][:, [X, Y]])


OTHERS = [(Blocks, {"velocity": (0.3, 0.0)}), (Ramps, {"velocity": (0.5, 0.0)}), (Shadows, {"height": (0.05,)})]
OTHERS = [(world, dict(do=do)) for world, _ in OTHERS for do in world.dos if do in ("insert", "swap")] + [
    (world, dict(do="set", attribute=name, value=value)) for world, more in OTHERS for name, value in more.items()
]


@pytest.mark.parametrize(("kind", "options"), OTHERS, ids=lambda x: x.get("do") if isinstance(x, dict) else x.__name__)
def test_other_worlds_have_them_too_and_what_no_contact_reaches_keeps_every_bit(kind, options):
    plain, world, moved = kind(size=32, frames=4), kind(size=32, frames=4, **options), 0
    for i in range(8):
        setup, factual = plain.setup(i), plain[i]
        assert all(np.array_equal(factual[key], world[i][key]) for key in factual)
        chosen = one_of(setup, np.argmax(plain.asked(setup)))  # of Ramps the subject, which moves
        other = world.rollout(i, chosen)
        assert np.array_equal(world.intervene(i, chosen), other["video"])
        assert [other[key].shape for key in ("masks", "states")] == [factual[key].shape for key in ("masks", "states")]
        contacts = np.concatenate([factual["contacts"], other["contacts"]])
        free = np.isinf(physics.reached(contacts, world.changed(setup, chosen)))
        assert np.array_equal(factual["states"][:, free], other["states"][:, free])
        happens, final = world.outcome(setup, chosen)
        assert happens.shape == chosen.shape and np.array_equal(final, other["states"][-1, :, 1:3])
        moved += (other["video"] != factual["video"]).any()
    assert moved > 4


def test_a_twin_block_begins_above_the_ground_and_ends_on_it():
    world = Blocks(size=16, frames=20, do="insert")
    for i in range(6):
        setup = world.setup(i)
        act = world.done(setup, one_of(setup))
        low = act.setup.bodies.position[-1, 1] + np.hypot(*act.setup.bodies.half[-1])
        assert low < world.room[3] and len(act.setup.level) == len(act.setup.colour) == len(setup.colour) + 1
        motion, _ = physics.simulate(act.setup.bodies, setup.physics, 20, 0.1, act.removed, events=False)
        assert motion[-1, -1, 1] >= motion[0, -1, 1] - 1e-3


def one_of(setup, k=0):
    return np.arange(len(setup.colour)) == k


def test_what_never_moves_gets_no_velocity_and_a_set_height_changes_light_alone():
    world, seen = Ramps(size=16, frames=2, do="set", attribute="velocity", value=(0.5, 0.0)), set()
    for i in range(6):
        setup = world.setup(i)
        for k, mode in enumerate(setup.bodies.mode):
            velocity = world.done(setup, one_of(setup, k)).setup.bodies.velocity[k]
            assert velocity.tolist() == ([0, 0] if mode == physics.FIXED else [0.5, 0])
            assert world.changed(setup, one_of(setup, k)).any() == (mode != physics.FIXED)
            seen.add(int(mode))
    assert len(seen) == 2
    low, darker = Shadows(size=32, frames=1, do="set", attribute="height", value=(0.05,)), 0
    for i in range(6):
        factual, other = low[i], low.rollout(i, one_of(low.setup(i)))
        assert np.array_equal(factual["amodal"], other["amodal"])
        alone = factual["masks"].sum(0)[0] == 0  # the floor
        light = other["video"].astype(int) - factual["video"]
        # A lower object's shadow lies in the taller one's. At its edge a pixel may be filled that was not.
        assert (light[0][alone] < 0).mean() < 0.01
        darker += (light[0][alone] > 0).any()
    assert darker > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(do="add"), "data.options.do is 'add'; it must be one of remove, insert"),
     (dict(do="set"), "data.options.attribute is ''"), (dict(do="set", attribute="mass"), "data.options.value is"),
     (dict(do="set", attribute="colour", value=(0, 1, 2)), "colour needs 3 of 0 to 1"),
     (dict(do="set", attribute="mass", value=True), "mass needs 1 of 0.01 to 100"),
     (dict(do="set", attribute="velocity", value=(19.0, 19.0)), "its speed must be at most")],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Balls(**options)


def test_a_world_refuses_what_it_has_not():
    with pytest.raises(ConfigError, match="^data.options.do is 'swap'; it must be one of remove$"):
        Craft(do="swap")
    with pytest.raises(
        ConfigError, match="^data.options.attribute is 'mass'; it must be one of angle, colour, height$"
    ):
        Shadows(do="set", attribute="mass", value=2.0)
    with pytest.raises(ConfigError, match=r"value is \(0.6,\); its height must be at most .* 0.5, so lamps are above"):
        Shadows(do="set", attribute="height", value=0.6)
    with pytest.raises(ConfigError, match="it must be one of velocity, mass, colour$"):
        Blocks(do="set", attribute="angle", value=1.0)
    with pytest.raises(ConfigError, match="it must be one of velocity, angle, mass, colour$"):
        Ramps(do="set", attribute="spin", value=1.0)
    for kind, least in ((Blocks, "2"), (Ramps, "1.44")):
        with pytest.raises(ConfigError, match=f"its speed must be at most {least}"):
            kind(do="set", attribute="velocity", value=(3.0, 0.0))
