"""Algorithm 2 against its own text, its distributions, and every degenerate scene."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cjepa_jax.masks import objects

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden/formulas.json").read_text())["object_patches"]


def disjoint(count, tokens=100, each=10):
    """`count` objects of `each` tokens that do not overlap: bool [count, tokens]."""
    patches = np.zeros((count, tokens), bool)
    for k in range(count):
        patches[k, k * each : (k + 1) * each] = True
    return patches


def draws(count, object_patches, valid=None, seed=0, **options):
    valid = np.ones(len(object_patches), bool) if valid is None else valid
    for epoch in range(count):
        yield objects.draw(np.random.default_rng([seed, epoch]), object_patches, valid, **options)


def test_patches_golden():
    masks = np.zeros(GOLDEN["shape"], bool)
    masks[0, 1:3, 1:3] = masks[1, 3:6, 3:9] = masks[2, 7, 11] = True
    assert (objects.patches(masks, GOLDEN["patch"]) == np.array(GOLDEN["value"], bool)).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 4),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    tubelet=st.integers(1, 3),
    patch=st.sampled_from([1, 2, 3, 4, 6, 8, 14, 16]),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)
def test_patches_match_loops(seed, count, grid, tubelet, patch, density):
    times, rows, cols = grid
    shape = (count, times * tubelet, rows * patch, cols * patch)
    masks = np.random.default_rng(seed).random(shape) < density
    found = objects.patches(masks, patch, tubelet)
    assert found.shape == (count, times * rows * cols) and found.dtype == bool
    for k in range(count):
        for n, (t, r, c) in enumerate(np.ndindex(grid)):  # time-major, then row-major
            box = masks[k, t * tubelet : (t + 1) * tubelet, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
            assert found[k, n] == box.any()
    still = masks[:, 0]  # an image, for any tubelet of clips
    assert (objects.patches(still, patch, tubelet + 1) == objects.patches(still[:, None], patch)).all()


@pytest.mark.parametrize("shape, patch, tubelet", [((2, 9, 8), 4, 1), ((2, 8, 9), 4, 1), ((2, 3, 8, 8), 4, 2)])
def test_sizes_that_do_not_divide_are_refused(shape, patch, tubelet):
    with pytest.raises(ValueError, match="multiple"):
        objects.patches(np.zeros(shape, bool), patch, tubelet)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 6),
    grid=st.sampled_from([(4, 5), (2, 4, 5), (10, 10), (1, 2), None]),
    density=st.sampled_from([0.0, 0.03, 0.1, 0.3, 0.9, 1.0]),
    max_objects=st.integers(1, 5),
)
def test_draw_follows_algorithm_2(seed, count, grid, density, max_objects):
    rng = np.random.default_rng(seed)
    tokens = int(np.prod(grid)) if grid else 30
    patches, valid = rng.random((count, tokens)) < density, rng.random(count) < 0.8
    masked, removed = objects.draw(rng, patches, valid, max_objects, (0.05, 0.40), grid)
    assert masked.shape == (tokens,) and removed.shape == (count,) and masked.dtype == removed.dtype == bool
    assert 0 < masked.sum() < tokens  # at least one target token and one context token
    eligible = {k for k in range(count) if valid[k] and 0.05 <= patches[k].sum() / tokens <= 0.40}
    chosen = set(np.flatnonzero(removed))
    assert chosen <= eligible
    if chosen:
        assert len(chosen) <= min(max_objects, len(eligible))
        union = np.zeros(tokens, bool)
        for k in chosen:
            union |= patches[k]
        assert (masked == union).all()
    elif eligible:  # only where a draw may cover the whole grid
        assert patches[sorted(eligible)].any(0).all()


@pytest.mark.parametrize("tokens, low, high", [(100, 5, 40), (160, 8, 64), (20, 1, 8), (1568, 79, 627), (196, 10, 78)])
def test_area_bounds_are_inclusive(tokens, low, high):
    for size in (low - 1, low, high, high + 1):
        if size == 0:
            continue
        inside = 0.05 * tokens - 1e-9 <= size <= 0.40 * tokens + 1e-9
        assert inside == (low <= size <= high)
        patches = np.arange(tokens)[None] < size
        masked, removed = next(draws(1, patches))
        assert removed[0] == inside
        if inside:
            assert (masked == patches[0]).all()


def test_number_of_objects_is_uniform_up_to_what_is_eligible():
    """M = min(Uniform(1, M_max), |E|)."""
    for eligible, expected in ((5, [1 / 3, 1 / 3, 1 / 3]), (2, [1 / 3, 2 / 3]), (1, [1.0])):
        counts = np.bincount([removed.sum() for _, removed in draws(3000, disjoint(eligible))], minlength=4)[1:]
        assert counts[len(expected) :].sum() == 0
        if len(expected) > 1:
            assert stats.chisquare(counts[: len(expected)], np.array(expected) * 3000).pvalue > 1e-3
    assert all(removed.sum() == 1 for _, removed in draws(2000, disjoint(5), max_objects=1))  # never a fallback


@pytest.mark.parametrize("order", [range(6), [5, 3, 1, 0, 2, 4]])
def test_epochs_cover_eligible_objects_uniformly(order):
    """One scene over many epochs: every eligible object and every pair equally often, others never, in any order."""
    patches = np.concatenate([disjoint(5), np.arange(100)[None] < 2])[list(order)]
    removed = np.array([removed for _, removed in draws(5000, patches)])[:, np.argsort(order)]
    assert removed[:, 5].sum() == 0
    each = removed[:, :5].sum(0)
    # Each draw removes M of 5, so a count's variance is below the binomial one: the plain test is conservative.
    assert stats.chisquare(each).pvalue > 1e-3
    pairs = [(removed[:, i] & removed[:, j]).sum() for i in range(5) for j in range(i)]
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_padding_objects_changes_no_bit():
    patches = disjoint(4)
    padded = np.concatenate([patches, np.zeros((4, 100), bool)])
    spoilt = np.concatenate([patches, np.ones((4, 100), bool)])  # what lies in the padding does not count
    valid = np.arange(8) < 4
    for plain, long, full in zip(
        draws(50, patches), draws(50, padded, valid), draws(50, spoilt, valid), strict=True
    ):  # fmt: skip
        assert (plain[0] == long[0]).all() and (plain[1] == long[1][:4]).all() and not long[1][4:].any()
        assert (long[0] == full[0]).all() and (long[1] == full[1]).all()


@pytest.mark.parametrize("patches", [np.zeros((0, 100), bool), np.zeros((3, 100), bool), np.ones((3, 100), bool)])
def test_scenes_without_an_eligible_object_fall_back_to_blocks(patches):
    for masked, removed in draws(20, patches, grid=(10, 10)):
        assert not removed.any() and 15 <= masked.sum() <= 80
    for masked, removed in draws(20, patches):
        assert not removed.any() and 50 <= masked.sum() <= 90


def test_objects_that_only_together_hide_everything_are_redrawn():
    """Two halves (bounds opened): every pair is redrawn, so one of them alone is removed."""
    halves = disjoint(2, each=50)
    for masked, removed in draws(100, halves, max_objects=2, area=(0.0, 1.0), grid=(10, 10)):
        assert masked.sum() == 50 if removed.any() else 0 < masked.sum() < 100
        assert removed.sum() <= 1
    fallbacks = sum(not removed.any() for _, removed in draws(300, halves, max_objects=2, area=(0.0, 1.0)))
    assert fallbacks < 15  # only when every redraw takes both


def test_the_anchor_keeps_the_first_tubelets_visible():
    patches = np.zeros((2, 3, 20), bool)
    patches[0, :, :4] = patches[1, 0] = True  # the second object is seen only in the first tubelet
    patches = patches.reshape(2, 60)
    for masked, removed in draws(60, patches, grid=(3, 4, 5), anchor=1):
        assert not masked[:20].any() and 0 < masked.sum()
        if removed.any():
            assert removed[0] and (masked[20:] == patches[0, 20:]).all()
    for masked, _ in draws(20, np.zeros((1, 60), bool), grid=(3, 4, 5), anchor=2):
        assert not masked[:40].any() and masked[40:].any()


def test_without_an_anchor_an_object_is_hidden_in_every_frame():
    patches = np.zeros((1, 3, 20), bool)
    patches[0, 1:, :4] = True
    masked, removed = next(draws(1, patches.reshape(1, 60), grid=(3, 4, 5)))
    assert removed.all() and (masked == patches.ravel()).all()


@pytest.mark.parametrize("options", [{"grid": (3, 5)}, {"grid": (2, 2, 6)}, {"grid": (4, 4), "anchor": 1},
                                     {"grid": (2, 2, 4), "anchor": 2}, {"anchor": 1}])  # fmt: skip
def test_grids_and_anchors_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match="tokens|anchor"):
        objects.draw(np.random.default_rng(0), np.zeros((1, 16), bool), np.ones(1, bool), **options)


def test_a_grid_of_one_token_is_refused():
    """It cannot have both a context and a target token."""
    with pytest.raises(ValueError, match="token"):
        objects.draw(np.random.default_rng(0), np.ones((1, 1), bool), np.ones(1, bool), grid=(1, 1))
