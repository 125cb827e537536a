"""Random tokens and tubes: how many, how evenly, and as many as the object mask hides."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects, random
from tests.objectives import family


def one(seed, grid, fn=random.draw, patches=None, **options):
    patches = np.zeros((2, int(np.prod(grid))), bool) if patches is None else patches
    masked, removed = fn(np.random.default_rng(seed), patches, patches.any(1), grid=grid, **options)
    assert not removed.any() and removed.shape == (len(patches),)
    return masked


@pytest.mark.parametrize("ratio", [0.1, 0.6, 0.75])
def test_the_ratio_is_met_and_every_token_hidden_as_often(ratio):
    drawn = np.array([one(seed, (2, 4, 5), ratio=ratio) for seed in range(800)])
    assert (drawn.sum(1) == round(40 * ratio)).all()
    assert np.abs(drawn.mean(0) - ratio).max() < 4.5 * np.sqrt(ratio * (1 - ratio) / 800)
    pairs = np.corrcoef(drawn.T)[~np.eye(40, dtype=bool)]  # without replacement: -1 / 39 each
    assert np.abs(pairs + 1 / 39).max() < 0.17
    assert one(0, (2, 4, 5)).sum() == 30  # 0.75 where nothing is said


def test_tubes_are_hidden_at_all_times():
    clips = np.array([one(seed, (3, 4, 5), ratio=0.4, tubes=True).reshape(3, 20) for seed in range(600)])
    assert (clips == clips[:, :1]).all() and (clips[:, 0].sum(1) == 8).all()
    assert np.abs(clips[:, 0].mean(0) - 0.4).max() < 0.09


@pytest.mark.parametrize("tubes", [False, True])
def test_an_anchor_keeps_the_first_times(tubes):
    clip = one(0, (3, 4, 5), ratio=0.4, anchor=1, tubes=tubes).reshape(3, 20)
    assert not clip[0].any() and clip.sum() == 24
    assert (clip[1] == clip[2]).all() == tubes


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    grid=st.sampled_from([(1, 2), (2, 1, 1), (3, 1, 2), (2, 4, 5), (5, 5)]),
    ratio=st.sampled_from([0.01, 0.5, 0.99]),
    tubes=st.booleans(),
    anchor=st.integers(0, 1),
)
def test_something_is_always_hidden_and_something_seen(seed, grid, ratio, tubes, anchor):
    anchor = anchor if len(grid) == 3 else 0
    masked = one(seed, grid, ratio=ratio, tubes=tubes, anchor=anchor)
    assert 0 < masked.sum() < masked.size


@pytest.mark.parametrize("anchor", [0, 1])
def test_matched_hides_as_much_as_the_object_mask_of_the_same_scene(anchor):
    rng = np.random.default_rng(0)
    grid, shapes, tubes = (2, 8, 8), [], []
    for seed in range(200):
        patches = np.zeros((4, 2, 8, 8), bool)
        for k, (top, left) in enumerate(rng.integers(0, 5, (4, 2))):
            patches[k, :, top : top + 3, left : left + 3] = True
        patches = patches.reshape(4, -1)
        wanted = objects.draw(np.random.default_rng(seed), patches, patches.any(1), grid=grid, anchor=anchor)[0]
        masked = one(seed, grid, random.matched, patches, anchor=anchor)
        assert masked.sum() == wanted.sum() and not masked[: 64 * anchor].any()
        shapes.append((masked == wanted).all())
        tubes.append(one(seed, grid, random.matched, patches, anchor=anchor, tubes=True).sum() - wanted.sum())
    assert not any(shapes)
    assert np.abs(tubes).max() <= (1 if anchor == 0 else 0)


def components(plane):
    """How many connected pieces a plane has."""
    return cv2.connectedComponents(plane.astype(np.uint8), connectivity=4)[0] - 1


@pytest.mark.parametrize("anchor", [0, 1])
def test_matched_blocks_hide_exactly_as_much_in_few_pieces(anchor):
    """Of objects that move, so that their amount is not the same at each time."""
    rng, grid, pieces, scattered, planes = np.random.default_rng(0), (3, 8, 8), [], [], []
    for seed in range(200):
        patches = np.zeros((4, *grid), bool)
        for k, (top, left) in enumerate(rng.integers(0, 4, (4, 2))):
            for time in range(3):
                patches[k, time, top + time // 2 : top + 3 + time, left : left + 3] = True
        patches = patches.reshape(4, -1)
        wanted = objects.draw(np.random.default_rng(seed), patches, patches.any(1), grid=grid, anchor=anchor)[0]
        masked = one(seed, grid, random.matched_blocks, patches, anchor=anchor)
        assert masked.sum() == wanted.sum() and not masked[: 64 * anchor].any()
        clip = masked.reshape(grid)[anchor:]
        assert (clip[0] != clip[-1]).sum() <= 1  # through all times, but for the last token's rest
        planes.append(clip[0])
        pieces.append(components(clip[0]))
        scattered.append(components(rng.permutation(clip[0].ravel()).reshape(8, 8)))
    assert np.mean(pieces) < 3 and max(pieces) <= 6 and np.mean(scattered) > 2.5 * np.mean(pieces)
    share = np.mean(planes, 0)
    middle, corners = share[3:5, 3:5].mean(), share[[0, 0, -1, -1], [0, -1, 0, -1]].mean()
    assert middle > 1.5 * corners > 0  # every token is reached, those in the middle by more places of a block


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    grid=st.sampled_from([(1, 2), (2, 1, 1), (3, 1, 2), (2, 4, 5), (5, 5)]),
    share=st.sampled_from([0.05, 0.5, 0.97]),
    anchor=st.integers(0, 1),
)
def test_matched_blocks_of_any_amount(seed, grid, share, anchor):
    anchor = anchor if len(grid) == 3 else 0
    tokens = int(np.prod(grid))
    patches = np.arange(tokens)[None] >= round((1 - share) * tokens)
    options = dict(max_objects=1, area=(0.0, 1.0), anchor=anchor)
    wanted = objects.draw(np.random.default_rng(seed), patches, patches.any(1), grid=grid, **options)[0]
    masked = one(seed, grid, random.matched_blocks, patches, **options)
    assert 0 < masked.sum() == wanted.sum() < tokens and not masked[: anchor * tokens // grid[0]].any()


@pytest.mark.parametrize("name, value", [("blocks", 0), ("scale", (0.2, 0.1)), ("aspect", (0.0, 1.0))])
def test_options_of_matched_blocks_that_cannot_work_are_named(name, value):
    with pytest.raises(ConfigError, match=f"mask.{name} = "):
        one(0, (4, 5), random.matched_blocks, **{name: value})


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_a_ratio_that_cannot_work_is_named(ratio):
    with pytest.raises(ConfigError, match=f"mask.ratio = {ratio!r}: must be above 0 and below 1"):
        one(0, (4, 5), ratio=ratio)


@pytest.mark.parametrize("mask", [random.matched, random.matched_blocks])
def test_a_drawn_pair_names_the_objects_of_algorithm_2_and_hides_the_same_tokens(mask):
    grid, patches = (2, 8, 8), np.zeros((3, 2, 8, 8), bool)
    patches[0, :, :3, :3] = patches[1, :, 4:7, 4:8] = patches[2, :, 7, 0] = True
    patches, removals = patches.reshape(3, -1), []
    for seed in range(40):
        rngs = [np.random.default_rng(seed) for _ in range(3)]
        (plain, none), (hidden, removed) = (
            mask(rng, patches, patches.any(1), pair=pair, grid=grid)
            for rng, pair in zip(rngs, ("none", "drawn"), strict=False)
        )
        assert (plain == hidden).all() and not none.any()
        assert (removed == objects.draw(rngs[2], patches, patches.any(1), grid=grid)[1]).all()
        removals.append(removed)
    assert {tuple(row) for row in removals} >= {(True, False, False), (False, True, False), (True, True, False)}
    with pytest.raises(ConfigError, match="pair = 'all': must be one of none, drawn"):
        mask(np.random.default_rng(0), patches, patches.any(1), pair="all", grid=grid)


class Drawn(np.random.Generator):
    """Its uniform numbers are all at the same share of their range."""

    share = 0.0

    def uniform(self, low=0.0, high=1.0, size=None):
        return low + self.share * (high - low)


def test_the_share_of_hidden_tokens_is_that_of_the_public_code_and_uniform():
    _, arrays = family.stored("audio_jepa")
    for u, kept in arrays["mask_draws"]:
        given = Drawn(np.random.PCG64(0))
        given.share = float(u)
        none = np.zeros((2, 192), bool)
        masked, removed = random.share(given, none, none[:, 0], grid=(1, 32, 6))
        assert (~masked).sum() == kept and not removed.any()
    none = np.zeros((0, 200), bool)
    hidden = [random.share(np.random.default_rng(i), none, none[:, 0])[0] for i in range(300)]
    counts = np.array([one.sum() for one in hidden])
    assert 80 <= counts.min() < 84 and 116 < counts.max() <= 121
    assert abs(np.mean(hidden, axis=0) - 0.5).max() < 0.15  # every token alike
    with pytest.raises(ConfigError, match=r"^mask.ratio = "):
        random.share(np.random.default_rng(0), none, none[:, 0], ratio=(0.6, 0.4))
