"""Displaced object masks: the same shape and amount, elsewhere."""

import numpy as np
import pytest

from cjepa_jax.masks import displaced, objects

GRID = (2, 8, 8)


def drawn(fn, patches, seed=0, **options):
    flat = patches.reshape(len(patches), -1)
    return fn(np.random.default_rng(seed), flat, flat.any(1), **{"grid": patches.shape[1:]} | options)


def scene(seed, count=4):
    """Objects of up to 4 x 4 tokens that move from one time to the next: bool [K, 2, 8, 8]."""
    rng = np.random.default_rng([seed, 1])
    patches = np.zeros((count, *GRID), bool)
    for patch in patches:
        height, width = rng.integers(2, 5, 2)
        for time in patch:
            top, left = rng.integers(0, 5, 2)
            time[top : top + height, left : left + width] = True
    return patches


def corner(clip):
    """The shape pushed into the plane's first corner, and where it was: what a translation does not change."""
    taken = np.argwhere(clip.any(0)).min(0)
    return np.roll(clip, -taken, (1, 2)), tuple(taken)


@pytest.mark.parametrize("anchor", [0, 1])
def test_it_is_the_shape_of_the_object_mask_at_another_place(anchor):
    wide = 0
    for seed in range(300):
        options = dict(seed=seed, area=(0.02, 0.4), anchor=anchor)
        (wanted, chosen), (masked, removed) = (drawn(f.draw, scene(seed), **options) for f in (objects, displaced))
        assert chosen.any() and not removed.any() and removed.shape == (4,)
        assert masked.sum() == wanted.sum() and 0 < masked.sum() < masked.size and not masked[: 64 * anchor].any()
        (shape, place), (moved, elsewhere) = corner(wanted.reshape(GRID)), corner(masked.reshape(GRID))
        if wanted.reshape(GRID).any((0, 1)).all() and wanted.reshape(GRID).any((0, 2)).all():
            wide += 1
        else:
            assert (moved == shape).all() and elsewhere != place
    assert wide < 100


def test_every_place_apart_is_as_likely():
    """A 3 x 3 object has 36 places on 8 x 8, of which 16 share no token with it: each drawn 100 times on average."""
    patches = np.zeros((1, 1, 8, 8), bool)
    patches[0, 0, 2:5, 4:7] = True
    places = [corner(drawn(displaced.draw, patches, seed)[0].reshape(1, 8, 8))[1] for seed in range(1600)]
    found, counts = np.unique(places, axis=0, return_counts=True)
    assert len(found) == 16 and (np.abs(found - [2, 4]) >= 3).any(1).all()
    assert ((counts - 100) ** 2 / 100).sum() < 38  # chi-squared of 15 degrees: exceeded once in 1000


def test_a_shape_as_large_as_the_plane_is_mirrored_or_stays():
    corner_piece = np.zeros((1, 1, 4, 4), bool)
    corner_piece[0, 0, 0], corner_piece[0, 0, :, 0] = True, True
    images = {drawn(displaced.draw, corner_piece, seed, area=(0.0, 1.0))[0].tobytes() for seed in range(40)}
    assert images == {np.flip(corner_piece, axes).tobytes() for axes in ((2,), (3,), (2, 3))}
    cross = np.zeros((1, 1, 3, 3), bool)
    cross[0, 0, 1], cross[0, 0, :, 1] = True, True
    masked, removed = drawn(displaced.draw, cross, area=(0.0, 1.0))
    assert (masked == cross.ravel()).all() and not removed.any()


def test_scenes_without_an_eligible_object_are_those_of_the_object_mask():
    for seed in range(50):
        wanted, masked = (drawn(f.draw, scene(seed), seed, area=(0.9, 0.95))[0] for f in (objects, displaced))
        assert (wanted == masked).all()


def test_a_missing_grid_is_refused():
    with pytest.raises(ValueError, match="grid"):
        drawn(displaced.draw, scene(0), grid=())


def test_in_place_hides_the_objects_and_names_none():
    for seed in range(20):
        (wanted, chosen), (masked, removed) = (drawn(f, scene(seed), seed) for f in (objects.draw, displaced.in_place))
        assert (wanted == masked).all() and not removed.any() and removed.shape == chosen.shape


@pytest.mark.parametrize("anchor", [0, 1])
def test_named_objects_are_removed_and_the_displaced_shape_is_hidden(anchor):
    for seed in range(50):
        options = dict(seed=seed, area=(0.02, 0.4), anchor=anchor)
        (_, chosen), (elsewhere, _), (masked, removed) = (
            drawn(draw, scene(seed), **options) for draw in (objects.draw, displaced.draw, displaced.named)
        )
        assert removed.any() and (removed == chosen).all() and (masked == elsewhere).all()
    masked, removed = drawn(displaced.named, scene(0), area=(0.99, 1.0))
    assert masked.any() and not removed.any()  # blocks, as of all object masks


def test_a_share_of_the_displaced_shapes_meets_the_objects():
    """As often as `meet` says, uniform over the 19 other places of 3 x 3 on 8 x 8 that share a token."""
    patches = np.zeros((1, 1, 8, 8), bool)
    patches[0, 0, 2:5, 4:7] = True
    met = [drawn(displaced.named, patches, seed, meet=0.7)[0].reshape(1, 8, 8) for seed in range(1600)]
    assert all(mask.sum() == 9 and (mask != patches[0]).any() for mask in met)
    near = [corner(mask)[1] for mask in met if (mask & patches[0]).any()]
    assert abs(len(near) / 1600 - 0.7) < 0.04
    found, counts = np.unique(near, axis=0, return_counts=True)
    assert len(found) == 19 and (np.abs(found - [2, 4]) < 3).all()
    assert ((counts - len(near) / 19) ** 2 / (len(near) / 19)).sum() < 43  # chi-squared of 18: exceeded once in 1000
    always, never = (drawn(displaced.named, patches, 0, meet=share)[0].reshape(1, 8, 8) for share in (1.0, 0.0))
    assert (always & patches[0]).any() and not (never & patches[0]).any()
    with pytest.raises(ValueError, match=r"meet = 1\.5: must be 0 to 1"):
        drawn(displaced.named, patches, meet=1.5)
