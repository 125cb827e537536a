"""I-JEPA's masks against the published sampler's rules, written again here with sets and loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import multiblock


def one(seed, grid, **options):
    """(masked, context, dropped), each bool [N]."""
    patches = np.zeros((2, int(np.prod(grid))), bool)
    masked, removed, dropped = multiblock.draw(
        np.random.default_rng(seed), patches, np.ones(2, bool), grid=grid, **options
    )
    assert not removed.any() and removed.shape == (2,)
    return masked, ~masked & ~dropped, dropped


def published(rng, rows, cols, min_keep=10):
    """(tokens of the targets, tokens of the context) of one scene: one size for all targets, places independent."""

    def size(share, ratio):
        height = int(round(np.sqrt(int(rows * cols * share) * ratio)))
        width = int(round(np.sqrt(int(rows * cols * share) / ratio)))
        while height >= rows:
            height -= 1
        while width >= cols:
            width -= 1
        return height, width

    def block(height, width):
        top, left = rng.integers(0, rows - height, endpoint=True), rng.integers(0, cols - width, endpoint=True)
        return {(r, c) for r in range(top, top + height) for c in range(left, left + width)}

    shape = size(rng.uniform(0.15, 0.2), rng.uniform(0.75, 1.5))
    targets = [block(*shape) for _ in range(4)]
    shape = size(rng.uniform(0.85, 1.0), 1.0)
    while True:
        context = block(*shape) - set().union(*targets)
        if len(context) > min_keep:
            return set().union(*targets), context


@pytest.mark.parametrize("rows, cols", [(14, 14), (12, 16)])
def test_amounts_are_the_published_samplers(rows, cols):
    """The distributions of both areas and of what is dropped, by two-sample Kolmogorov-Smirnov tests."""
    mine = np.array([[part.sum() for part in one(seed, (rows, cols))] for seed in range(800)])
    rng, theirs = np.random.default_rng(0), []
    for _ in range(800):
        target, context = published(rng, rows, cols)
        theirs.append([len(target), len(context), rows * cols - len(target) - len(context)])
    for a, b in zip(mine.T, np.array(theirs).T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
        assert abs(a.mean() - b.mean()) < 0.01 * rows * cols


def test_a_target_has_the_stated_area_and_aspect():
    shares, ratios = [], []
    for seed in range(300):
        plane = one(seed, (40, 40), targets=1)[0].reshape(40, 40)
        height, width = (np.ptp(np.flatnonzero(plane.any(axis))) + 1 for axis in (1, 0))
        assert plane.sum() == height * width
        shares.append(height * width / 1600)
        ratios.append(height / width)
        assert (height - 0.5) * (width - 0.5) <= 0.2 * 1600 and (height + 0.5) * (width + 0.5) >= 0.15 * 1600 - 1
        assert (height - 0.5) / (width + 0.5) <= 1.5 and (height + 0.5) / (width - 0.5) >= 0.75
    assert min(shares) < 0.155 and max(shares) > 0.195 and abs(np.mean(shares) - 0.175) < 0.004
    assert min(ratios) < 0.8 and max(ratios) > 1.4 and abs(np.mean(ratios) - 1.125) < 0.05


def test_the_context_is_a_square_without_the_targets():
    for seed in range(100):
        masked, context, _ = (part.reshape(40, 40) for part in one(seed, (40, 40)))
        top, left = np.flatnonzero(context.any(1))[0], np.flatnonzero(context.any(0))[0]
        height, width = (np.ptp(np.flatnonzero(context.any(axis))) + 1 for axis in (1, 0))
        assert max(height, width) <= 39 and context.sum() > 10  # a square of 36..39, of which targets may cut sides
        assert (context | masked)[top : top + height, left : left + width].all()


def test_blocks_lie_anywhere():
    """The last row and column too, which the published sampler never reaches."""
    hit = np.mean([one(seed, (10, 10), targets=1)[0] for seed in range(400)], axis=0).reshape(10, 10)
    assert hit.min() > 0 and np.abs(hit - hit[::-1]).max() < 0.12 and np.abs(hit - hit[:, ::-1]).max() < 0.12


def test_a_context_that_is_too_small_drives_targets_out():
    """Targets that cover nearly everything: after 20 places each one of them limits the context no longer."""
    for seed in range(30):
        masked, context, dropped = one(seed, (14, 14), target_scale=(0.95, 1.0), aspect=(1.0, 1.0), min_keep=60)
        assert context.sum() > 60 and masked.sum() >= 1 and not (masked & context).any()
    few = [one(seed, (14, 14), min_keep=10)[1].sum() for seed in range(300)]
    assert min(few) > 10
    quarter = [one(seed, (7, 7), min_keep=40)[1].sum() for seed in range(100)]  # of the plane, so of the least
    assert 10 < min(quarter) < max(quarter) < 30  # a square without targets has 36


def test_blocks_go_through_all_times():
    for seed in range(20):
        for part in one(seed, (3, 8, 8)):
            clip = part.reshape(3, 8, 8)
            assert (clip == clip[0]).all()
        assert (one(seed, (3, 8, 8))[0][:64] == one(seed, (8, 8))[0]).all()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    grid=st.lists(st.integers(1, 5), min_size=2, max_size=3).filter(lambda grid: np.prod(grid[-2:]) > 1).map(tuple),
    targets=st.integers(1, 6),
    min_keep=st.sampled_from([0, 10, 1000]),
    scale=st.sampled_from([(0.15, 0.2), (0.01, 0.01), (1.0, 1.0)]),
)
def test_something_is_always_hidden_and_something_seen(seed, grid, targets, min_keep, scale):
    masked, context, dropped = one(seed, grid, targets=targets, min_keep=min_keep, target_scale=scale)
    assert masked.any() and context.any()
    assert (masked.astype(int) + context + dropped == 1).all()


def test_the_generator_decides():
    same, other = one(3, (8, 8)), one(4, (8, 8))
    assert all((a == b).all() for a, b in zip(same, one(3, (8, 8)), strict=True))
    assert (same[0] != other[0]).any()


@pytest.mark.parametrize(
    "options",
    [{"targets": 0}, {"min_keep": -1}, {"target_scale": (0.2, 0.15)}, {"target_scale": (0.0, 0.2)},
     {"context_scale": (0.85, 1.1)}, {"aspect": (0.0, 1.5)}],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_work_are_named(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=f"mask.{name} = .*must be") as caught:
        one(0, (8, 8), **options)
    assert repr(value) in str(caught.value) and "\n" not in str(caught.value)
