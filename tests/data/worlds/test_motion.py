"""Motion: the direction is independent of all that is drawn beside it, and its twins differ in nothing else."""

import numpy as np
import pytest
from scipy import stats

from cjepa_jax.data.worlds import Motion
from cjepa_jax.data.worlds.motion import SUN
from cjepa_jax.errors import ConfigError


@pytest.fixture(scope="module")
def setups():
    world = Motion(count=1600)
    return [world.setup(i) for i in range(len(world))]


def test_eight_directions_are_equally_frequent_and_independent_of_everything_else(setups):
    direction = np.array([setup.direction for setup in setups])
    counts = np.bincount(direction, minlength=8)
    assert stats.chisquare(counts).pvalue > 1e-3 and len(counts) == 8
    nuisances = {
        "speed": [s.speed for s in setups],
        "size": [s.half[0].prod() for s in setups],
        "x": [s.position[0, 0] for s in setups],
        "y": [s.position[0, 1] for s in setups],
        "red": [s.colour[0, 0] for s in setups],
        "ground": [float(s.complex) for s in setups],
        "count": [float(len(s.kind)) for s in setups],
    }
    for name, values in nuisances.items():
        groups = [np.array(values, float)[direction == d] for d in range(8)]
        assert stats.kruskal(*groups).pvalue > 1e-3, name
    table = np.corrcoef(np.array(list(nuisances.values())))
    assert np.abs(table - np.eye(len(table))).max() < 0.1


def test_paths_are_straight_in_view_and_their_middle_says_nothing_about_the_direction():
    world, at = Motion(size=32, frames=16, objects=(1, 1)), Motion.state_names.index("position/x")
    for i in range(20):
        scene, setup = world[i], world.setup(i)
        path = scene["states"][:, 0, at : at + 2].astype(float)
        np.testing.assert_allclose(path.mean(0), setup.position[0], atol=1e-6)
        np.testing.assert_allclose(np.diff(path, axis=0), [setup.speed * 0.1 * SUN[setup.direction]] * 15, atol=1e-6)
        assert not scene["amodal"][0][:, [0, -1]].any() and not scene["amodal"][0][:, :, [0, -1]].any()
        assert scene["class"] == setup.direction
        labels = dict(zip(world.label_names, scene["labels"].tolist(), strict=True))
        found = [labels[name] for name in ("direction/x", "direction/y", "speed", "size", "place/x", "place/y")]
        expected = [*SUN[setup.direction], setup.speed, scene["states"][0, 0, 8], *setup.position[0]]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert labels["count"] == 1 and 0 <= labels["hue"] < 1
    assert not world.play(setup, np.ones(1, bool))["labels"].any()


def test_a_twin_is_the_scene_with_another_direction_and_nothing_else():
    world = Motion(size=48, frames=16)
    for i in range(12):
        scene, setup = world[i], world.setup(i)
        assert np.array_equal(world.twin(i, setup.direction), scene["video"])
        other = (setup.direction + 3) % 8
        twin = world.twin(i, other)
        again = world.play(setup._replace(direction=other))
        assert np.array_equal(twin, again["video"]) and again["class"] == other
        same = [k for k, name in enumerate(world.label_names) if not name.startswith("direction")]
        np.testing.assert_allclose(again["labels"][same], scene["labels"][same], atol=1e-6)
        untouched = ~(scene["amodal"][0] | again["amodal"][0])
        assert np.array_equal(twin[untouched], scene["video"][untouched]) and not np.array_equal(twin, scene["video"])
        empty = world.intervene(i, np.arange(len(setup.kind)) == 0)
        assert (empty == empty[0]).all()  # all else stands still
    with pytest.raises(IndexError, match="0 to 7"):
        world.twin(0, 8)


def test_grounds():
    plain, patched = (Motion(size=24, frames=1, ground=name) for name in ("plain", "complex"))
    for i in range(8):
        rest = [world.intervene(i, np.ones(len(world.setup(i).kind), bool)) for world in (plain, patched)]
        assert len(np.unique(rest[0])) == 1 and len(np.unique(rest[1].reshape(-1, 3), axis=0)) > 20
        assert np.array_equal(plain[i]["masks"], patched[i]["masks"])  # only the ground differs
        assert not plain.setup(i).complex and patched.setup(i).complex
    assert {Motion(size=8, count=20).setup(i).complex for i in range(20)} == {True, False}


@pytest.mark.parametrize(
    "options", [{"ground": "grey"}, {"middle": -1}, {"middle": True}, {"speed": (1, 0)}, {"dt": 0}, {"boxes": 2}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))) as error:
        Motion(**options)
    assert "\n" not in str(error.value)
