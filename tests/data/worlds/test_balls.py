"""Balls: what is drawn, and how often a removal matters."""

import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls, Blocks, Craft, Ramps
from cjepa_jax.data.worlds.physics import WALL
from cjepa_jax.errors import ConfigError
from tests.data.worlds import properties


def column(world: Balls, states: np.ndarray, name: str) -> np.ndarray:
    return states[..., world.state_names.index(name)]


def test_pixels_of_a_mask_have_the_objects_colour_or_its_mark():
    world = Balls(size=64)
    for i in range(25):
        scene, setup = world[i], world.setup(i)
        for k, colour in enumerate(setup.colour):
            pixels = scene["video"][scene["masks"][k]]
            mark = (colour * 0.6).astype(np.uint8)
            assert ((pixels == colour).all(-1) | (pixels == mark).all(-1)).all()


def test_nearer_objects_hide_farther_ones():
    world, seen = Balls(size=64), 0
    for i in range(40):
        scene = world[i]
        depth = column(world, scene["states"][0], "depth")
        both = scene["amodal"][:, None] & scene["amodal"][None]
        for a, b in zip(*np.nonzero(both.any((2, 3, 4))), strict=True):
            if depth[a] < depth[b]:
                assert not (scene["masks"][b] & scene["amodal"][a]).any()
                seen += 1
    assert seen > 10


def test_objects_of_a_layer_do_not_start_inside_each_other():
    world = Balls(size=64, frames=1, foreground=0.0)
    for i in range(40):
        amodal = world[i]["amodal"][:, 0]
        assert amodal.any((1, 2)).all() and (amodal.sum(0) > 1).mean() < 0.005  # outlines may share border pixels


def test_removal_often_changes_the_others():
    """In 4 frames, the removal of one random object moves another one by 2 % of the view in most scenes."""
    world, changed = Balls(size=16), 0
    for i in range(200):
        factual = world[i]["states"]
        removed = np.arange(factual.shape[1]) == i % factual.shape[1]
        other = world.rollout(i, removed)["states"]
        changed += np.abs(factual - other)[:, ~removed, 1:3].max() > 0.02
    assert changed >= 0.45 * 200


