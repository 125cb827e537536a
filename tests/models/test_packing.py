"""Gather and scatter against loops, their gradients against plain indexing, and no word between shards."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from cjepa_jax import sharding
from cjepa_jax.data.batching import lay_out
from cjepa_jax.models import packing as plain
from cjepa_jax.types import Rows
from tests.compiled import whole

packing = whole(plain, "grid")
B, N, D = 8, 6, 3


def example(seed=0, shards=2, padding=0):
    rng = np.random.default_rng(seed)
    context = rng.random((B, N)) < 0.6
    context[0] = True
    index, segment = lay_out(context, shards, (B // shards, N))
    wider = [(0, 0), (0, 0), (0, padding)]
    rows = Rows(np.pad(index, wider, constant_values=B // shards * N), np.pad(segment, wider))
    return rng.normal(size=(B, N, D)).astype(np.float32), context, rows


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_rows_hold_each_scenes_context_in_grid_order(shards):
    x, context, rows = example(shards=shards, padding=2)
    packed, segment = packing.gather(x, rows)
    assert packed.shape == (B, N + 2, D) and segment.shape == (B, N + 2)
    packed, segment = jax.device_get((packed, segment))
    for b in range(B):
        kept = x[b][context[b]]
        np.testing.assert_array_equal(packed[b, : len(kept)], kept)
        assert (packed[b, len(kept) :] == 0).all()
        assert (segment[b] == (np.arange(N + 2) < len(kept))).all()


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_scatter_puts_tokens_back_and_zeros_elsewhere(shards):
    x, context, rows = example(shards=shards)
    packed, _ = packing.gather(x, rows)
    back = packing.scatter(
        np.where(np.asarray(packed) == 0, np.float32(99), packed), rows, (B, N)
    )  # padding's content goes nowhere
    np.testing.assert_array_equal(back, np.where(context[..., None], x, 0))


def plain_gather(x, rows):
    shards = rows.index.shape[0]
    flat = jnp.concatenate([x.reshape(shards, -1, D), jnp.zeros((shards, 1, D))], 1)
    index = rows.index.reshape(shards, -1)
    return flat[np.arange(shards)[:, None], index].reshape(-1, rows.index.shape[-1], D)


def plain_scatter(packed, rows, grid):
    shards = rows.index.shape[0]
    index, flat = rows.index.reshape(shards, -1), jnp.zeros((shards, grid[0] * grid[1] // shards + 1, D))
    return flat.at[np.arange(shards)[:, None], index].set(packed.reshape(shards, -1, D))[:, :-1].reshape(*grid, D)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31), shards=st.sampled_from([1, 4]))
def test_gradients_equal_those_of_plain_indexing(seed, shards):
    x, _, rows = example(seed, shards, 1)
    weight = np.random.default_rng(seed).normal(size=(B, N + 1, D)).astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: (weight * packing.gather(x, rows)[0] ** 2).sum()))(x)
    expected = jax.jit(jax.value_and_grad(lambda x: (weight * plain_gather(x, rows) ** 2).sum()))(x)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)
    target = np.random.default_rng(seed + 1).normal(size=(B, N, D)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda p: (target * packing.scatter(p, rows, (B, N)) ** 2).sum()))(weight)
    expected = jax.jit(jax.grad(lambda p: (target * plain_scatter(p, rows, (B, N)) ** 2).sum()))(weight)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_several_scenes_in_one_row():
    """Packing is the host's choice: gather and scatter only follow the index."""
    x, context, _ = example()
    context[:, 3:] = False
    tokens = [b * N + n for b in range(B) for n in range(N) if context[b, n]]
    slots = np.full((1, 2, 16), B * N, np.int32)
    slots.reshape(-1)[: len(tokens)] = tokens
    rows = Rows(slots, (slots < B * N).astype(np.int32) * (1 + slots // N))
    packed, segment = packing.gather(x, rows)
    assert packed.shape == (2, 16, D) and segment.shape == (2, 16)
    np.testing.assert_array_equal(packed.reshape(-1, D)[: len(tokens)], x.reshape(-1, D)[tokens])
    np.testing.assert_array_equal(packing.scatter(packed, rows, (B, N)), np.where(context[..., None], x, 0))


@pytest.mark.parametrize("what", ["gather", "scatter", "gather gradient", "scatter gradient"])
def test_no_collective_on_eight_devices(what):
    x, _, rows = example(shards=8)
    split = NamedSharding(sharding.make_mesh({}, 8), PartitionSpec("data"))
    x, rows = jax.device_put((x, rows), split)

    def run(x, rows):
        if what.startswith("gather"):
            return packing.gather(x, rows)[0]
        return packing.scatter(x, rows, (B, N))

    function = run if "gradient" not in what else jax.grad(lambda x, rows: (run(x, rows) ** 2).sum())
    compiled = jax.jit(function, out_shardings=split).lower(x, rows).compile().as_text()
    assert "num_partitions=8" in compiled  # it is the program of eight devices that is read here
    assert not re.search(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled)
