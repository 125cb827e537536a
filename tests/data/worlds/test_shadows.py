"""Shadows: light takes straight lines, and a shadow goes with its object."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import Shadows, layout
from cjepa_jax.errors import ConfigError


def blocked(world: Shadows, i: int, k: int, points: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Whether object k stands between any lamp and `points` [P,2] at heights `level` [P], marching the rays."""
    setup, hit = world.setup(i), np.zeros(len(points), bool)
    cos, sin = np.cos(setup.angle[k]), np.sin(setup.angle[k])
    for lamp in setup.lights:
        for share in np.linspace(0, 1, 200):
            at = points + share * (lamp[:2] - points) - setup.position[k]
            local = np.abs(np.stack([cos * at[:, 0] + sin * at[:, 1], cos * at[:, 1] - sin * at[:, 0]], -1))
            if setup.kind[k] == layout.BOX:
                inside = (local <= setup.half[k] + 0.02).all(-1)
            else:
                inside = np.hypot(*local.T) <= setup.half[k, 0] + 0.02
            hit |= inside & (level + share * (lamp[2] - level) <= setup.height[k] + 0.02)
    return hit


def test_what_moves_is_the_shadows():
    world = Shadows(size=48, frames=8)
    moved = 0
    for i in range(10):
        scene = world[i]
        assert all((scene[name] == scene[name][:1]).all() for name in ("states",))
        assert (scene["masks"] == scene["masks"][:, :1]).all() and not len(scene["contacts"])
        moved += (scene["video"][1:].astype(int) - scene["video"][:-1] != 0).mean() > 0.05
        lights = scene["lights"]
        radius = np.hypot(*np.moveaxis(lights[..., :2] - 0.5, -1, 0))
        np.testing.assert_allclose(radius, np.broadcast_to(radius[0], radius.shape), atol=1e-6)
        assert (lights[..., 2] == lights[0, :, 2]).all() and (lights[0] != lights[1])[:, :2].any()
    assert moved == 10


def test_lamps_may_stand_still():
    scene = Shadows(size=32, frames=5, turn=(0, 0))[0]
    assert all((scene[name] == scene[name][:1]).all() for name in ("video", "states", "lights"))
    moving = Shadows(size=32, frames=5)[0]
    assert (moving["video"][0] == scene["video"][0]).all() and (moving["video"][4] != scene["video"][4]).any()


def test_removal_changes_the_object_and_its_shadow_only():
    world, floor_lit, objects_lit = Shadows(size=64, frames=1), 0, 0
    for i in range(25):
        scene, setup = world[i], world.setup(i)
        k = i % len(setup.kind)
        removed = np.arange(len(setup.kind)) == k
        video = world.intervene(i, removed)
        changed = (video != scene["video"]).any(-1)[0] & ~scene["amodal"][k, 0]
        rows, columns = np.nonzero(changed)
        owner = (scene["masks"][:, 0] * np.arange(1, len(setup.kind) + 1)[:, None, None]).sum(0)[changed] - 1
        level = np.where(owner >= 0, setup.height[owner], 0.0)
        points = np.stack([columns + 0.5, rows + 0.5], -1) / world.size
        assert blocked(world, i, k, points, level).all(), f"scene {i}: changed where no shadow can be"
        assert (video[0][changed].astype(int) >= scene["video"][0][changed]).all()  # it only gets brighter
        floor_lit += (owner < 0).sum()
        objects_lit += (owner >= 0).sum()
    assert floor_lit > 2000 and objects_lit > 50


def test_shadow_lies_behind_the_object():
    """One lamp, one disc: the darkest floor is the projection of the disc's top from the lamp."""
    world = Shadows(size=96, frames=1, objects=(1, 1), lights=(1, 1), boxes=0.0)
    for i in range(10):
        scene, setup = world[i], world.setup(i)
        lamp, height = setup.lights[0], setup.height[0]
        top = lamp[:2] + (setup.position[0] - lamp[:2]) * lamp[2] / (lamp[2] - height)
        radius = setup.half[0, 0] * lamp[2] / (lamp[2] - height)
        row, column = np.meshgrid(*[(np.arange(96) + 0.5) / 96] * 2, indexing="ij")
        distance = np.hypot(column - top[0], row - top[1])
        dark = (scene["video"] < world.intervene(i, np.ones(1, bool))).any(-1)[0] & ~scene["masks"][0, 0]
        assert dark[(distance < radius - 0.02) & ~scene["masks"][0, 0]].all()
        length = np.hypot(*(top - setup.position[0]))
        assert not dark[distance > radius + length + 0.02].any()


def test_taller_objects_hide_lower_ones():
    world = Shadows(size=64, frames=1)
    for i in range(40):
        scene, height = world[i], world.setup(i).height
        for a in range(len(height)):
            lower = height < height[a]
            assert not (scene["masks"][lower] & scene["amodal"][a]).any()


def test_lights_are_given_and_hang_above_everything():
    world = Shadows(size=16, frames=1, height=(0.4, 1.5))
    counts = set()
    for i in range(30):
        lights = world[i]["lights"]
        counts.add(lights.shape[1])
        assert lights.dtype == np.float32 and (lights[..., 2] > 1.5).all()
    assert counts == {1, 2}


def test_the_brightest_top_is_the_one_that_is_seen_brightest():
    """The answer from geometry against the pixels at the tops' centres, divided by the objects' colours."""
    world, agree, all_ = Shadows(size=96, frames=4, objects=(3, 5)), 0, 0
    for i in range(40):
        setup, scene = world.setup(i), world[i]
        if not (setup.turn != 0).all():
            continue
        happens, final = world.outcome(setup, np.zeros(len(setup.kind), bool))
        assert np.array_equal(final, setup.position.astype(np.float32)) and 0 < happens.sum() < len(happens)
        column, row = (setup.position * 96).astype(int).T
        if not scene["masks"][np.arange(len(row)), -1, row, column].all():
            continue  # a centre that a taller object hides
        around = np.stack([scene["video"][-1, row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]).astype(int)
        if np.ptp(around, 0).max() > 4:
            continue  # a centre on the border of a shadow: less than a pixel decides
        light = scene["video"][-1, row, column].sum(-1) / setup.colour.astype(float).sum(-1)
        margin = np.abs(light - light.mean()) > 0.02
        agree += ((light > light.mean()) == happens)[margin].sum()
        all_ += margin.sum()
    assert all_ > 60 and agree == all_


@pytest.mark.parametrize(
    "options", [{"height": (0.5, 0.1)}, {"lights": (0, 1)}, {"lights": (3, 2)}, {"turn": (-1, 1)}, {"dt": 0}]
)
def test_bad_light_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Shadows(**options)
