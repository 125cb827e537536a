"""The shares of padding that the benchmark of sources tells are those of the batches that it lays out."""

import ast
import re

import numpy as np
import pytest

from cjepa_jax.data import batching
from cjepa_jax.data.materialise import packing_stats
from cjepa_jax.errors import ConfigError
from configs import vitl

WIDTH = 1024


def contexts(shape, tokens=196):
    share = np.clip(np.random.default_rng(0).normal(0.826, 0.074, shape), 0.6, 0.95)  # about those of configs/vitl.py
    return (share * tokens).astype(int)


def test_rows_needed_are_enough_and_one_less_is_not():
    counts = contexts(64)
    for length in (196, 392, 784):
        rows = packing_stats.rows_needed(counts, length)
        assert batching.assign(counts, (rows, length)) is not None
        assert batching.assign(counts, (rows - 1, length)) is None
    assert packing_stats.rows_needed(np.zeros(3, int), 10) == 1


@pytest.mark.parametrize("pack, shares", [(0, (0.5, 0.9, 1.0)), (4, (0.85, 1.0))])
def test_the_share_of_real_tokens_is_that_of_the_rows_laid_out(pack, shares):
    batches = contexts((2, 2, 16))
    found = packing_stats.measure(batches, 196, pack, shares, WIDTH)
    config = vitl.get_config().data
    config.pack, config.row_lengths = pack, shares
    context = np.arange(196) < batches.reshape(2, 32, 1)
    shapes = batching.shapes(config, 196, 16)
    segments = [batching.lay_out(c, 2, shapes[batching.choose(c, 2, shapes)])[1] for c in context]
    assert found.real == pytest.approx(batches.sum() / sum(segment.size for segment in segments))
    # ViT-L's own: rows of N cost 24 D^2 + 4 N D for each of their tokens.
    cost = sum(segment.size * (24 * WIDTH**2 + 4 * segment.shape[-1] * WIDTH) for segment in segments)
    assert found.flops == pytest.approx(cost / (64 * 196 * (24 * WIDTH**2 + 4 * 196 * WIDTH)))


@pytest.mark.parametrize("pack, shards, least", [(4, 1, 0.96), (5, 1, 0.985), (5, 8, 0.94)])
def test_what_is_suggested_for_1024_scenes_leaves_little_padding(pack, shards, least):
    batches = contexts((4, shards, 1024 // shards))
    found = packing_stats.suggest(batches, 196, pack, WIDTH)
    assert found.real > least and len(found.row_lengths) <= 4 and found.row_lengths[-1] == 1.0
    assert f"--config.data.pack={pack} " in found.flags
    assert ast.literal_eval(re.search('"(.*)"', found.flags)[1]) == found.row_lengths


def test_the_report_names_the_layout_with_the_fewest_flops():
    config = vitl.get_config()
    config.train.batch, config.data.pack = 64, 0
    found = dict(packing_stats.report(config, contexts(300), 196, 2))
    assert found["context tokens"].startswith("0.8") and found["context tokens"].endswith(" in 300 scenes")
    assert found["rows as configured"].endswith("1.000 of the FLOPs of rows of N; batches of 64 on 2 shards")
    flops = {name: float(re.search(r"padding, ([\d.]+) of", text)[1]) for name, text in found.items() if "pack" in name}
    best = min(flops, key=flops.get)
    assert flops[best] < 1 and found[best].endswith(found["fewest FLOPs"])


def test_a_batch_that_the_shards_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="--shards = 3: must divide train.batch = 1024"):
        packing_stats.check_shards(vitl.get_config(), 3)
