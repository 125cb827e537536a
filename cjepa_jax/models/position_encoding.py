"""Positions of tokens: codes that are added to them, or rotations of queries and keys.

A module with positions has two attributes. `positions` is "sincos" (fixed codes of any grid), "table" (codes stored as
the parameter "positions" [N, D] of the grid `position_grid`, which is never trained and resized to other grids), "rope"
(rotations) or "rope_tile" (V-JEPA 2's, see positions.axis_rotation). `position_grid` is (times, rows, cols). With
rotations nothing is added, and rows and columns are scaled to `position_grid` if it is not empty.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from cjepa_jax import positions
from cjepa_jax.errors import ConfigError
from cjepa_jax.types import Array


def add(module: nn.Module, x: Float[Array, "B N D"], grid: tuple[int, int, int]) -> Float[Array, "B N D"]:
    """x [B, N, D] float32 plus the codes of a (times, rows, cols) grid. Call it inside the module's compact call.

    Raises: ConfigError for a table without its grid.
    """
    if module.positions == "sincos":
        return x + positions.sincos(grid, x.shape[-1])
    if module.positions == "table":
        stored = tuple(module.position_grid)
        if len(stored) != 3:
            raise ConfigError(f"position_grid = {stored}: must be the table's times, rows and cols")
        table = module.param("positions", lambda _: jnp.asarray(positions.sincos(stored, x.shape[-1])))
        return x + jax.lax.stop_gradient(_resized(table, stored, grid))
    return x


def _resized(table: Array, old: tuple[int, int, int], new: tuple[int, int, int]) -> Array:
    """[N, D] of one grid -> of another. Multiplied in float32, which is not the default of accelerators."""
    if old == new:
        return table
    t, r, c = positions.resizing(old, new)
    spec, exact = "ta,rb,cd,abdk->trck", jax.lax.Precision.HIGHEST
    return jnp.einsum(spec, t, r, c, table.reshape(*old, -1), precision=exact).reshape(-1, table.shape[-1])


def rotation(module: nn.Module, grid: tuple[int, int, int], width: int) -> Float[Array, "N 2 M"] | None:
    """The rotation of each token's queries and keys in heads of `width`, for `rotate`. None if codes are added."""
    if not module.positions.startswith("rope"):
        return None
    return jnp.asarray(positions.rotations(grid, width, module.positions == "rope_tile", tuple(module.position_grid)))


def rotate(x: Float[Array, "B H T d"], rotation: Float[Array, "X T 2 M"] | None) -> Float[Array, "B H T d"]:
    """Queries or keys x [B, H, T, d] turned by `rotation` [B or 1, T, 2, M]. The elements past M are unchanged. In
    float32. None: x unchanged.
    """
    if rotation is None:
        return x
    size = rotation.shape[-1]
    rotation = rotation[:, None]
    own = x[..., :size].astype(jnp.float32)
    swapped = jnp.flip(own.reshape(*own.shape[:-1], -1, 2), -1).reshape(own.shape)
    turned = (own * rotation[..., 0, :] + swapped * rotation[..., 1, :]).astype(x.dtype)
    return turned if size == x.shape[-1] else jnp.concatenate([turned, x[..., size:]], axis=-1)
