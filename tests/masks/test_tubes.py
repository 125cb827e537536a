"""V-JEPA's masks against the published sampler's rules, written again here with sets and loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import tubes

SHORT, LONG = (8, 0.15), (2, 0.7)


def one(seed, grid, **options):
    patches = np.zeros((2, int(np.prod(grid))), bool)
    masked, removed = tubes.draw(np.random.default_rng(seed), patches, np.ones(2, bool), grid=grid, **options)
    assert not removed.any() and removed.shape == (2,)
    return masked


def published(rng, rows, cols, count, share):
    """The number of hidden places: `count` blocks of one size. Drawn again where nothing is left to see."""
    area, ratio = int(rows * cols * share), rng.uniform(0.75, 1.5)
    height, width = min(int(round(np.sqrt(area * ratio))), rows), min(int(round(np.sqrt(area / ratio))), cols)
    while True:
        hidden = set()
        for _ in range(count):
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, cols - width + 1)
            hidden |= {(r, c) for r in range(top, top + height) for c in range(left, left + width)}
        if len(hidden) < rows * cols:
            return len(hidden)


@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_amounts_are_the_published_samplers(kind):
    mine = np.array([one(seed, (14, 14), kinds=(kind,)).sum() for seed in range(800)])
    rng = np.random.default_rng(0)
    theirs = np.array([published(rng, 14, 14, *kind) for _ in range(800)])
    assert stats.ks_2samp(mine, theirs).pvalue > 1e-3 and abs(mine.mean() - theirs.mean()) < 2


def test_both_kinds_with_equal_chances():
    """By the mean amount, which lies in the middle of the two kinds' own."""
    short, long, both = (
        np.mean([one(seed, (14, 14), **options).mean() for seed in range(300)])
        for options in ({"kinds": (SHORT,)}, {"kinds": (LONG,)}, {})
    )
    assert long - short > 0.1 and both == pytest.approx((short + long) / 2, abs=0.03)


def test_a_tube_has_the_stated_area_and_aspect_and_lies_anywhere():
    ratios, hit = [], np.zeros((40, 40))
    for seed in range(300):
        plane = one(seed, (40, 40), kinds=((1, 0.15),)).reshape(40, 40)
        height, width = (np.ptp(np.flatnonzero(plane.any(axis))) + 1 for axis in (1, 0))
        assert plane.sum() == height * width
        assert (height - 0.5) * (width - 0.5) <= 240 <= (height + 0.5) * (width + 0.5)
        ratios.append(height / width)
        hit += plane
    assert min(ratios) < 0.8 and max(ratios) > 1.4 and abs(np.mean(ratios) - 1.125) < 0.05
    assert hit.min() >= 0 and np.abs(hit - hit[::-1]).max() < 45 and np.abs(hit - hit[:, ::-1]).max() < 45


def test_tubes_are_hidden_at_all_times():
    for seed in range(20):
        clip = one(seed, (3, 8, 8)).reshape(3, 8, 8)
        assert (clip == clip[0]).all() and 0 < clip.sum() < clip.size


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    grid=st.lists(st.integers(1, 5), min_size=2, max_size=3).filter(lambda grid: np.prod(grid) > 1).map(tuple),
    kind=st.sampled_from([SHORT, LONG, (3, 1.0), (1, 0.01)]),
)
def test_something_is_always_hidden_and_something_seen(seed, grid, kind):
    masked = one(seed, grid, kinds=(kind,))
    assert 0 < masked.sum() < masked.size


def test_the_generator_decides():
    assert (one(3, (8, 8)) == one(3, (8, 8))).all() and (one(3, (8, 8)) != one(4, (8, 8))).any()


@pytest.mark.parametrize(
    "options",
    [{"kinds": ()}, {"kinds": ((0, 0.5),)}, {"kinds": ((2, 1.5),)}, {"aspect": (2.0, 1.0)}],
    ids=str,
)
def test_options_that_cannot_work_are_named(options):
    ((name, _),) = options.items()
    with pytest.raises(ConfigError, match=f"mask.{name} = .*must be"):
        one(0, (8, 8), **options)
