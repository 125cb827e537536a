"""Losses of optical flow without labels. Each gives a value for every scene or pair, [B], as float32.

Frames [B, H, W, C] have values in 0..1. `seen` [B, H, W] says which pixels count.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax import losses
from cjepa_jax.models import warping
from cjepa_jax.types import Array

PER_PIXEL = (1, 2)  # the axes over which a scene's pixels are averaged
C1, C2 = 0.01**2, 0.03**2  # of SSIM, for values in 0..1


def ssim(one: Float[Array, "B H W C"], other: Float[Array, "B H W C"]) -> Float[Array, "B h w"]:
    """Structural similarity in windows of 3 x 3 pixels with equal weights, mean over channels: [B, H - 2, W - 2].

    Source: Wang et al. 2004, with the constants 0.01^2 and 0.03^2. It is 1 for equal windows.
    """

    def mean(x: Array) -> Array:
        rows, cols = x.shape[1] - 2, x.shape[2] - 2
        return sum(x[:, i : i + rows, j : j + cols] for i in range(3) for j in range(3)) / 9

    a, b = mean(one), mean(other)
    aa, bb, ab = mean(one * one) - a * a, mean(other * other) - b * b, mean(one * other) - a * b
    value = (2 * a * b + C1) * (2 * ab + C2) / ((a * a + b * b + C1) * (aa + bb + C2))
    return value.mean(-1)


def reconstruction(
    frame: Float[Array, "B H W C"],
    warped: Float[Array, "B H W C"],
    seen: Bool[Array, "B H W"],
    weights: Sequence[float],
) -> Float[Array, " B"]:
    """weights[0] l1 + weights[1] l2 + weights[2] (1 - SSIM) / 2 of a frame and the next one, warped to it.

    l1 and l2 are the mean absolute and squared differences of the pixels that count, SSIM is of the windows whose
    centres count.
    """
    error = warped - frame
    size = _size(error).mean(-1)
    square = jnp.square(error).mean(-1)
    pixels = weights[0] * losses.masked_mean(size, seen, PER_PIXEL)
    pixels += weights[1] * losses.masked_mean(square, seen, PER_PIXEL)
    unlike = jnp.clip((1 - ssim(frame, warped)) / 2, 0, 1)
    return pixels + weights[2] * losses.masked_mean(unlike, seen[:, 1:-1, 1:-1], PER_PIXEL)


def smoothness(flow: Float[Array, "B H W 2"], frame: Float[Array, "B H W C"], edge: float) -> Float[Array, " B"]:
    """Mean change of the flow between neighbours, exp(-edge |change of the frame|) times, along x plus along y.

    The change of the flow is the mean absolute one of its two components, in pixels, and that of the frame the mean
    absolute one of its channels.
    """
    total = jnp.zeros(flow.shape[0])
    for axis in PER_PIXEL:
        bend = _size(jnp.diff(flow, axis=axis)).mean(-1)
        weight = jnp.exp(-edge * _size(jnp.diff(frame, axis=axis)).mean(-1))
        total += (bend * weight).mean(PER_PIXEL)
    return total


def round_trip(forward: Float[Array, "B H W 2"], backward: Float[Array, "B H W 2"]) -> Float[Array, "B H W 2"]:
    """How far each point is from its start after the flow to the next frame and the flow back: f + b(p + f)."""
    return forward + warping.warp(backward, forward)


def visible(
    forward: Float[Array, "B H W 2"], backward: Float[Array, "B H W 2"], relative: float = 0.01, least: float = 0.5
) -> Bool[Array, "B H W"]:
    """Pixels that the next frame shows: those that come back, and whose place is inside the frame.

    A point comes back if |f + b|^2 < relative (|f|^2 + |b|^2) + least, b = the flow back at its place (UnFlow, arXiv
    1711.07837). No gradient flows.
    """
    forward, backward = jax.lax.stop_gradient((forward, backward))
    back = warping.warp(backward, forward)
    away = jnp.square(forward + back).sum(-1)
    lengths = jnp.square(forward).sum(-1) + jnp.square(back).sum(-1)
    return (away < relative * lengths + least) & warping.inside(forward)


def _size(x: Array) -> Array:
    """The absolute value, whose gradient at 0 is 0."""
    return x * jnp.sign(x)
