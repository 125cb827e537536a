"""Slots from true states: what they hold, their order, and do(remove)."""

import numpy as np
import pytest

from cjepa_jax.data import worlds
from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.data.worlds import Balls, rigid
from cjepa_jax.errors import ConfigError, DataError

OPTIONS = dict(objects=(3, 4), dt=0.04)


def make(**fields):
    return TrueSlots(**dict(count=8, frames=5, of_options=OPTIONS, slots=5) | fields)


def test_slots_hold_what_a_frame_shows_of_each_object_and_nothing_else():
    source, world = make(shuffle="none"), Balls(count=8, frames=5, size=16, **OPTIONS)
    for i in range(8):
        scene, states = source[i], world[i]["states"]
        objects = states.shape[1]
        assert scene["video"].dtype == np.float32 and scene["video"].shape == (5, 1, 5, source.width)
        np.testing.assert_array_equal(scene["present"], np.arange(5) < objects)
        np.testing.assert_allclose(source.places(scene["video"][:, 0, :objects]), states[..., 1:3], atol=1e-6)
        angle = scene["video"][:, 0, :objects, 2:4]
        np.testing.assert_allclose(angle, np.stack([np.cos(states[..., 3]), np.sin(states[..., 3])], -1), atol=1e-6)
        np.testing.assert_array_equal(scene["states"][:, :objects], states)
        assert not scene["video"][:, 0, objects:].any()
    # Two scenes that differ in velocities only have the same first frame: the width counts no hidden state.
    shown = [name for name in world.state_names if name.split("/")[0] not in ("present", "velocity", "spin", "mass")]
    assert source.width == len(shown) + 1


def test_classes_become_components_of_about_unit_variance():
    of = dict(of="cjepa_jax.data.worlds:Craft", of_options={}, slots=9, count=60, shuffle="none")
    source, numbers = make(**of, one_hot=True), make(**of)
    world = worlds.Craft(count=60, frames=5, size=16)
    assert source.width == numbers.width + 3 + 2 + 7 + 8  # kind, mode, role, hue: 4, 3, 8 and 9 classes
    found, states = [], []
    for i in range(60):
        true = world[i]["states"]
        found.append(source[i]["video"][:, 0, : true.shape[1]].reshape(-1, source.width))
        states.append(true.reshape(-1, true.shape[-1]))
        np.testing.assert_allclose(source.places(source[i]["video"][:, 0, : true.shape[1]]), true[..., 1:3], atol=1e-5)
    slots, states = np.concatenate(found), np.concatenate(states)
    names = list(world.state_names)
    first = names.index("kind") - 4  # before: no presence, velocities, spin, mass. One more angle
    components, variance = iter(slots.T[first:]), slots.var(0)
    for size, at in ((4, 0), (1, 4), (3, 5), (8, 8), (9, 16)):  # no class weighs more than a place does
        assert 0.3 < variance[first + at :][:size].sum() < 1.2
    for name, classes in (("kind", range(4)), ("large", (1,)), ("mode", range(3)), ("role", range(-1, 7)),
                          ("hue", range(-1, 8)), ("inside", (1,))):  # fmt: skip
        for value in classes:
            component = next(components)
            there = states[:, names.index(name)] == value
            assert not there.any() or component[there].min() > component[~there].max(), (name, value)
    with pytest.raises(ConfigError, match="data.options.one_hot = 1: must be True or False"):
        make(one_hot=1)
    with pytest.raises(ConfigError, match="data.options.one_hot = True: Balls has no states that are classes"):
        make(one_hot=True)


def test_a_window_of_a_scene_begins_anywhere_and_everything_but_the_graph_is_of_its_frames():
    whole, part = make(frames=9, noise=0.0), make(frames=5, clip=9)
    removed, starts = np.arange(5) == 0, set()
    for i in range(8):
        scene, window = whole[i], part[i]
        (start,) = (n for n in range(5) if np.array_equal(scene["video"][n : n + 5], window["video"]))
        np.testing.assert_array_equal(window["states"], scene["states"][start : start + 5])
        np.testing.assert_array_equal(part.intervene(i, removed), whole.intervene(i, removed)[start : start + 5])
        assert "graph" in scene and "graph" not in window
        starts.add(start)
    assert len(starts) > 2
    assert make(clip=3)[0].keys() == make()[0].keys()
    with pytest.raises(ConfigError, match="data.options.clip = 9: must be at most data.frames = 5"):
        part.influence(0, 2)
    with pytest.raises(ConfigError, match="data.options.clip"):
        make(clip=-1)