@pytest.mark.parametrize(("size", "patch"), [(64, 8), (224, 16)])
def test_most_objects_are_of_an_eligible_size(size, patch):
    world, shares = Balls(size=size, frames=1), []
    for i in range(60):
        masks = world[i]["masks"][:, 0]
        grid = masks.reshape(len(masks), size // patch, patch, size // patch, patch).any((2, 4))
        shares.extend(grid.mean((1, 2)))
    assert np.mean([0.05 <= share <= 0.4 for share in shares]) > 0.9


def test_gravity_and_walls_can_be_fixed_and_otherwise_vary():
    drawn = {(s.physics.gravity > 0, s.physics.walls) for s in map(Balls().setup, range(60))}
    assert len(drawn) == 4
    for gravity in (True, False):
        for walls in (True, False):
            setup = Balls(gravity=gravity, walls=walls).setup(5)
            assert (setup.physics.gravity > 0, setup.physics.walls) == (gravity, walls)
            assert np.array_equal(setup.bodies.position, Balls().setup(5).bodies.position)


def test_objects_stay_within_walls():
    world = Balls(size=16, frames=40, walls=True)
    for i in range(10):
        states = world[i]["states"]
        centres = np.stack([column(world, states, "position/x"), column(world, states, "position/y")])
        assert ((centres > 0.03) & (centres < 0.97)).all()


def test_velocity_is_the_change_of_position():
    world = Balls(size=16, frames=3, walls=False, gravity=False, objects=(1, 1))
    states = world[2]["states"]
    step = np.diff(states[..., 1:3], axis=0)
    assert column(world, states, "velocity/x") == pytest.approx(step[0, 0, 0] / world.dt, rel=1e-4)
    assert column(world, states, "velocity/y") == pytest.approx(step[0, 0, 1] / world.dt, rel=1e-4)


def test_contacts_are_seen():
    """Of piles: what bounces is rarely in touch at a frame."""
    assert (
        properties.contacts_are_seen(Balls(size=64, frames=24, objects=(8, 10), gravity=True, walls=True), range(10))
        > 30
    )


def test_nothing_passes_through_walls_at_the_highest_speed_allowed():
    for dt in (0.05, 0.1, 0.5):
        limit = min(20.0, 0.1 * 16 / dt)
        world = Balls(size=8, frames=30, walls=True, radius=(0.1, 0.16), speed=(limit, limit), dt=dt)
        for i in range(15):
            centres, _ = properties.run(world, world.setup(i))
            assert (np.abs(centres[..., :2] - 0.5) < 0.5 - WALL / 2).all()


@pytest.mark.parametrize(("dt", "most"), [(0.5, "2.88"), (0.1, "14.4")])
def test_more_than_a_radius_in_a_physics_step_is_refused(dt, most):
    with pytest.raises(
        ConfigError, match=rf"data\.options\.speed .* data\.options\.dt = {dt} .* at most {most},"
    ) as error:
        Balls(speed=(0.0, 1.01 * float(most)), dt=dt)
    assert "\n" not in str(error.value) and Balls(speed=(0.0, 0.99 * float(most)), dt=dt)
    assert Balls(dt=0.5) and Balls(speed=(20.0, 20.0), dt=0.07)


@pytest.mark.parametrize(
    "options",
    [{"dt": 0.0}, {"dt": True}, {"speed": (2.0, 1.0)}, {"gravity": 3.0}, {"walls": "yes"}, {"foreground": -0.1}],
)
def test_bad_physics_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Balls(**options)


@pytest.mark.parametrize("world", [kind(size=48, frames=3) for kind in (Balls, Ramps, Blocks, Craft)])
def test_true_flow_keeps_every_point_at_its_place_in_its_object(world):
    """By the states alone: in the object's own axes, a pixel's point is the same before and after. Colours agree."""
    names = [world.state_names.index(name) for name in ("position/x", "position/y", "angle")]
    moved, same = 0, []
    for i in range(6):
        scene, (flow, seen), shift = world[i], world.flow(i), world.translation(i)
        assert flow.shape == (world.frames - 1, 48, 48, 2) and flow.dtype == np.float32 and seen.dtype == bool
        for t, k in np.ndindex(world.frames - 1, len(scene["masks"])):
            rows, cols = np.nonzero(scene["masks"][k, t])
            start = np.stack([cols, rows], -1) + 0.5
            ends = start + flow[t, rows, cols]
            own = []
            for at, points in ((t, start), (t + 1, ends)):
                x, y, angle = scene["states"][at, k, names].astype(float)
                away = points / 48 - (x, y)
                own.append(away @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            np.testing.assert_allclose(own[0], own[1], atol=2e-5)
            path = scene["states"][t : t + 2, k, names[:2]].astype(float)
            np.testing.assert_allclose(shift[t, rows, cols] / 48, np.tile(path[1] - path[0], (len(rows), 1)), atol=2e-6)
            moved += int((abs(ends - start) > 0.5).any(-1).sum())
            col, row = np.floor(ends).astype(int).T
            within = (col >= 0) & (col < 48) & (row >= 0) & (row < 48)
            shown = np.zeros(len(rows), bool)
            shown[within] = scene["masks"][k, t + 1, row[within], col[within]]
            np.testing.assert_array_equal(seen[t, rows, cols], shown)
            before, after = (
                scene["video"][at, r[shown], c[shown]] for at, r, c in ((t, rows, cols), (t + 1, row, col))
            )
            same += (before == after).all(-1).tolist()
        ground = ~scene["masks"].any(0)
        assert (flow[ground[:-1]] == 0).all() and (shift[ground[:-1]] == 0).all()
        np.testing.assert_array_equal(seen[ground[:-1]], ground[1:][ground[:-1]])
    assert moved > 100 and np.mean(same) > 0.9  # pixels at the edge of a mark may differ
