"""A convolutional encoder of several resolutions, and the estimator of optical flow between two frames on it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Num

from cjepa_jax.models import warping
from cjepa_jax.models.layers import Dense
from cjepa_jax.models.tokenizers import MEAN, STD, normalise
from cjepa_jax.types import Array


class Block(nn.Module):
    """A block of ConvNeXt (arXiv 2201.03545): each channel's own filter, norm, MLP, learned scale, added to x.

    Attributes: kernel: the filter's height and width, odd. [B, H, W, C] -> [B, H, W, C].
    """

    kernel: int = 7
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W C"]) -> Float[Array, "n H W C"]:
        rows, cols, width = x.shape[1:]
        normal, reach = nn.initializers.truncated_normal(0.02), self.kernel // 2
        filters = self.param("filters", normal, (self.kernel, self.kernel, width)).astype(self.dtype)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        steps = range(self.kernel)
        # Shifted copies: XLA's grouped convolution takes several times as long on a CPU.
        y = sum(padded[:, i : i + rows, j : j + cols] * filters[i, j] for i in steps for j in steps)
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(y)
        y = nn.gelu(Dense(4 * width, self.dtype, name="expand")(y), approximate=False)
        y = Dense(width, self.dtype, name="contract")(y)
        return x + self.param("scale", nn.initializers.constant(0.1), (width,)) * y


class Pyramid(nn.Module):
    """Maps of every frame at 1/2, 1/4, ... of its resolution, finest first. A cell is centred on its 2^l x 2^l pixels.

    Attributes: widths of the levels. blocks of each level. kernel of their filters (odd). mean, std of RGB in 0..1.
    """

    widths: tuple[int, ...] = (16, 32, 48, 64)
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    kernel: int = 3
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    dtype: DTypeLike = jnp.float32

    tubelet = 1

    @property
    def patch(self) -> int:
        return 2 ** len(self.widths)

    @nn.compact
    def __call__(self, frames: Num[Array, "n H W C"]) -> list[Float[Array, "n _ _ _"]]:
        """[n, H, W, C] pixels in 0..255 -> float32 maps [n, H / 2^l, W / 2^l, widths[l - 1]] for l = 1, 2, ..."""
        x, levels = normalise(frames, self.mean, self.std), []
        for level, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            if level:
                x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=f"norm{level}")(x)
            x = nn.Conv(width, (2, 2), 2, dtype=self.dtype, name=f"down{level}")(x)  # even, so that cells stay centred
            for block in range(blocks):
                x = Block(self.kernel, self.dtype, name=f"block{level}_{block}")(x)
            levels.append(x.astype(jnp.float32))
        return levels


class FlowHead(nn.Module):
    """Coarse to fine (PWC-Net, arXiv 1709.02371): each level predicts the residual flow after warping.

    At the coarsest level the flow starts at 0. A level enlarges the flow, warps the next frame's map by it and
    correlates the two maps. Convolutions of the correlations, the map and the flow give a correction, which is added to
    the flow. Every convolution but the last has a norm after it. The last one starts at almost 0.

    Attributes: hidden: widths of the convolutions. radius: of the correlation, in pixels of a level. limit: the largest
      component of a flow, in pixels of the frame, to which each level's flow is clipped.
    """

    hidden: tuple[int, ...] = (48, 32)
    radius: int = 3
    limit: float = 32.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, one: list[Float[Array, "n _ _ _"]], other: list[Float[Array, "n _ _ _"]]
    ) -> list[Float[Array, "n _ _ 2"]]:
        """Maps of `Pyramid` of n frames and of their next frames -> flows at the same levels, in a level's pixels."""
        flows, flow = [], None
        for level in reversed(range(len(one))):
            here, there = (jax.nn.standardize(maps[level], axis=-1, epsilon=1e-6) for maps in (one, other))
            flow = jnp.zeros((*here.shape[:3], 2)) if flow is None else warping.enlarge(flow, 2)
            similar = warping.correlation(here, warping.warp(there, flow), self.radius)
            x = jnp.concatenate([similar, here, flow], axis=-1)
            for index, width in enumerate(self.hidden):
                x = nn.Conv(width, (3, 3), dtype=self.dtype, name=f"conv{level}_{index}")(x)
                x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=f"norm{level}_{index}")(x)
                x = nn.leaky_relu(x, 0.1)
            small = nn.initializers.normal(1e-3)
            step = nn.Conv(2, (3, 3), dtype=self.dtype, kernel_init=small, name=f"flow{level}")(x)
            most = self.limit / 2 ** (level + 1)
            flow = jnp.clip(flow + step.astype(jnp.float32), -most, most)
            flows.append(flow)
        return flows[::-1]
