"""do(insert), do(swap) and do(set): what changes at the start, and that nothing else does without a contact."""

import functools

import numpy as np
import pymunk
import pytest

from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.data.worlds import Balls, interventions, physics
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
    three = interventions.done(world.setup(0), np.arange(len(scene(0)["masks"])) < 3, "swap").setup.bodies.position
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
    assert interventions.changed(crowded, first, "swap").tolist() == [True, False, True]
    assert not inside(interventions.done(crowded, first, "swap").setup).any()


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


@pytest.mark.parametrize("do", interventions.DOS)
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
