"""The properties that every simulated world must have, as assertions. A new world's test calls `check(World)`.

A world is asked only for what it declares: `state_names` (states), `label_names` (labels), `question` (outcomes),
`ground_changes`, the arrays `amodal` and `contacts` if its scenes hold them, and the options that its dataclass has.
It is part of the package, so that the test of a custom world needs no clone.
"""

import contextlib
import dataclasses
import hashlib
import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds import Balls, Shadows
from cjepa_jax.data.worlds.base import Outcomes, World
from cjepa_jax.errors import ConfigError, DataError

SCENES = range(25)
REFUSED: list[tuple[dict[str, Any], str]] = [  # of every world
    ({"split": "dev"}, "split"),
    ({"size": 7}, "size"),
    ({"size": 64.0}, "size"),
    ({"frames": 0}, "frames"),
    ({"count": 0}, "count"),
    ({"seed": -1}, "seed"),
    ({"hold_out": 1}, "hold_out"),
    ({"split": "count"}, "hold_out"),
]
REFUSED_OBJECTS: list[tuple[dict[str, Any], str]] = [
    ({"objects": value}, "objects") for value in ((5, 3), (0, 3), (2.5, 3), 4, (5, 17))
]


@contextlib.contextmanager
def raises(kind: type[Exception], words: str = "") -> Iterator[list[Exception]]:
    """Asserts that the block raises `kind`, with the pattern `words` in its message. Yields a list for it."""
    found: list[Exception] = []
    try:
        yield found
    except kind as error:
        found.append(error)
    assert found, f"{kind.__name__} was not raised"
    assert re.search(words, str(found[0])), f"{str(found[0])!r} does not have {words!r}"


def check(cls: type[World]) -> None:
    """Asserts all of the properties."""
    for promise in (scenes_hold_what_is_declared, access_in_any_order, seeds_splits_and_scenes_differ,
                    independent_of_size_and_length, masks_cover_what_is_drawn, amodal_is_the_object_alone,
                    area_is_the_area_drawn, remove_none_all_and_some, bad_index_and_bad_removed,
                    a_packed_setup_is_the_same_scene, outcomes_have_their_shapes):  # fmt: skip
        promise(cls)
    for options, words in (*REFUSED, *REFUSED_OBJECTS):
        bad_options_are_refused(cls, options, words)
    world: Any = cls(size=8, count=3)
    assert len(list(zip(range(3), world, strict=True))) == 3  # iterable, with an end
    with raises(dataclasses.FrozenInstanceError):
        world.size = 3


def has(cls: type[World], option: str) -> bool:
    """Whether the world has this option."""
    return option in {field.name for field in dataclasses.fields(cls)}


def digest(scene: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(scene[key].tobytes() for key in sorted(scene))).hexdigest()


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def scenes_hold_what_is_declared(cls) -> set[int]:
    """Names, shapes and types. Returns the numbers of objects that occur."""
    world, counts = cls(size=40, frames=3), set()
    for i in SCENES:
        scene = world[i]
        objects = len(scene["masks"])
        counts.add(objects)
        assert scene["video"].shape == (3, 40, 40, 3) and scene["video"].dtype == np.uint8
        for name in {"masks", "amodal"} & scene.keys():
            assert scene[name].shape == (objects, 3, 40, 40) and scene[name].dtype == bool
        assert ("states" in scene) == bool(world.state_names)
        if world.state_names:
            assert scene["states"].shape == (3, objects, len(world.state_names))
        if "contacts" in scene:
            assert scene["contacts"].shape[1:] == (4,)
        assert scene["labels"].shape == (len(world.label_names),)
        for name in {"states", "contacts", "labels"} & scene.keys():
            assert scene[name].dtype == np.float32 and np.isfinite(scene[name]).all()
        if cls.labels is World.labels and world.label_names:
            means = scene["states"][1].mean(0)
            expected = [objects] + [means[world.state_names.index(name)] for name in world.label_names[1:]]
            np.testing.assert_allclose(scene["labels"], expected, rtol=1e-5, atol=1e-6)
    assert len(world) == 10_000 and world.can_rerender
    return counts


def access_in_any_order(cls) -> None:
    """Copies and the order of access do not matter."""
    world = cls(size=24)
    scenes = {i: world[i] for i in SCENES}
    copy = pickle.loads(pickle.dumps(world))
    assert copy == world and hash(copy) == hash(world)
    assert all(equal(scenes[i], copy[np.int64(i)]) for i in reversed(SCENES))


def seeds_splits_and_scenes_differ(cls) -> None:
    videos = {cls(size=24, seed=s, split=split)[i]["video"].tobytes()
              for s in (0, 1) for split in ("train", "eval", "test") for i in range(5)}  # fmt: skip
    assert len(videos) == 30


def independent_of_size_and_length(cls) -> None:
    """Size changes the pixels only. A longer clip begins with the shorter one."""
    for i in SCENES:
        small, large, long = cls(size=64)[i], cls(size=224)[i], cls(size=64, frames=7)[i]
        for name in {"states", "contacts", "labels"} & small.keys():
            assert np.array_equal(small[name], large[name])
        for name in {"video", "states"} & small.keys():
            assert np.array_equal(small[name], long[name][:4])
        for name in {"masks", "amodal"} & small.keys():
            assert np.array_equal(small[name], long[name][:, :4])
        name = "amodal" if "amodal" in small else "masks"
        np.testing.assert_allclose(small[name].mean((1, 2, 3)), large[name].mean((1, 2, 3)), atol=0.02)


