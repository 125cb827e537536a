"""Several scenes' context in one row: nothing lost, nothing mixed, little padded, and the same loss and gradient."""

import dataclasses
import functools
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax.data import batching
from cjepa_jax.objectives import jepa, mae
from tests import running, scenes
from tests.objectives.test_jepa import ENCODER, PREDICTOR, as_batch

DECODER = {"depth": 1, "width": 16, "heads": 2}
SHARES = (0.5, 0.75, 0.9, 1.0)


def shapes(pack, tokens, per_shard, shares=SHARES):
    return batching.shapes(SimpleNamespace(pack=pack, row_lengths=shares), tokens, per_shard)


@pytest.mark.parametrize(
    "pack, tokens, per_shard, shares, expected",
    [(4, 196, 128, (0.7, 0.8, 1.0), ((23, 784), (26, 784), (32, 784))), (2, 10, 5, (0.4, 1.0), ((1, 20), (3, 20))),
     (1, 9, 10, (0.7, 1.0), ((7, 9), (10, 9))), (3, 16, 2, (0.5, 1.0), ((1, 32),)),
     (2, 8, 4, (0.01, 1.0), ((1, 16), (2, 16))), (1, 9, 100, (0.07, 1.0), ((7, 9), (100, 9)))],
)  # fmt: skip
def test_shapes_are_shares_of_the_rows_that_hold_any_scenes(pack, tokens, per_shard, shares, expected):
    assert shapes(pack, tokens, per_shard, shares) == expected


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shards=st.sampled_from([1, 2, 4]),
    per_shard=st.integers(1, 9),
    tokens=st.integers(1, 20),
    pack=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_every_token_once_in_a_row_of_its_shard(seed, shards, per_shard, tokens, pack, density):
    rng = np.random.default_rng(seed)
    context = rng.random((shards * per_shard, tokens)) < density * rng.random((shards * per_shard, 1))
    context[rng.random(len(context)) < 0.2] = density > 0.5
    empty = not context.any(1).all()  # a scene without context uses up an id
    possible = shapes(pack, tokens, per_shard)
    rows, length = possible[chosen := batching.choose(context, shards, possible)]  # the last one always fits
    index, segment = batching.lay_out(context, shards, (rows, length))
    assert index.shape == segment.shape == (shards, rows, length) and index.dtype == segment.dtype == np.int32
    assert ((index == per_shard * tokens) == (segment == 0)).all()
    for shard in range(shards):
        own, where = context[shard * per_shard : (shard + 1) * per_shard], {}
        for row in range(rows):
            real = segment[shard, row] > 0
            assert not (np.diff(real.astype(int)) > 0).any(), "padding comes last"
            scene, ids = index[shard, row][real] // tokens, segment[shard, row][real]
            assert (np.diff(index[shard, row][real]) > 0).all(), "scenes in order, their tokens in grid order"
            assert (np.diff(ids) == (np.diff(scene) > 0)).all() or empty, "ids 1, 2, 3, ... in that order"
            assert len(np.unique(ids)) == len(np.unique(scene)) and (empty or not len(ids) or ids[0] == 1)
            assert not where.keys() & set(scene.tolist()), "no scene spans two rows"
            where |= dict.fromkeys(scene.tolist(), row)
        np.testing.assert_array_equal(np.sort(index[shard][segment[shard] > 0]), np.flatnonzero(own))
    for smaller in possible[:chosen]:
        with pytest.raises(ValueError):
            batching.lay_out(context, shards, smaller)


