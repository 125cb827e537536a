"""Averages of tokens at several scales, and the feature pyramid that joins them from coarse to fine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from cjepa_jax.models.layers import Dense, LayerNorm
from cjepa_jax.types import Array

KINDS = ("none", "project", "add", "concat")


class Levels(nn.Module):
    """Hidden tokens at several scales, float32 [B, M_h, D] each: the vectors that H-JEPA compares.

    Level h averages squares of 2^h x 2^h tokens of the plane. A layer is a dense one and a LayerNorm.

    "project": a layer for each level, then the average.
    "add": the average, then a layer for each level. From the coarsest level but one to the finest, the vector of the
    square that holds this one passes a layer and is added. A layer for each level comes last.
    "concat": as "add", but both vectors side by side pass a layer and a ReLU.

    Attributes: kind, levels. grid: (times, rows, cols) of the tokens.
    """

    kind: str
    levels: int
    grid: tuple[int, int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"], mask: Bool[Array, "B N"]) -> list[Float[Array, "B M D"]]:
        every = range(self.levels)
        if self.kind == "project":
            return [pool(self._layer(f"project_{h}", tokens), mask, self.grid, 2**h)[0] for h in every]
        found = [self._layer(f"lateral_{h}", pool(tokens, mask, self.grid, 2**h)[0]) for h in every]
        for h in reversed(every[:-1]):
            above = self._layer(f"down_{h}", parents(found[h + 1], self.grid, 2**h))
            if self.kind == "add":
                found[h] = found[h] + above
            else:
                both = jnp.concatenate([found[h], above], axis=-1)
                found[h] = jax.nn.relu(self._layer(f"fuse_{h}", both, found[h].shape[-1]))
        return [self._layer(f"project_{h}", x) for h, x in enumerate(found)]

    def _layer(self, name: str, x: Array, width: int | None = None) -> Array:
        x = Dense(width or x.shape[-1], self.dtype, result=jnp.float32, name=name)(x)
        return LayerNorm(name=f"{name}_norm")(x)


def parents(coarse: Float[Array, "B M D"], grid: tuple[int, int, int], side: int) -> Float[Array, "B N D"]:
    """For each square of side x side tokens the vector of the square of twice the side that holds it."""
    times, rows, cols = grid
    high, wide = -(-rows // side), -(-cols // side)
    plane = coarse.reshape(len(coarse), times, -(-high // 2), -(-wide // 2), -1)
    plane = plane.repeat(2, axis=2)[:, :, :high].repeat(2, axis=3)[:, :, :, :wide]
    return plane.reshape(len(coarse), times * high * wide, -1)


def pool(
    tokens: Float[Array, "B N D"], mask: Bool[Array, "B N"], grid: tuple[int, int, int], side: int
) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
    """Means over the masked tokens of each square of side x side tokens of the plane, and whether it has any.

    The plane's last squares may be cut. Squares without masked tokens are 0.
    """
    times, rows, cols = grid
    more = ((0, 0), (0, 0), (0, -rows % side), (0, -cols % side))
    shape = (-1, times, -(-rows // side), side, -(-cols // side), side)
    weight = jnp.pad(mask.reshape(-1, *grid), more).reshape(shape)
    values = jnp.where(mask[..., None], tokens, 0).reshape(-1, *grid, tokens.shape[-1])
    values = jnp.pad(values, (*more, (0, 0))).reshape(*shape, tokens.shape[-1])
    count = weight.sum((3, 5))
    mean = values.sum((3, 5)) / jnp.maximum(count, 1)[..., None]
    return mean.reshape(tokens.shape[0], -1, tokens.shape[-1]), (count > 0).reshape(tokens.shape[0], -1)
