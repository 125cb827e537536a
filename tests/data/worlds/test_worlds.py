"""What all worlds promise (promises.py), and what those of this package do besides."""

import dataclasses
import subprocess
import sys

import pytest

from cjepa_jax.data import worlds
from cjepa_jax.data.worlds import Balls, Blocks, Craft, Headings, Motion, Ramps, Shadows, promises
from cjepa_jax.data.worlds.base import SPLITS

ALL = tuple(getattr(worlds, name) for name in worlds.__all__)
WORLDS = pytest.mark.parametrize("cls", ALL)
COUNTS = {
    Craft: {7, 8, 9},
    Headings: {1, 2, 3},
    Motion: {1, 2, 3},
    Ramps: {5, 6, 7},
}  # of objects. The others have 3 to 6
TWO = (Balls, Headings, Shadows)
EXTREMES = {
    Blocks: [{"objects": (1, 1)}, {"objects": (16, 16)}, {"objects": [2, 3], "width": [0.5, 0.5]}],
    Craft: [{"objects": (1, 1)}, {"objects": (6, 6)}, {"small": [0.12, 0.12], "large": [0.12, 0.12]}],
    Motion: [{"objects": (1, 1)}, {"objects": (16, 16)}, {"objects": [2, 3], "radius": [0.3, 0.3], "middle": 60}],
    Ramps: [{"objects": (5, 5)}, {"objects": (16, 16)}, {"objects": [6, 6]}],
} | dict.fromkeys(TWO, [{"objects": (1, 1)}, {"objects": (16, 16)}, {"objects": [2, 3], "radius": [0.3, 0.3]}])


def fingerprints() -> str:
    return "".join(promises.digest(cls(size=32)[i]) for cls in ALL for i in (3, 1, 2))


@WORLDS
def test_scene_has_what_is_promised(cls):
    counts = promises.scenes_hold_what_is_declared(cls)
    for i in promises.SCENES:
        scene = cls(size=40, frames=3)[i]
        assert {"amodal", "states", "contacts"} <= scene.keys()
        assert all(array.flags.writeable and array.flags.c_contiguous for array in scene.values())
    assert counts == COUNTS.get(cls, {3, 4, 5, 6})


def test_same_bits_in_fresh_processes():
    code = "from tests.data.worlds.test_worlds import fingerprints; print(fingerprints())"
    here = fingerprints()
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == here


@WORLDS
def test_order_of_access_and_copies_do_not_matter(cls):
    promises.access_in_any_order(cls)


@WORLDS
def test_seeds_splits_and_scenes_differ(cls):
    promises.seeds_splits_and_scenes_differ(cls)


def test_every_split_has_draws_of_its_own():
    """The held-out ones too: their scenes differ by what they hold out, so only the first draws tell."""
    sources = [Balls(split=split, hold_out=True, seed=seed) for split in SPLITS for seed in (0, 1)]
    assert len({world.rng(i).random() for world in sources for i in range(5)}) == 5 * 2 * len(SPLITS) == 60


@WORLDS
def test_scene_is_independent_of_size_and_length(cls):
    promises.independent_of_size_and_length(cls)


@WORLDS
def test_masks_are_disjoint_within_amodal_and_cover_what_is_drawn(cls):
    assert promises.masks_cover_what_is_drawn(cls) > 0 and cls.ground_changes == (cls is Shadows)


@WORLDS
def test_amodal_mask_is_the_object_alone(cls):
    promises.amodal_is_the_object_alone(cls)


@WORLDS
def test_area_in_states_is_the_area_drawn(cls):
    assert {"size/width", "size/area"} <= set(cls.state_names)
    promises.area_is_the_area_drawn(cls, 0 if cls in TWO else 2.5)  # a pixel all around is much of a flat bar


@WORLDS
def test_remove_none_all_and_some(cls):
    promises.remove_none_all_and_some(cls)


@WORLDS
@pytest.mark.parametrize(("options", "words"), promises.REFUSED + promises.REFUSED_OBJECTS)
def test_bad_options_are_refused_in_one_line(cls, options, words):
    assert all(promises.has(cls, name) for name in options)
    promises.bad_options_are_refused(cls, options, words)


@pytest.mark.parametrize("cls", TWO)
@pytest.mark.parametrize(
    ("options", "words"),
    [({"radius": (0.1, 0.9)}, "radius"), ({"radius": ("a", "b")}, "radius"), ({"boxes": 1.5}, "boxes")],
)
def test_bad_shapes_are_refused_in_one_line(cls, options, words):
    promises.bad_options_are_refused(cls, options, words)


@WORLDS
def test_bad_index_and_bad_removed(cls):
    promises.bad_index_and_bad_removed(cls)


@WORLDS
def test_extremes_work(cls):
    for options in EXTREMES.get(cls, ()):
        scene = cls(size=8, frames=1, **options)[0]
        assert scene["video"].shape == (1, 8, 8, 3)
    assert len(list(zip(range(3), cls(size=8, count=3), strict=True))) == 3  # iterable, with an end


def test_frozen_and_light():
    for cls in ALL:
        with pytest.raises(dataclasses.FrozenInstanceError):
            cls().size = 3
    code = "import sys, cjepa_jax.data.worlds; print({'jax', 'flax', 'grain', 'tensorflow'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@WORLDS
def test_a_packed_setup_is_the_same_scene(cls):
    promises.a_packed_setup_is_the_same_scene(cls)


@WORLDS
def test_outcomes_have_their_shapes(cls):
    assert bool(cls.question) == (cls is not Motion)  # its objects do not affect each other
    promises.outcomes_have_their_shapes(cls)
