"""The fallback's rectangles: their sizes, shapes and times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax.masks import blocks


def one(seed, grid, **options):
    patches = np.zeros((2, int(np.prod(grid))), bool)
    return blocks.draw(np.random.default_rng(seed), patches, np.ones(2, bool), grid=grid, **options)


def test_a_block_has_the_stated_area_and_aspect():
    """0.15-0.2 of the plane, height / width 0.75-1.5. Sides are whole tokens, so half a token of slack each."""
    shares, aspects = [], []
    for seed in range(300):
        plane = one(seed, (40, 40), count=1)[0].reshape(40, 40)
        rows, cols = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
        height, width = len(rows), len(cols)
        assert plane.sum() == height * width and np.ptp(rows) == height - 1 and np.ptp(cols) == width - 1
        shares.append(height * width / 1600)
        aspects.append(height / width)
        assert (height - 0.5) * (width - 0.5) <= 0.2 * 1600 and (height + 0.5) * (width + 0.5) >= 0.15 * 1600
        assert (height - 0.5) / (width + 0.5) <= 1.5 and (height + 0.5) / (width - 0.5) >= 0.75
    assert min(shares) < 0.155 and max(shares) > 0.195 and abs(np.mean(shares) - 0.175) < 0.004
    assert min(aspects) < 0.8 and max(aspects) > 1.4 and abs(np.mean(aspects) - 1.125) < 0.05


def test_blocks_lie_anywhere():
    hit = np.mean([one(seed, (10, 10), count=1)[0] for seed in range(400)], axis=0).reshape(10, 10)
    assert hit.min() > 0 and np.abs(hit - hit[::-1]).max() < 0.12 and np.abs(hit - hit[:, ::-1]).max() < 0.12


def test_four_blocks_by_default():
    shares = np.array([one(seed, (20, 20))[0].mean() for seed in range(200)])
    assert shares.max() <= 0.85 and shares.min() >= 0.14
    # Four independent blocks of 0.175 each: more than two would cover on average, and less than their sum.
    assert 0.37 < shares.mean() < 0.6


def test_a_block_goes_through_all_times():
    for seed in range(20):
        masked, removed = one(seed, (3, 6, 7))
        clip = masked.reshape(3, 6, 7)
        assert (clip == clip[0]).all() and not removed.any()


def test_an_anchor_keeps_the_first_times():
    clip = one(0, (3, 6, 7), anchor=1)[0].reshape(3, 6, 7)
    assert not clip[0].any() and clip[1].any() and (clip[1] == clip[2]).all()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    grid=st.lists(st.integers(1, 5), min_size=2, max_size=3).filter(lambda grid: np.prod(grid) > 1).map(tuple),
    count=st.integers(1, 9),
)
def test_something_is_always_hidden_and_something_seen(seed, grid, count):
    masked, removed = one(seed, grid, count=count)
    assert 0 < masked.sum() < masked.size and not removed.any() and removed.shape == (2,)


def test_without_a_grid_tokens_are_scattered():
    shares = [blocks.draw(np.random.default_rng(s), np.zeros((1, 200), bool), np.ones(1, bool))[0].mean()
              for s in range(200)]  # fmt: skip
    assert min(shares) >= 0.59 and max(shares) <= 0.81 and np.mean(shares) == pytest.approx(0.7, abs=0.02)


def test_the_generator_decides():
    assert (one(3, (8, 8))[0] == one(3, (8, 8))[0]).all() and (one(3, (8, 8))[0] != one(4, (8, 8))[0]).any()
