"""Padding objects, and laying out rows of one scene each."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax.data import batching
from cjepa_jax.errors import DataError


@pytest.mark.parametrize(
    "shares, tokens, expected",
    [((0.5, 0.7, 0.85, 1.0), 196, (104, 144, 168, 196)), ((1.0,), 128, (128,)), ((0.5, 1.0), 10, (8, 10)),
     ((0.5, 0.7, 0.85, 1.0), 16, (8, 16)), ((0.5,), 64, (32, 64))],
)  # fmt: skip
def test_row_lengths_are_few_multiples_of_eight_that_end_at_the_grid(shares, tokens, expected):
    assert batching.row_lengths(shares, tokens) == expected
    unpacked = batching.shapes(SimpleNamespace(pack=0, row_lengths=shares), tokens, 3)
    assert unpacked == tuple((3, length) for length in expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shards=st.sampled_from([1, 2, 4]),
    tokens=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_rows_list_each_scenes_context_within_its_shard(seed, shards, tokens, density):
    context = np.random.default_rng(seed).random((8, tokens)) < density
    per_shard, lengths = 8 // shards, batching.row_lengths((0.5, 0.7, 1.0), tokens)
    shapes = [(per_shard, length) for length in lengths]
    shape = shapes[batching.choose(context, shards, shapes)]
    length = shape[1]
    index, segment = batching.lay_out(context, shards, shape)
    assert index.shape == segment.shape == (shards, per_shard, length) and index.dtype == segment.dtype == np.int32
    needed = context.sum(1).max()
    assert length == min(candidate for candidate in lengths if candidate >= needed)  # the shortest that holds all
    for b in range(8):
        kept = np.flatnonzero(context[b])
        own = index[b // per_shard, b % per_shard]
        assert (own[: len(kept)] == b % per_shard * tokens + kept).all()
        assert (own[len(kept) :] == per_shard * tokens).all()  # one past the shard's last token
        assert (segment[b // per_shard, b % per_shard] == (np.arange(length) < len(kept))).all()


def test_of_too_many_objects_the_largest_stay_in_their_order():
    patches = np.arange(10)[None] < np.array([[3], [9], [0], [5], [9], [1]])
    assert batching.keep_largest(patches, 3).tolist() == [1, 3, 4]
    assert batching.keep_largest(patches, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert batching.keep_largest(patches, 1).tolist() == [1]
    assert batching.keep_largest(np.zeros((0, 10), bool), 4).tolist() == []


def test_objects_are_padded_with_nothing():
    padded = batching.pad_objects(np.ones((2, 5), bool), 4)
    assert padded.shape == (4, 5) and padded[:2].all() and not padded[2:].any()


def test_scenes_of_unlike_shapes_are_refused_by_name():
    scenes = [{"context": np.ones(4, bool), "video": np.zeros((1, size, 8, 3))} for size in (8, 9)]
    with pytest.raises(DataError, match="video"):
        batching.collate(scenes)


def test_what_does_not_fit_is_refused():
    context = np.ones((4, 6), bool)
    for shape in ((4, 5), (1, 23), (3, 8)):  # in all they would hold 20, 23 and 24 tokens
        with pytest.raises(ValueError, match="tokens"):
            batching.lay_out(context, 1, shape)
        with pytest.raises(ValueError, match="hold 24 tokens"):
            batching.choose(context, 1, [shape])
