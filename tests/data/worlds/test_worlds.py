"""What all worlds promise: the source protocol, determinism, masks, do(remove), refusals."""

import dataclasses
import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls, Blocks, Craft, Ramps, Shadows
from cjepa_jax.data.worlds.base import SPLITS
from cjepa_jax.errors import ConfigError, DataError

ALL = (Balls, Blocks, Craft, Ramps, Shadows)
WORLDS = pytest.mark.parametrize("cls", ALL)
COUNTS = {Craft: {7, 8, 9}, Ramps: {5, 6, 7}}  # of objects; the others have 3 to 6
TWO = (Balls, Shadows)
EXTREMES = {
    Blocks: [{"objects": (1, 1)}, {"objects": (16, 16)}, {"objects": [2, 3], "width": [0.5, 0.5]}],
    Craft: [{"objects": (1, 1)}, {"objects": (6, 6)}, {"small": [0.12, 0.12], "large": [0.12, 0.12]}],
    Ramps: [{"objects": (5, 5)}, {"objects": (16, 16)}, {"objects": [6, 6]}],
} | dict.fromkeys(TWO, [{"objects": (1, 1)}, {"objects": (16, 16)}, {"objects": [2, 3], "radius": [0.3, 0.3]}])
SCENES = range(25)


def digest(scene: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(scene[key].tobytes() for key in sorted(scene))).hexdigest()


def fingerprints() -> str:
    return "".join(digest(cls(size=32)[i]) for cls in ALL for i in (3, 1, 2))


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@WORLDS
def test_scene_has_what_is_promised(cls):
    world, counts = cls(size=40, frames=3), set()
    for i in SCENES:
        scene = world[i]
        objects = len(scene["masks"])
        counts.add(objects)
        assert scene["video"].shape == (3, 40, 40, 3) and scene["video"].dtype == np.uint8
        for name in ("masks", "amodal"):
            assert scene[name].shape == (objects, 3, 40, 40) and scene[name].dtype == bool
        assert scene["states"].shape == (3, objects, len(world.state_names)) and scene["states"].dtype == np.float32
        assert scene["contacts"].shape[1:] == (4,) and scene["contacts"].dtype == np.float32
        assert scene["labels"].shape == (len(world.label_names),) and scene["labels"].dtype == np.float32
        assert all(np.isfinite(scene[name]).all() for name in ("states", "contacts", "labels"))
        assert all(array.flags.writeable and array.flags.c_contiguous for array in scene.values())
        means = scene["states"][1].mean(0)
        expected = [objects] + [means[world.state_names.index(name)] for name in world.label_names[1:]]
        np.testing.assert_allclose(scene["labels"], expected, rtol=1e-5, atol=1e-6)
    assert counts == COUNTS.get(cls, {3, 4, 5, 6}) and len(world) == 10_000 and world.can_rerender


def test_same_bits_in_fresh_processes():
    code = "from tests.data.worlds.test_worlds import fingerprints; print(fingerprints())"
    here = fingerprints()
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == here


@WORLDS
def test_order_of_access_and_copies_do_not_matter(cls):
    world = cls(size=24)
    scenes = {i: world[i] for i in SCENES}
    copy = pickle.loads(pickle.dumps(world))
    assert copy == world and hash(copy) == hash(world)
    assert all(equal(scenes[i], copy[np.int64(i)]) for i in reversed(SCENES))


@WORLDS
def test_seeds_splits_and_scenes_differ(cls):
    videos = {cls(size=24, seed=s, split=split)[i]["video"].tobytes()
              for s in (0, 1) for split in ("train", "eval", "test") for i in range(5)}  # fmt: skip
    assert len(videos) == 30


def test_every_split_has_draws_of_its_own():
    """The held-out ones too: their scenes differ by what they hold out, so only the first draws tell."""
    worlds = [Balls(split=split, hold_out=True, seed=seed) for split in SPLITS for seed in (0, 1)]
    assert len({world.rng(i).random() for world in worlds for i in range(5)}) == 5 * 2 * len(SPLITS) == 60


@WORLDS
def test_scene_is_independent_of_size_and_length(cls):
    for i in SCENES:
        small, large, long = cls(size=64)[i], cls(size=224)[i], cls(size=64, frames=7)[i]
        for name in ("states", "contacts", "labels"):
            assert np.array_equal(small[name], large[name])
        for name in ("video", "states"):
            assert np.array_equal(small[name], long[name][:4])
        for name in ("masks", "amodal"):
            assert np.array_equal(small[name], long[name][:, :4])
        shares = [scene["amodal"].mean((1, 2, 3)) for scene in (small, large)]
        np.testing.assert_allclose(*shares, atol=0.02)


@WORLDS
def test_masks_are_disjoint_within_amodal_and_cover_what_is_drawn(cls):
    world = cls(size=48)
    hidden = 0
    for i in SCENES:
        scene = world[i]
        masks, amodal = scene["masks"], scene["amodal"]
        empty = world.intervene(i, np.ones(len(masks), bool))
        assert (masks.sum(0) <= 1).all() and not (masks & ~amodal).any()
        assert np.array_equal(masks.any(0), amodal.any(0))
        hidden += (amodal & ~masks).sum()
        if cls is not Shadows:  # whatever is not an object is background
            assert np.array_equal((scene["video"] != empty)[~masks.any(0)].any(), False)
    assert hidden > 0