def test_the_largest_shard_decides_for_all():
    context = np.ones((8, 4), bool)
    context[2:] = [True, False, False, False]  # shards of 2: the first is full, the others have half of a row in all
    possible = shapes(1, 4, 2)
    assert possible == ((1, 4), (2, 4)) and batching.choose(context, 4, possible) == 1
    assert batching.choose(context[::-1], 4, possible) == 1 and batching.choose(context[2:], 3, possible) == 0
    assert batching.lay_out(context, 4, possible[1])[0].shape == (4, 2, 4)


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=2, max_size=40), pack=st.integers(1, 5))
def test_rows_of_k_grids_hold_any_k_scenes(counts, pack):
    *_, (rows, length) = shapes(pack, 12, len(counts))
    row = batching.assign(np.array(counts), (rows, length))
    assert rows == -(-len(counts) // min(pack, len(counts)))
    assert np.bincount(row, counts, minlength=rows).max() <= length


@pytest.mark.parametrize(
    "counts, shape",
    [([9] * 4 + [5] * 8, (8, 10)), ([9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1], (6, 15)),
     ([9] * 6 + [3] * 6, (8, 10)), ([4, 2], (1, 6)), ([5, 5, 4, 4, 3, 3], (2, 12))],
)  # fmt: skip
def test_scenes_find_room_where_there_is_hardly_any(counts, shape):
    row = batching.assign(np.array(counts), shape)
    assert np.bincount(row, counts).max() <= shape[1] and row.max() < shape[0]
    assert batching.assign(np.array(counts), (sum(counts) // shape[1], shape[1] - 1)) is None


@pytest.mark.parametrize("tokens", [196, 1568])
def test_a_batch_of_1024_scenes_is_packed_in_no_time(tokens):
    """In less than four times what two passes of NumPy over the mask take on this machine: 2.3 to 2.7, some 0.07 s."""
    rng = np.random.default_rng(0)
    context = rng.random((1024, tokens)) < rng.uniform(0.5, 0.95, (1024, 1))
    spent, passes = [], []
    for _ in range(5):
        start = time.thread_time()
        np.nonzero(context), context.astype(np.int64).cumsum(1)
        passes.append(time.thread_time() - start)
        start = time.thread_time()  # of this thread's own: other work on the machine does not count
        possible = shapes(4, tokens, 1024, (0.5, 0.7, 0.76, 1.0))
        shape = possible[batching.choose(context, 1, possible)]
        _, segment = batching.lay_out(context, 1, shape)
        spent.append(time.thread_time() - start)
    assert min(spent) < 4 * min(passes)
    assert segment.shape == (1, 195, 4 * tokens) and (segment > 0).mean() > 0.95


@functools.cache
def arrays():
    return scenes.batch(scenes=tuple(range(8)))


def laid_out(shards, shape, pixels):
    batch = as_batch(batching.with_rows(arrays(), shards, shape))
    return batch if pixels else dataclasses.replace(batch, intervened=None, intervened_valid=None)


@pytest.mark.parametrize(
    "objective, pixels",
    [
        pytest.param(jepa.Jepa(ENCODER, PREDICTOR, 10), True, id="jepa", marks=pytest.mark.slow),
        # Without the picture (drop_tokens) the target encodes the same rows.
        pytest.param(jepa.Jepa(ENCODER, PREDICTOR, 10), False, id="jepa, tokens dropped", marks=pytest.mark.slow),
        pytest.param(mae.Mae(ENCODER, DECODER, 10), True, id="mae", marks=pytest.mark.slow),
    ],
)
def test_loss_and_gradient_do_not_depend_on_the_layout(objective, pixels):
    plain = laid_out(1, (8, 16), pixels)
    state = jax.jit(objective.init)(jax.random.key(0), plain)

    @jax.jit
    def run(batch):
        return jax.value_and_grad(lambda p: objective.loss(p, *state[1:], batch, jax.random.key(1), 0)[0])(state[0])

    possible = shapes(2, 16, 4)  # two shards of 4 scenes each, up to two grids to a row
    shape = possible[batching.choose(arrays()["context"], 2, possible)]
    packed = laid_out(2, shape, pixels)
    assert packed.rows.segment.max() > 1 and packed.rows.segment.shape[1] < 4
    (loss, gradient), (same, other) = run(plain), run(packed)
    np.testing.assert_allclose(same, loss, rtol=1e-5)
    for one, two in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        assert jnp.linalg.norm(one - two) <= 1e-5 * jnp.linalg.norm(one)


@pytest.mark.slow
def test_a_packed_run_learns_as_a_plain_one_does(tmp_path):
    """The training command, its shapes of rows drawn as they come. Only the order of sums differs."""
    losses = {}
    for pack, shares in ((0, (0.8, 1.0)), (2, (0.7, 0.8, 1.0))):
        values = {
            "data__pack": pack,
            "data__row_lengths": shares,
            "train__steps": 6,
            "log__every": 1,
            "probe__every": 0,
        }
        running.run(running.command(tmp_path / str(pack), **values))
        losses[pack] = [(line["loss"], line["grad_norm"]) for line in running.metrics(tmp_path / str(pack))[0]]
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-3)
    assert len(losses[0]) == 6 and losses[0][0] != losses[0][-1]