def masks_cover_what_is_drawn(cls) -> int:
    """Visible masks are disjoint, within the amodal ones, and cover all pixels of objects. Returns the number of pixels
    of objects that others hide."""
    world = cls(size=48)
    hidden = 0
    for i in SCENES:
        scene = world[i]
        masks, amodal = scene["masks"], scene.get("amodal", scene["masks"])
        empty = world.intervene(i, np.ones(len(masks), bool))
        assert (masks.sum(0) <= 1).all() and not (masks & ~amodal).any()
        assert np.array_equal(masks.any(0), amodal.any(0))
        hidden += (amodal & ~masks).sum()
        if not cls.ground_changes:
            assert np.array_equal((scene["video"] != empty)[~masks.any(0)].any(), False)
    return hidden


def amodal_is_the_object_alone(cls) -> None:
    world = cls(size=48, frames=1)
    for i in SCENES:
        scene = world[i]
        for k in range(len(scene["masks"])):
            alone = world.rollout(i, np.arange(len(scene["masks"])) != k)
            assert not alone["masks"][np.arange(len(scene["masks"])) != k].any()
            if "amodal" in scene:
                assert np.array_equal(alone["masks"][k], scene["amodal"][k])


def area_is_the_area_drawn(cls, border: float = 2.5) -> None:
    """Of objects that lie fully in the view. border: tolerance in pixels at the outline."""
    if not {"size/width", "size/area"} <= set(cls.state_names) or "amodal" not in cls(size=8, frames=1)[0]:
        return
    world = cls(size=224, frames=1)
    for i in SCENES:
        scene = world[i]
        inside = ~(scene["amodal"][:, 0, [0, -1]].any((1, 2)) | scene["amodal"][:, 0, :, [0, -1]].any((0, 2)))
        first = world.state_names.index("size/width")
        width, other, area = scene["states"][0, :, first : first + 3].T
        error = np.abs(scene["amodal"].mean((1, 2, 3)) - area)
        assert (error <= np.maximum(0.08 * area, border * (width + other) / 224))[inside].all()


def remove_none_all_and_some(cls) -> None:
    """do(remove) of no object is the scene itself. Removed objects are absent from masks, states and labels."""
    world = cls(size=32)
    for i in SCENES:
        factual = world[i]
        objects = len(factual["masks"])
        assert equal(world.rollout(i, np.zeros(objects, bool)), factual)
        assert np.array_equal(world.intervene(i, np.zeros(objects, bool)), factual["video"])
        removed = seeds.generator(i, "objects of a promise").random(objects) < 0.5
        some = world.rollout(i, removed)
        assert np.array_equal(world.intervene(i, removed), some["video"])
        assert not some["masks"][removed].any()
        empty = world.rollout(i, np.ones(objects, bool))
        assert not empty["masks"].any() and not len(empty.get("contacts", ()))
        if world.state_names:
            assert not some["states"][:, removed].any()
            assert np.array_equal(some["states"][0, ~removed], factual["states"][0, ~removed])
        if cls.labels is World.labels and world.label_names:
            assert some["labels"][0] == objects - removed.sum() and not empty["labels"].any()
        assert (empty["video"] == empty["video"][0]).all() or cls.ground_changes


def bad_options_are_refused(cls, options: dict, words: str) -> None:
    """In one line that has the name and the value. Options that the world does not have are skipped."""
    if not all(has(cls, name) for name in options):
        return
    with raises(ConfigError, words) as error:
        cls(**options)
    assert "\n" not in str(error[0]) and repr(next(iter(options.values()))) in str(error[0])


def bad_index_and_bad_removed(cls) -> None:
    world = cls(size=16, count=4)
    for i in (-1, 4, 10**9):
        with raises(IndexError, "0 to 3"):
            world[i]
        with raises(IndexError):
            world.intervene(i, np.zeros(3, bool))
    objects = len(world[0]["masks"])
    for removed in (np.zeros(objects + 1, bool), np.zeros(objects), np.zeros((objects, 1), bool)):
        with raises(DataError, "removed"):
            world.intervene(0, removed)
        with raises(DataError, "removed"):
            world.rollout(0, removed)


def a_packed_setup_is_the_same_scene(cls) -> None:
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
        with raises(DataError, "initial state"):
            world.unpack(data)


def outcomes_have_their_shapes(cls) -> None:
    """Of a world with a question: row 0 is the unchanged scene, row k + 1 is without object k, which has no outcome."""
    if not cls.question:
        return
    world = cls(size=8)
    for i in range(4):
        objects, outcomes = len(world[i]["masks"]), world.outcomes(i)
        shapes = ((objects,), (objects + 1, objects), (objects + 1, objects, 2), (objects, 2), (objects,))
        for name, shape in zip(Outcomes._fields, shapes, strict=True):
            assert getattr(outcomes, name).shape == shape, name
        each = np.arange(objects)
        assert not outcomes.happens[each + 1, each].any() and not outcomes.final[each + 1, each].any()
