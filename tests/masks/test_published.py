"""The published samplers' own draws (I-JEPA and V-JEPA 2, by their public code): sizes, places and statistics.

tests/golden/published_masks.json says of what code the numbers are. Only outputs are kept.
"""

import functools
import json
import pathlib

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import grid, multiblock, tubes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
STATISTICS = json.loads((GOLDEN / "published_masks.json").read_text())["statistics"]
SIDE, TIMES = 14, 8
PUBLISHED = functools.partial(multiblock.draw, tied=True, corner=True)
KINDS = {"short": (8, 0.15), "long": (2, 0.7)}


@functools.cache
def golden():
    return dict(np.load(GOLDEN / "published_masks.npz"))


def unpacked(name, *shape):
    return np.unpackbits(golden()[name], axis=-1, count=int(np.prod(shape))).reshape(*golden()[name].shape[:-1], *shape)


def drawn(fn, count, times=1, **options):
    """`count` draws on the published grid: their masked, removed and dropped tokens."""
    patches = np.zeros((1, times * SIDE * SIDE), bool)
    shape = (SIDE, SIDE) if times == 1 else (times, SIDE, SIDE)
    out = [fn(np.random.default_rng(i), patches, patches.any(1), grid=shape, **options) for i in range(count)]
    return (np.array(part) for part in zip(*out, strict=True))


def test_one_number_gives_area_and_shape_of_a_target():
    for u, *size in golden()["ijepa_sizes"][:, :3].astype(float):
        assert multiblock.tied_sides(u, (0.15, 0.2), (0.75, 1.5), SIDE, SIDE) == tuple(size)


def test_the_context_is_the_first_of_what_targets_leave_of_one_square():
    """The public collator's context, cut to the least of its batch: ours of the same targets."""
    square = np.zeros((SIDE, SIDE), bool)
    square[:13, :13] = True  # for any area: 0.85 to 1 of 14 x 14
    assert (golden()["ijepa_sizes"][:, 4:] == 13).all()
    contexts, targets = unpacked("ijepa_context", SIDE, SIDE), unpacked("ijepa_targets", SIDE, SIDE)
    for batch, blocks in zip(contexts, targets, strict=True):
        whole = square & ~blocks.any(1)
        least = whole.sum((1, 2)).min()
        np.testing.assert_array_equal(batch, [grid.first(one, int(least)) for one in whole])


def test_places_are_as_likely_as_in_the_public_sampler():
    """How often a token is a target, over 4 targets: never in the last row and column, most often in the middle."""
    share, rng = golden()["ijepa_hit_share"], np.random.default_rng(0)
    hits = np.zeros((SIDE, SIDE))
    for _ in range(1500):
        size = multiblock.tied_sides(rng.random(), (0.15, 0.2), (0.75, 1.5), SIDE, SIDE)
        hits += sum(grid.rectangle(rng, *size, SIDE, SIDE, last=False) for _ in range(4))
    np.testing.assert_array_equal(hits[[-1], :], 0)
    np.testing.assert_array_equal(hits[:, [-1]], 0)
    np.testing.assert_allclose(hits / 1500, share, atol=0.14)  # 4 standard deviations of both


def test_statistics_of_ijepas_masks():
    """Context and union of the targets: mean and deviation. Together they are the square."""
    masked, removed, dropped = drawn(PUBLISHED, 900)
    known = STATISTICS["ijepa"]
    context, union = (~masked & ~dropped).sum(1), masked.sum(1)
    assert not removed.any() and (context + union == 13 * 13).all()
    error = np.sqrt(known["context_sd"] ** 2 * (1 / 900 + 1 / known["n"]))
    assert abs(context.mean() - known["context_mean"]) < 4 * error
    assert abs(union.mean() - known["union_mean"]) < 4 * error
    assert context.std() == pytest.approx(known["context_sd"], rel=0.08)
    free = np.mean(list(map(np.sum, drawn(multiblock.draw, 300)))[:1]) / 300  # ours by default is another sampler
    assert abs(free - known["union_mean"]) > 2


