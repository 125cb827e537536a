"""Measures the padding in the context encoder's rows, and suggests row lengths with less padding. No JAX."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from cjepa_jax.configuration import seeds, sizes
from cjepa_jax.data import batching
from cjepa_jax.errors import ConfigError

PACKS = range(1, 9)  # numbers of grids per row that are tried
BATCHES = 8  # number of batches, drawn from the contexts that were read
QUANTILES = (0.5, 0.95, 1.0)  # of the numbers of rows that these batches need: the suggested shapes


@dataclasses.dataclass(frozen=True)
class Layout:
    """data.pack and data.row_lengths, with their cost.

    real: share of tokens that are not padding. flops: FLOPs of the encoder's matrix products, divided by those of one
    row of N tokens per scene, if attention computes all products of a row.
    """

    pack: int
    row_lengths: tuple[float, ...]
    real: float
    flops: float

    def __str__(self) -> str:
        return f"{100 * (1 - self.real):.1f} % padding, {self.flops:.3f} of the FLOPs of rows of N"

    @property
    def flags(self) -> str:
        return f'--config.data.pack={self.pack} --config.data.row_lengths="{self.row_lengths}"'


def check_shards(config: Any, shards: int) -> None:
    """Raises ConfigError if a batch is not divisible by the number of shards."""
    if config.train.batch % shards:
        raise ConfigError(f"--shards = {shards}: must divide train.batch = {config.train.batch}")


def report(config: Any, contexts: np.ndarray, tokens: int, shards: int) -> Iterator[tuple[str, str]]:
    """Names and texts of the report: the contexts (int [n], tokens of each scene that was read), the config's layout,
    packed layouts, and the flags of the layout with the fewest FLOPs.
    """
    share = contexts / tokens
    spread = f"{share.mean():.3f} of the grid (deviation {share.std():.3f}, {share.min():.3f} to {share.max():.3f})"
    yield "context tokens", f"{spread} in {len(contexts)} scenes"
    width, batch = sizes.parse(config.objective.encoder.variant).width, config.train.batch
    batches = seeds.generator(0, "batches of a layout").choice(contexts, (BATCHES, shards, batch // shards))
    now = measure(batches, tokens, config.data.pack, config.data.row_lengths, width)
    yield "rows as configured", f"{now}; batches of {batch} on {shards} shard{'s' * (shards > 1)}"
    packed = [suggest(batches, tokens, pack, width) for pack in PACKS if pack <= batch // shards]
    for layout in packed:
        yield f"data.pack = {layout.pack}", f"{layout}: {layout.flags}"
    best = min([now, *packed], key=lambda layout: layout.flops)
    yield "fewest FLOPs", "as configured" if best is now else best.flags


def suggest(batches: np.ndarray, tokens: int, pack: int, width: int) -> Layout:
    """A layout with rows of `pack` grids and the numbers of rows that the batches, int [n, S, b], need."""
    scenes = batches.shape[2]
    needed = np.array([max(rows_needed(shard, pack * tokens) for shard in batch) for batch in batches])
    rows = np.quantile(needed, QUANTILES, method="higher")
    # Rounded down, because a rounded-up share would mean one more row.
    shares = {np.floor(1e4 * count * pack / scenes) / 1e4 for count in rows}
    lengths = (*sorted(share for share in shares if share < 1), 1.0)
    return measure(batches, tokens, pack, tuple(map(float, lengths)), width)


def rows_needed(counts: np.ndarray, length: int) -> int:
    """The fewest rows of this length that hold scenes with `counts` tokens, int [b]."""
    rows = max(1, -(-int(counts.sum()) // length))
    while batching.assign(counts, (rows, length)) is None:
        rows += 1
    return rows


def measure(batches: np.ndarray, tokens: int, pack: int, row_lengths: tuple[float, ...], width: int) -> Layout:
    """The cost of a layout for batches, int [n, S, b], and an encoder of this width."""
    count, shards, scenes = batches.shape
    shapes = batching.shapes(_Data(pack, row_lengths), tokens, scenes)
    chosen = [next(shape for shape in shapes if _holds(shape, batch)) for batch in batches]
    laid_out = shards * sum(rows * length for rows, length in chosen)
    cost = shards * sum(rows * length * _per_token(length, width) for rows, length in chosen)
    return Layout(
        pack, tuple(row_lengths), batches.sum() / laid_out, cost / (batches.size * tokens * _per_token(tokens, width))
    )


def _holds(shape: batching.Shape, batch: np.ndarray) -> bool:
    return all(batching.assign(counts, shape) is not None for counts in batch)


def _per_token(length: int, width: int) -> int:
    """FLOPs of a block per token: four projections, an MLP of width 4 D, attention scores and their weighted sums."""
    return 24 * width**2 + 4 * length * width


@dataclasses.dataclass(frozen=True)
class _Data:
    pack: int
    row_lengths: tuple[float, ...]
