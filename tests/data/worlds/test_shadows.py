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


def test_all_frames_are_equal():
    scene = Shadows(size=32, frames=5)[0]
    assert all((scene[name] == scene[name][:1]).all() for name in ("video", "states"))
    assert (scene["masks"] == scene["masks"][:, :1]).all() and not len(scene["contacts"])


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
        counts.add(len(lights))
        assert lights.dtype == np.float32 and (lights[:, 2] > 1.5).all()
    assert counts == {1, 2}


@pytest.mark.parametrize("options", [{"height": (0.5, 0.1)}, {"lights": (0, 1)}, {"lights": (3, 2)}])
def test_bad_light_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Shadows(**options)