@WORLDS
def test_amodal_mask_is_the_object_alone(cls):
    world = cls(size=48, frames=1)
    for i in SCENES:
        scene = world[i]
        for k in range(len(scene["masks"])):
            alone = world.rollout(i, np.arange(len(scene["masks"])) != k)
            assert np.array_equal(alone["masks"][k], scene["amodal"][k])
            assert not alone["masks"][np.arange(len(scene["masks"])) != k].any()


@WORLDS
def test_area_in_states_is_the_area_drawn(cls):
    world = cls(size=224, frames=1)
    for i in SCENES:
        scene = world[i]
        inside = ~(scene["amodal"][:, 0, [0, -1]].any((1, 2)) | scene["amodal"][:, 0, :, [0, -1]].any((0, 2)))
        first = world.state_names.index("size/width")
        width, other, area = scene["states"][0, :, first : first + 3].T
        border = 0 if cls in TWO else 2.5 * (width + other) / 224  # a pixel all around is much of a flat bar
        error = np.abs(scene["amodal"].mean((1, 2, 3)) - area)
        assert (error <= np.maximum(0.08 * area, border))[inside].all()


@WORLDS
def test_remove_none_all_and_some(cls):
    world = cls(size=32)
    for i in SCENES:
        factual = world[i]
        objects = len(factual["masks"])
        assert equal(world.rollout(i, np.zeros(objects, bool)), factual)
        assert np.array_equal(world.intervene(i, np.zeros(objects, bool)), factual["video"])
        removed = np.random.default_rng(i).random(objects) < 0.5
        some = world.rollout(i, removed)
        assert np.array_equal(world.intervene(i, removed), some["video"])
        assert not some["masks"][removed].any() and not some["states"][:, removed].any()
        assert some["labels"][0] == objects - removed.sum()
        assert np.array_equal(some["states"][0, ~removed], factual["states"][0, ~removed])
        empty = world.rollout(i, np.ones(objects, bool))
        assert not empty["masks"].any() and not empty["labels"].any() and not len(empty["contacts"])
        assert (empty["video"] == empty["video"][0]).all() or cls is Shadows  # whose lamps still move


@WORLDS
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "dev"}, "split"),
        ({"size": 7}, "size"),
        ({"size": 64.0}, "size"),
        ({"frames": 0}, "frames"),
        ({"count": 0}, "count"),
        ({"seed": -1}, "seed"),
        ({"objects": (5, 3)}, "objects"),
        ({"objects": (0, 3)}, "objects"),
        ({"objects": (2.5, 3)}, "objects"),
        ({"objects": 4}, "objects"),
        ({"objects": (5, 17)}, "objects"),
        ({"hold_out": 1}, "hold_out"),
        ({"split": "count"}, "hold_out"),
    ],
)
def test_bad_options_are_refused_in_one_line(cls, options, words):
    with pytest.raises(ConfigError, match=words) as error:
        cls(**options)
    assert "\n" not in str(error.value) and repr(next(iter(options.values()))) in str(error.value)


@pytest.mark.parametrize("cls", TWO)
@pytest.mark.parametrize(
    ("options", "words"),
    [({"radius": (0.1, 0.9)}, "radius"), ({"radius": ("a", "b")}, "radius"), ({"boxes": 1.5}, "boxes")],
)
def test_bad_shapes_are_refused_in_one_line(cls, options, words):
    test_bad_options_are_refused_in_one_line(cls, options, words)


@WORLDS
def test_bad_index_and_bad_removed(cls):
    world = cls(size=16, count=4)
    for i in (-1, 4, 10**9):
        with pytest.raises(IndexError, match="0 to 3"):
            world[i]
        with pytest.raises(IndexError):
            world.intervene(i, np.zeros(3, bool))
    objects = len(world[0]["masks"])
    for removed in (np.zeros(objects + 1, bool), np.zeros(objects), np.zeros((objects, 1), bool)):
        with pytest.raises(DataError, match="removed"):
            world.intervene(0, removed)
        with pytest.raises(DataError, match="removed"):
            world.rollout(0, removed)


@WORLDS
def test_extremes_work(cls):
    for options in EXTREMES[cls]:
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
    world = cls(size=24)
    for i in range(4):
        setup = world.setup(i)
        again = world.unpack(world.pack(setup))
        assert equal(world.play(again), world[i]) and world.pack(again) == world.pack(setup)
        removed = np.arange(len(world[i]["masks"])) == 0
        assert np.array_equal(world.film(again, removed), world.intervene(i, removed))
    other = next(other for other in (Balls, Shadows) if other is not cls)(size=24)
    wrong = (setup[:-1], {"data": 1}, 5, None, "abc", (setup,), setup._replace(**{setup._fields[0]: 5}))
    for data in (b"", b"\xc1", b"\x05", world.pack(setup)[:-3], other.pack(other.setup(0)), *map(world.pack, wrong)):
        with pytest.raises(DataError, match="initial state"):
            world.unpack(data)