def test_a_context_cut_to_its_batch_is_shorter_and_its_start():
    """Published: 4 images a step. The targets stay, the context's last rows go."""
    (whole, _, left), (cut, _, more) = drawn(PUBLISHED, 150), drawn(PUBLISHED, 150, batch=4)
    a, b = ~whole & ~left, ~cut & ~more
    np.testing.assert_array_equal(whole, cut)  # the same seeds, the same first scene
    for one, two in zip(a, b, strict=True):
        np.testing.assert_array_equal(two, grid.first(one, int(two.sum())))
    lengths = unpacked("ijepa_context", SIDE, SIDE)[:, 0].sum((1, 2))
    assert (b.sum(1) <= a.sum(1)).all()
    assert 0.1 < (b.sum(1) == a.sum(1)).mean() < 0.4  # the first of four scenes is the shortest in a quarter of them
    assert abs(b.sum(1).mean() - lengths.mean()) < 12  # of 6 steps: 70 +- 4


@pytest.mark.parametrize("name", KINDS)
def test_sizes_and_statistics_of_vjepas_masks(name):
    known = STATISTICS[f"vjepa_{name}"]
    for u, times, *size in golden()[f"vjepa_sizes_{name}"].astype(float):
        assert times == TIMES
        assert grid.sides(int(KINDS[name][1] * SIDE**2), 0.75 + 0.75 * u, SIDE, SIDE) == tuple(size)
    masked, _ = drawn(tubes.draw, 500, TIMES, kinds=(KINDS[name],))
    share = 1 - masked.mean(1)
    error = known["sd"] * np.sqrt(1 / 500 + 1 / known["n"])
    assert abs(share.mean() - known["context_share_mean"]) < 4 * error
    assert share.std() == pytest.approx(known["sd"], rel=0.12)


@pytest.mark.parametrize("name", KINDS)
def test_vjepas_masks_cut_to_their_batch_begin_as_the_whole_ones(name):
    """The public collator's masks from its own first time, in which nothing is cut. Then the share that is kept."""
    for context, hidden in unpacked(f"vjepa_{name}", TIMES, SIDE, SIDE).reshape(-1, 2, TIMES, SIDE, SIDE) > 0:
        whole = np.broadcast_to(hidden[0], hidden.shape)
        np.testing.assert_array_equal(hidden, grid.first(whole, int(hidden.sum())))
        np.testing.assert_array_equal(context, grid.first(~whole, int(context.sum())))
    masked, _, dropped = drawn(tubes.draw, 100, TIMES, kinds=(KINDS[name],), batch=24)
    context = ~masked & ~dropped
    assert not (masked & dropped).any() and masked.any(1).all() and context.any(1).all()
    kept = STATISTICS[f"vjepa_{name}"]["kept_share_of_tokens_at_batch_24"]
    assert 1 - dropped.mean() == pytest.approx(kept, abs=0.025)
    whole, _ = drawn(tubes.draw, 100, TIMES, kinds=(KINDS[name],))
    for one, hidden, seen in zip(whole, masked, context, strict=True):
        np.testing.assert_array_equal(hidden, grid.first(one, int(hidden.sum())))
        np.testing.assert_array_equal(seen, grid.first(~one, int(seen.sum())))


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 2), (2, 1, 1), (3, 2, 2), (2, 4, 5)])
@pytest.mark.parametrize(
    "fn", [functools.partial(PUBLISHED, batch=3), functools.partial(tubes.draw, batch=3), multiblock.draw]
)
def test_on_any_plane_something_is_hidden_and_something_seen(fn, shape):
    patches = np.zeros((1, int(np.prod(shape))), bool)
    for i in range(8):
        masked, removed, dropped = fn(np.random.default_rng(i), patches, patches.any(1), grid=shape)
        assert masked.any() and not (masked & dropped).any() and not (masked | dropped).all() and not removed.any()


@pytest.mark.parametrize("fn, name, value", [
    (multiblock.draw, "batch", 0), (multiblock.draw, "batch", 10**9),
    (tubes.draw, "batch", 0), (tubes.draw, "batch", 10**9),
])  # fmt: skip
def test_options_that_cannot_work_are_named(fn, name, value):
    patches = np.zeros((1, 16), bool)
    with pytest.raises(ConfigError, match=f"mask.{name} = {value!r}: must be"):
        fn(np.random.default_rng(0), patches, patches.any(1), grid=(4, 4), **{name: value})
