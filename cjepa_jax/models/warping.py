"""Optical flow on the grid of pixels: warping, correlation, changes of resolution.

A flow [B, H, W, 2] holds (x, y) in pixels of its own map, x to the right and y down: the point at p in one frame is at
p + flow[p] in the next. Pixel (0, 0) has its centre at (0, 0).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax.types import Array


def places(flow: Float[Array, "B H W 2"]) -> Float[Array, "B H W 2"]:
    """Where each pixel's point is in the next frame, (x, y)."""
    rows, cols = flow.shape[1:3]
    grid = jnp.stack(jnp.meshgrid(jnp.arange(cols), jnp.arange(rows)), axis=-1)
    return flow + grid.astype(flow.dtype)


def inside(flow: Float[Array, "B H W 2"]) -> Bool[Array, "B H W"]:
    """Whether that place is on a pixel of the frame: at least -0.5, and below the width or height - 0.5."""
    end = jnp.array([flow.shape[2], flow.shape[1]], flow.dtype) - 0.5
    at = places(flow)
    return ((at >= -0.5) & (at < end)).all(-1)


def warp(x: Float[Array, "B H W C"], flow: Float[Array, "B H W 2"]) -> Float[Array, "B H W C"]:
    """The next frame `x`, read where each pixel's point went: bilinear, with the border's values outside the frame.

    With the true flow it equals the first frame wherever the point is visible in both. The gradient in the flow is 0
    in a direction in which the place is outside.
    """
    rows, cols, width = x.shape[1:]
    at = jnp.clip(places(flow.astype(jnp.float32)), 0, jnp.array([cols - 1, rows - 1], jnp.float32))
    low = jnp.floor(jax.lax.stop_gradient(at)).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.array([cols - 1, rows - 1]))
    share = at - low
    flat = x.reshape(x.shape[0], rows * cols, width)

    def read(col: Array, row: Array) -> Array:
        index = (row * cols + col).reshape(x.shape[0], -1, 1)
        return jnp.take_along_axis(flat, index, axis=1).reshape(x.shape)

    right, down = share[..., :1], share[..., 1:]
    top = (1 - right) * read(low[..., 0], low[..., 1]) + right * read(high[..., 0], low[..., 1])
    bottom = (1 - right) * read(low[..., 0], high[..., 1]) + right * read(high[..., 0], high[..., 1])
    return (1 - down) * top + down * bottom


def correlation(one: Float[Array, "B H W C"], other: Float[Array, "B H W C"], radius: int) -> Float[Array, "B H W M"]:
    """Mean products of each vector of `one` with its neighbours in `other`, up to `radius` pixels to each side.

    M = (2 radius + 1)^2, row by row from the upper left neighbour. Outside the frame `other` is 0.
    """
    padded = jnp.pad(other, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    side = 2 * radius + 1

    def product(index: Array) -> Array:
        return (one * jax.lax.dynamic_slice(padded, (0, index // side, index % side, 0), one.shape)).mean(-1)

    return jnp.moveaxis(jax.lax.map(product, jnp.arange(side**2)), 0, -1)  # a loop: compiles in a third of the time


def enlarge(flow: Float[Array, "B h w 2"], factor: int) -> Float[Array, "B H W 2"]:
    """The flow on a map that is `factor` times as high and wide, in its pixels: linear interpolation."""
    scenes, rows, cols, _ = flow.shape
    return factor * jax.image.resize(flow, (scenes, rows * factor, cols * factor, 2), "linear")
