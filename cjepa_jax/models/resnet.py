"""ResNet-50 v1.5 (arXiv 1512.03385, with the stride in the 3 x 3 convolution), frame by frame."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Num

from cjepa_jax.models.heads import BatchNorm
from cjepa_jax.models.tokenizers import MEAN, STD, normalise
from cjepa_jax.types import Array

FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al., for ReLU


class Conv(nn.Module):
    """Square convolution without bias, padded by size // 2 on every side: [..., H, W, C] -> [..., H', W', features]."""

    features: int
    size: int = 1
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W C"]):
        pad = 2 * ((self.size // 2,) * 2,)
        shape = (self.size,) * 2
        conv = nn.Conv(self.features, shape, self.stride, pad, use_bias=False, dtype=self.dtype, kernel_init=FAN_OUT)
        return conv(x)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width, added to x, which a 1 x 1 brings to that shape.

    Submodules are named as torchvision's: conv1, bn1, ..., downsample_0, downsample_1.
    """

    width: int
    stride: int = 1
    zero_last: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, valid, train):
        out = nn.relu(self._norm("bn1", Conv(self.width, dtype=self.dtype, name="conv1")(x), valid, train))
        out = Conv(self.width, 3, self.stride, self.dtype, name="conv2")(out)
        out = nn.relu(self._norm("bn2", out, valid, train))
        out = Conv(4 * self.width, dtype=self.dtype, name="conv3")(out)
        out = self._norm("bn3", out, valid, train, zero=self.zero_last)
        if x.shape != out.shape:
            x = Conv(4 * self.width, 1, self.stride, self.dtype, name="downsample_0")(x)
            x = self._norm("downsample_1", x, valid, train)
        return nn.relu(x + out)

    def _norm(self, name, x, valid, train, zero=False):
        return BatchNorm(zero=zero, dtype=self.dtype, name=name)(x, valid, train)


class ResNet(nn.Module):
    """Feature maps of every frame as tokens.

    Attributes: blocks per stage and width of the first stage (ResNet-50: (3, 4, 6, 3) and 64). zero_last: whether a
    block's last norm starts at 0, so that the block starts as the identity. mean, std of RGB in 0..1. dtype of the
    computation. Batch norm keeps running statistics, momentum 0.9, in the collection "batch_stats".
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    zero_last: bool = True
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    dtype: DTypeLike = jnp.float32

    tubelet = 1

    @property
    def patch(self) -> int:
        return 2 ** (len(self.blocks) + 1)

    @nn.compact
    def __call__(
        self, video: Num[Array, "B T H W C"], valid: Bool[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B N D"]:
        """[B, T, H, W, C] pixels in 0..255 -> [B, T x (H / patch) x (W / patch), 8 x 4 x width], time-major.

        Args:
          valid: [B] bool, the clips that count in the batch's statistics.
          train: normalise by the batch's statistics and update the running ones. Otherwise normalise by the running
            ones.
        """
        scenes, frames = video.shape[:2]
        x = normalise(video, self.mean, self.std).reshape(-1, *video.shape[2:]).astype(self.dtype)
        if valid is not None:  # of every frame, broadcast over places
            valid = jnp.repeat(valid, frames)[:, None, None]
        x = Conv(self.width, 7, 2, self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(x, valid, train))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                stride = 2 if stage and not index else 1
                block = Bottleneck(
                    self.width * 2**stage, stride, self.zero_last, self.dtype, name=f"layer{stage + 1}_{index}"
                )
                x = block(x, valid, train)
        return x.astype(jnp.float32).reshape(scenes, -1, x.shape[-1])
