"""Headings: Balls whose white object starts in the class's direction, and twins that differ by it alone."""

import numpy as np
import pytest
from scipy import stats

from cjepa_jax.data.worlds import Balls, Headings
from cjepa_jax.data.worlds.headings import WHITE, direction_of
from cjepa_jax.data.worlds.motion import SUN
from cjepa_jax.errors import ConfigError


def test_a_direction_is_the_nearest_of_eight():
    angles = np.arange(0, 360, 5)
    found = [direction_of(np.array([np.cos(np.radians(a)), np.sin(np.radians(a))])) for a in angles]
    apart = np.abs((angles - 45 * np.array(found) + 180) % 360 - 180)
    assert apart.max() <= 22.5 and [direction_of(3 * unit) for unit in SUN] == list(range(8))


def test_directions_are_equally_frequent_and_independent_of_the_rest_of_the_start():
    world = Headings(count=1600)
    setups = [world.setup(i) for i in range(len(world))]
    direction = np.array([direction_of(setup.bodies.velocity[0]) for setup in setups])
    assert stats.chisquare(np.bincount(direction, minlength=8)).pvalue > 1e-3
    for name, values in {
        "speed": [np.hypot(*s.bodies.velocity[0]) for s in setups],
        "size": [s.bodies.half[0].prod() for s in setups],
        "x": [s.bodies.position[0, 0] for s in setups],
        "y": [s.bodies.position[0, 1] for s in setups],
        "spin": [s.bodies.spin[0] for s in setups],
        "count": [len(s.colour) for s in setups],
    }.items():
        assert stats.kruskal(*[np.array(values, float)[direction == d] for d in range(8)]).pvalue > 1e-3, name


def test_only_the_white_object_differs_from_balls_and_only_in_colour_and_heading():
    world = Headings()
    plain = Balls(
        **{name: getattr(world, name) for name in ("objects", "radius", "speed", "gravity", "walls", "foreground")}
    )
    for i in range(20):
        ours, theirs = world.setup(i), plain.setup(i)
        assert (ours.colour[0] == WHITE).all() and np.array_equal(ours.colour[1:], theirs.colour[1:])
        assert (theirs.colour[1:] < WHITE).any(-1).all()  # none of the others is white
        assert np.array_equal(ours.bodies.velocity[1:], theirs.bodies.velocity[1:])
        for name in ("kind", "half", "position", "angle", "spin", "mass", "layer"):
            assert np.array_equal(getattr(ours.bodies, name), getattr(theirs.bodies, name)), name
        turned = np.degrees(np.arctan2(*ours.bodies.velocity[0][::-1]) - np.arctan2(*theirs.bodies.velocity[0][::-1]))
        assert abs((turned + 180) % 360 - 180) <= 22.5 + 1e-9
        np.testing.assert_allclose(np.hypot(*ours.bodies.velocity[0]), np.hypot(*theirs.bodies.velocity[0]))


def test_the_class_and_the_labels_are_those_of_the_start():
    world = Headings(size=32, frames=4)
    column = world.state_names.index
    for i in range(12):
        scene = world[i]
        first = scene["states"][0, 0].astype(float)
        velocity = first[[column("velocity/x"), column("velocity/y")]]
        np.testing.assert_allclose(velocity, np.hypot(*velocity) * SUN[scene["class"]], atol=1e-6)
        labels = dict(zip(world.label_names, scene["labels"].tolist(), strict=True))
        np.testing.assert_allclose([labels["direction/x"], labels["direction/y"]], SUN[scene["class"]], atol=1e-6)
        assert labels["count"] == len(scene["masks"]) and 0.15 <= labels["speed"] <= 0.3
        np.testing.assert_allclose([labels["place/x"], labels["place/y"]], first[1:3], atol=1e-6)
    nothing = world.play(world.setup(0), np.ones(len(world.setup(0).colour), bool))
    assert not nothing["labels"].any() and nothing["class"] == world[0]["class"]


def test_a_twin_starts_in_another_direction_and_nothing_else_differs():
    world, differ = Headings(size=32, frames=8), 0
    for i in range(12):
        scene, setup = world[i], world.setup(i)
        assert np.array_equal(world.twin(i, int(scene["class"])), scene["video"])
        other = (int(scene["class"]) + 3) % 8
        twin = world.twin(i, other)
        assert np.array_equal(twin[0], scene["video"][0])  # it starts at the same place
        differ += not np.array_equal(twin[4:], scene["video"][4:])
        without = np.arange(len(setup.colour)) == 0
        assert np.array_equal(world.setup(i).bodies.velocity, setup.bodies.velocity)  # a twin changes no setup
        assert np.array_equal(world.intervene(i, without)[0], world.rollout(i, without)["video"][0])
    assert differ == 12
    with pytest.raises(IndexError, match="0 to 7"):
        world.twin(0, 8)


def test_a_white_object_at_rest_has_no_direction():
    with pytest.raises(ConfigError, match=r"data\.options\.speed is \(0\.0, 1\.0\); its low must be above 0"):
        Headings(speed=(0, 1))