def test_a_wider_slot_is_an_isometry_of_the_features():
    plain, wide = make(), make(width=40)
    a, b = plain[0]["video"][:, 0], wide[0]["video"][:, 0]
    gain = 40 / plain.width
    np.testing.assert_allclose(np.square(b).sum(-1), gain * np.square(a).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(
        wide.places(b)[:, wide[0]["present"]], plain.places(a)[:, plain[0]["present"]], atol=1e-5
    )
    other = make(width=40, split="test", seed=5)
    np.testing.assert_array_equal(other._isometry, wide._isometry)


def test_the_order_of_slots_is_drawn_per_scene_and_everything_follows_it():
    plain, mixed = make(shuffle="none"), make(shuffle="scene")
    orders = set()
    for i in range(8):
        a, b = plain[i], mixed[i]
        order = [
            int(np.flatnonzero([np.array_equal(slot, x) for x in a["video"][0, 0]])[0]) for slot in b["video"][0, 0]
        ]
        used = np.flatnonzero(b["present"])
        order = np.array(order)[used]
        orders.add(tuple(used))
        np.testing.assert_array_equal(b["video"][:, :, used], a["video"][:, :, order])
        np.testing.assert_array_equal(b["states"][:, used], a["states"][:, order])
        np.testing.assert_array_equal(b["graph"][np.ix_(used, used)], a["graph"][np.ix_(order, order)])
        assert b["graph"].sum() == a["graph"].sum()
    assert len(orders) > 2
    frame = make(shuffle="frame")
    assert "graph" not in frame[0]
    moved = [
        not np.allclose(frame.places(v[1, 0]), frame.places(v[0, 0]), atol=0.15)
        for v in (frame[i]["video"] for i in range(8))
    ]
    assert sum(moved) >= 4


def test_noise_and_merged_slots():
    clean, noisy = make(), make(noise=0.5)
    difference = np.concatenate(
        [(noisy[i]["video"] - clean[i]["video"])[:, 0, clean[i]["present"]].ravel() for i in range(8)]
    )
    assert abs(difference.std() - 0.5) < 0.03 and not noisy[0]["video"][:, 0, ~noisy[0]["present"]].any()
    np.testing.assert_array_equal(noisy[3]["video"], noisy[3]["video"])
    merged, plain = make(merge=1.0, shuffle="none"), make(shuffle="none")
    for i in range(8):
        one, two = merged[i], plain[i]
        assert one["present"].sum() == two["present"].sum() - 1
        np.testing.assert_allclose(
            one["video"][:, 0].sum(1) + 0 * 1, one["video"][:, 0, one["present"]].sum(1), rtol=1e-5
        )
        kept = [
            k
            for k in range(5)
            if one["present"][k] and not np.array_equal(one["video"][:, 0, k], two["video"][:, 0, k])
        ]
        gone = [k for k in range(5) if two["present"][k] and not one["present"][k]]
        both = two["video"][:, 0, kept + gone].mean(1)
        np.testing.assert_allclose(one["video"][:, 0, kept[0]], both, atol=1e-5)


def test_do_remove_simulates_without_the_objects_of_the_slots():
    source, world = make(noise=0.1), Balls(count=8, frames=5, size=16, **OPTIONS)
    for i in range(4):
        scene = source[i]
        k = int(np.flatnonzero(scene["present"])[0])
        without = source.intervene(i, np.arange(5) == k)
        assert without.shape == scene["video"].shape and without.dtype == np.float32 and not without[:, 0, k].any()
        np.testing.assert_array_equal(without[0, 0, np.arange(5) != k], scene["video"][0, 0, np.arange(5) != k])
        gone = [
            o
            for o in range(world[i]["states"].shape[1])
            if np.array_equal(world[i]["states"][:, o], scene["states"][:, k])
        ]
        states = world.rollout(i, np.arange(world[i]["states"].shape[1]) == gone[0])["states"]
        clean = make().intervene(i, np.arange(5) == k)
        places = make().places(clean[:, 0])
        rest = np.delete(states[..., 1:3], gone[0], 1)
        found = places[:, scene["present"] & (np.arange(5) != k)]
        np.testing.assert_allclose(np.sort(found, axis=1), np.sort(rest, axis=1), atol=1e-5)


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"slots": 0}, "data.options.slots is 0; it must be an integer of at least 1"),
        ({"width": -1}, "data.options.width is -1; it must be an integer of at least 0"),
        ({"noise": -1}, "data.options.noise is -1: must be a number of at least 0"),
        ({"noise": float("inf")}, "data.options.noise is inf: must be a number of at least 0"),
        ({"merge": 2}, "data.options.merge is 2; it must be a share within 0 and 1"),
        ({"shuffle": "x"}, "data.options.shuffle is 'x': must be one of none, scene, frame"),
        ({"width": 3}, "data.options.width = 3: must be 0, or at least the 13 features"),
    ],
)
def test_wrong_options_are_refused(fields, text):
    with pytest.raises(ConfigError) as error:
        make(**fields)
    assert str(error.value) == text


@pytest.mark.parametrize("name", worlds.__all__)
def test_every_world_gives_slots(name):
    source = make(of=f"cjepa_jax.data.worlds:{name}", of_options={}, slots=12, frames=2)
    scene = source[1]
    world = source.source[1]["states"][..., [source.state_names.index(f"position/{axis}") for axis in "xy"]]
    found = source.places(scene["video"][:, 0, scene["present"]])
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(world, axis=1), atol=1e-5)


def test_a_scene_with_more_objects_than_slots_is_unreadable():
    with pytest.raises(DataError, match=r"objects: data.options.slots = 2 is too few$"):
        make(slots=2)[0]
    with pytest.raises(ConfigError, match="^data.options.of_options.do = 'swap': must be 'remove' for slots$"):
        TrueSlots(of_options={"do": "swap"})
    with pytest.raises(ConfigError, match="must be a simulated world with states"):
        make(of="cjepa_jax.data.sources.true_slots:TrueSlots", of_options={})


@pytest.mark.parametrize("fields", [{}, dict(shuffle="none"), dict(merge=1.0)])
def test_touching_slots_are_those_of_a_simulation_from_the_frame_and_nothing_is_simulated(fields, monkeypatch):
    source = make(count=24, frames=8, **fields)
    simulated = np.stack([source.influence(i, 2)[1].any(1) for i in range(24)])
    ever = np.stack([source[i]["graph"].any(1) for i in range(24)])
    assert simulated.any() and (ever & ~simulated).any()
    monkeypatch.setattr(Balls, "influence", None)
    monkeypatch.setattr(rigid, "simulate", None)
    np.testing.assert_array_equal([source.touching(i, 2) for i in range(24)], simulated)


def test_a_world_that_stores_no_times_is_asked_by_its_influence_from_the_frame(monkeypatch):
    source = make(count=24, frames=8)
    later = np.stack([source.influence(i, 2)[1].any(1) for i in range(24)])
    ever = np.stack([source[i]["graph"].any(1) for i in range(24)])
    assert (ever & ~later).any()
    monkeypatch.delattr(rigid.Rigid, "touched")
    np.testing.assert_array_equal([source.touching(i, 2) for i in range(24)], later)
    monkeypatch.delattr(rigid.Rigid, "influence")
    np.testing.assert_array_equal([source.touching(i, 2) for i in range(24)], ever)


def test_slots_touch_nothing_where_there_is_no_graph():
    assert not any(make(shuffle="frame").touching(i, 0).any() for i in range(8))
    assert not any(make(clip=8).touching(i, 0).any() for i in range(8))
